"""One condition of a run changed at random: the same setting within its promise, or a warning; never silence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyteacache.errors import UnreachableTarget
from easyteacache.policy.carry import carried_within, harm, shifted_levels
from easyteacache.policy.carry_limits import spaced_by_shift
from easyteacache.policy.curves import Polynomial, SigmaProfile, turning_point
from easyteacache.policy.policy import LONGEST_RUN, Policy, resolve
from easyteacache.policy.request import VERBS, Capabilities, Request, RunContext
from easyteacache.records import calibration
from easyteacache.records.calibration import Calibration
from easyteacache.records.model_identity import ActiveAdapter, ModelIdentity
from easyteacache.records.sampler import SamplerRecord
from easyteacache.runtime.branch_state import BranchState

RECORD = calibration.load(Path(__file__).resolve().parents[2] / "registry/reference/moving-digits.json")
LENGTHS = sorted({b.sequence_length for b in RECORD.buckets if b.sequence_length is not None})
#: Without the class, which ``attach`` compares.
MODEL = ModelIdentity(class_name="WanTransformer3DModel", dtype="float32")


#: Of Euler's sampler; the record has buckets of UniPC's, too.
OWN = {b.num_steps: b.sampler for b in RECORD.buckets if b.sampler is not None and b.sampler.is_euler}


def euler(steps: int, shift: float) -> SamplerRecord:
    """The record's own sampler, or Euler's at another setting."""
    own = OWN.get(steps) if shift == 3.0 else None
    return SamplerRecord.euler(shifted_levels(steps, shift)) if own is None else own


def run_of(steps: int = 25, shift: float = 3.0, length: int = 256, **more: Any) -> RunContext:
    sampler = more.pop("sampler", euler(steps, shift))
    return RunContext(
        num_steps=steps,
        shift=shift,
        sequence_length=length,
        sampler=sampler,
        model=more.pop("model", MODEL),
        begun=True,
        **more,
    )


def judge(policy: Policy) -> str:
    """What a policy is; raises where it is none of what it may be."""
    assert set(policy.warnings) <= set(policy.notes)
    if policy.refusal is not None:
        assert policy.warnings == (policy.refusal,)
        assert (policy.decided_by, policy.schedule, policy.weights) == ("nothing", None, None)
        assert policy.expected_error is None
        return "computed"
    if policy.expected_error is None:
        assert policy.warnings
        return "told"
    assert not policy.warnings
    assert policy.evidence == "submitted"
    return "promised"


@st.composite
def changes(draw: Any) -> tuple[str, RunContext, Request]:
    """A condition, and a run and a request that differ from a valid pair in it alone."""
    kind = draw(
        st.sampled_from(
            [
                *("sampler", "noise", "unknown", "steps", "shift", "begin", "length"),
                *("dtype", "adapters", "budget", "guidance", "spacing"),
            ]
        )
    )
    request = Request(speedup=draw(st.sampled_from([1.25, 1.5, 2.0, 2.5])))
    run = run_of()
    own = euler(25, 3.0)
    assert own.signature is not None
    if kind == "sampler":
        # Another solver over the same levels: its states differ.
        apart = draw(st.floats(0.002, 0.5))
        signature = (*own.signature[:2], *(value + apart for value in own.signature[2:]))
        run = run_of(sampler=own.model_copy(update={"name": "Other", "signature": signature}))
    elif kind == "noise":
        run = run_of(sampler=own.model_copy(update={"signature": None}))
    elif kind == "unknown":
        run = dataclasses.replace(run, sampler=None, shift=None)
    elif kind == "steps":
        run = run_of(steps=draw(st.integers(2, 120).filter(lambda n: n not in (25, 50))))
    elif kind == "shift":
        run = run_of(shift=draw(st.floats(0.5, 15.0).filter(lambda s: abs(s - 3.0) > 0.05)))
    elif kind == "begin":
        first = draw(st.integers(1, 20))
        run = run_of(steps=25 - first, sampler=SamplerRecord.euler((own.levels or ())[first:]))
    elif kind == "length":
        run = run_of(length=draw(st.integers(1, 10**6)))
    elif kind == "guidance":
        run = run_of(guidance_scale=draw(st.one_of(st.floats(0.0, 2.4), st.floats(3.7, 30.0))))
    elif kind == "spacing":
        # Another solver over levels that no time shift spaces.
        power = draw(st.floats(2.5, 7.0))
        levels = [(1.0 - step / 25) ** power for step in range(25)] + [0.0]
        euler_s = SamplerRecord.euler(levels)
        assert euler_s.signature is not None
        run = run_of(
            sampler=euler_s.model_copy(
                update={
                    "name": "Other",
                    "signature": (*euler_s.signature[:2], *(v + 0.1 for v in euler_s.signature[2:])),
                }
            )
        )
    elif kind == "dtype":
        run = run_of(model=MODEL.model_copy(update={"dtype": draw(st.sampled_from(["bfloat16", "float16"]))}))
    elif kind == "adapters":
        found = (ActiveAdapter(name=draw(st.sampled_from(["a", "b"])), scale=draw(st.floats(0.1, 2.0))),)
        run = run_of(model=MODEL.model_copy(update={"adapters": found}))
    else:
        request = Request(max_error=draw(st.floats(0.002, 0.1)))
        run = run_of(
            sampler=own.model_copy(update={"name": "Other", "signature": tuple(v + 0.1 for v in own.signature)})
        )
    return kind, run, request


@settings(max_examples=150, deadline=None)
@given(changes())
def test_one_condition_changed_is_never_passed_over_in_silence(change: tuple[str, RunContext, Request]) -> None:
    kind, run, request = change
    policy = resolve(RECORD, request, run)
    outcome = judge(policy)
    if kind in ("noise", "unknown", "budget", "spacing"):
        assert outcome == "computed"
    elif kind == "length":
        inside = LENGTHS[0] / 1.1 <= (run.sequence_length or 0) <= LENGTHS[-1] * 1.1
        assert outcome == ("promised" if inside else "told")
    else:
        assert outcome in ("told", "computed")


@pytest.mark.parametrize("scale", [None, 2.6, 3.0, 3.5])
def test_the_record_s_own_guidance_is_promised_without_a_word(scale: float | None) -> None:
    assert judge(resolve(RECORD, Request(speedup=2.0), run_of(guidance_scale=scale))) == "promised"


@pytest.mark.parametrize("steps", [12, 25, 50])
@pytest.mark.parametrize("shift", [0.7, 1.0, 3.0, 12.0])
@pytest.mark.parametrize("first", [0, 3, 6])
def test_levels_of_any_time_shift_are_known_from_those_of_none(steps: int, shift: float, first: int) -> None:
    assert spaced_by_shift(shifted_levels(steps, shift)[first:])
    ratio = 300.0 ** (1.0 / steps)  # exponential, from 0.99 down
    assert not spaced_by_shift([*(0.99 / ratio**step for step in range(steps)), 0.0])


@pytest.mark.parametrize(("steps", "length"), [(25, 64), (25, 256), (50, 1024)])
@pytest.mark.parametrize("speedup", [1.25, 2.0, 2.5])
def test_the_unchanged_pair_is_promised_without_a_word(steps: int, length: int, speedup: float) -> None:
    assert judge(resolve(RECORD, Request(speedup=speedup), run_of(steps, length=length))) == "promised"


def test_before_a_run_nothing_is_known_of_it_and_nothing_is_said() -> None:
    policy = resolve(RECORD, Request(speedup=2.0), RunContext(num_steps=25, shift=3.0, sequence_length=256))
    assert (policy.warnings, policy.refusal) == ((), None)


def test_the_three_verbs_are_believed_and_promised_nothing() -> None:
    run = dataclasses.replace(run_of(sampler=None), can=VERBS)
    policy = resolve(RECORD, Request(speedup=2.0), run)
    assert judge(policy) == "told"
    assert "The sampler of this run is not known" in policy.warnings[0]


# Carrying over --------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 120), st.floats(0.5, 15.0), st.sampled_from([12, 16, 8]))
def test_what_is_carried_over_does_no_more_harm_than_the_plan(steps: int, shift: float, computed: int) -> None:
    bucket = next(b for b in RECORD.buckets if (b.sequence_length, b.num_steps) == (256, 25))
    plan = next(p.schedule for p in bucket.operating_points if p.schedule and len(p.schedule) == computed)
    assert bucket.sigma_profile is not None
    profile = SigmaProfile(bucket.sigma_profile.sigmas, bucket.sigma_profile.distances)
    own, other = bucket.sigma_profile.sigmas, shifted_levels(steps, shift)
    found = carried_within(plan, own, other, profile)
    assert found[0] == 0
    assert list(found) == sorted(set(found))
    assert found[-1] < steps
    assert harm(found, other, profile) <= 1.1 * harm(plan, own, profile) + 1e-12


# Published polynomials ------------------------------------------------------------------------------------------------

WAN = (-3.03318725e05, 4.90537029e04, -2.65530556e03, 5.87365115e01, -3.15583525e-01)


def test_a_published_quartic_is_followed_neither_below_0_nor_past_its_turn() -> None:
    """A4: −9 to −2083 at distances of 0.12 to 0.33."""
    import numpy as np

    curve = Polynomial.trusted(WAN)
    turn = turning_point(WAN)
    tops = [x.real for x in np.roots(np.polyder(WAN)) if abs(x.imag) < 1e-12]
    assert turn == pytest.approx(max(tops), rel=1e-9)
    for x in np.linspace(0.0, 1.0, 1001):
        value = float(np.polyval(WAN, x))
        if value < 0 or x > turn:
            assert np.isnan(curve(float(x)))
        else:
            assert curve(float(x)) == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert any(curve(float(x)) > 0 for x in np.linspace(0.0, turn, 50))


def test_every_published_polynomial_says_nothing_below_0_or_past_its_turn() -> None:
    import numpy as np

    from easyteacache.registry.registry import Registry

    seen = 0
    for record in Registry.from_folder(Path(__file__).resolve().parents[2] / "registry").values():
        if record.method != "teacache" or record.status != "published":
            continue
        for bucket in record.buckets:
            assert bucket.coefficients is not None
            low, high = bucket.domain or (0.0, 3.0)
            curve = resolve(record, Request(threshold=0.1), RunContext()).curve
            curve = Polynomial.trusted(bucket.coefficients, domain=bucket.domain) if len(record.buckets) > 1 else curve
            turn = turning_point(bucket.coefficients)
            for x in np.linspace(low, high, 400):
                said = np.polyval(bucket.coefficients, x) >= 0 and x <= turn
                assert np.isnan(curve(float(x))) != said
            seen += 1
    assert seen > 60


@pytest.mark.parametrize(
    ("coefficients", "turn"),
    [
        ((1.0, 0.0), float("inf")),
        ((-1.0, 1.0, 0.0), 0.5),
        ((1.0,), float("inf")),
        ((0.0, 0.0, -1.0, 1.0, 0.0), 0.5),
        ((1.0, -1.0, 1.0), float("inf")),
        # Rises to 1, dips to 0.78 and goes on: a wiggle of the fit.
        ((1.0, -2.1, 1.4, 0.0), float("inf")),
    ],
)
def test_where_a_polynomial_turns(coefficients: tuple[float, ...], turn: float) -> None:
    assert turning_point(coefficients) == pytest.approx(turn, rel=1e-9)


def test_published_numbers_without_a_limit_reuse_no_more_than_any_published_plan(
    make_record: Callable[..., Calibration], bucket: Callable[..., Any]
) -> None:
    for stated, wished, found in ((None, None, LONGEST_RUN), (3, None, 3), (3, 12, 12), (None, 12, 12)):
        record = make_record(bucket(domain=None, max_consecutive_skips=stated), status="published")
        request = Request(threshold=0.9, max_consecutive_skips=wished)
        policy = resolve(record, request, RunContext(num_steps=50))
        assert BranchState("default", policy).gate.limit == found
    own = resolve(make_record(bucket()), Request(threshold=0.1), RunContext(num_steps=50))
    assert BranchState("default", own).gate.limit is None


def test_a_record_without_speed_ups_lists_its_thresholds(
    make_record: Callable[..., Calibration], bucket: Callable[..., Any]
) -> None:
    """C12."""
    points = [{"threshold": value, "evidence": "reported"} for value in (0.1, 0.25)]
    record = make_record(bucket(domain=None, operating_points=points), status="published")
    with pytest.raises(UnreachableTarget, match=r"states no speed-ups; pass threshold=.*: 0\.1, 0\.25"):
        resolve(record, Request(speedup=2.0), RunContext(num_steps=50))
    with pytest.raises(UnreachableTarget, match=r"states no errors; pass threshold=.*: 0\.1, 0\.25"):
        resolve(record, Request(max_error=0.01), RunContext(num_steps=50))


def test_a_driver_that_corrects_needs_the_very_levels(capsys: Any) -> None:
    shifted = run_of(shift=3.04, sampler=euler(25, 3.04), can=Capabilities(corrects=True))
    policy = resolve(RECORD, Request(speedup=2.0), shifted)
    assert (policy.weights, policy.evidence, policy.expected_error) == (None, "carried", None)


def test_a_stated_threshold_is_the_operating_point_with_its_predictor_and_its_promise() -> None:
    bucket = next(b for b in RECORD.buckets if (b.sequence_length, b.num_steps) == (64, 25))
    points = [p for p in bucket.operating_points if p.threshold is not None]
    assert {p.forecaster for p in points} > {"foca"}
    for point in points:
        policy = resolve(RECORD, Request(threshold=point.threshold), run_of(25, length=64))
        assert (policy.forecaster, policy.applied_to) == (point.forecaster, point.applied_to)
        assert point.error is not None
        assert policy.expected_error == point.error.mean


def test_a_threshold_between_stated_ones_promises_nothing() -> None:
    policy = resolve(RECORD, Request(threshold=0.1), run_of(25, length=64))
    assert (policy.forecaster, policy.expected_error) == ("hold", None)
