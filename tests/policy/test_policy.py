"""From a record and what a caller knows to a policy: which buckets, and where a record holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyteacache.errors import InvalidCalibration
from easyteacache.policy.curves import SigmaProfile, blend_profiles
from easyteacache.policy.policy import Policy, RetiredCalibration, resolve
from easyteacache.policy.request import Request, RunContext, request_and_run
from easyteacache.policy.source import Resolver
from easyteacache.registry.registry import Found

Make = Callable[..., Any]
CAUTIOUS = (
    "No threshold, speedup, max_error or quality given: threshold 0.1 is the record's most cautious operating point."
)
PROFILE = {"sigmas": [1.0, 0.5, 0.0], "distances": [0.0, 1.0, 3.0]}


def say(policy: Policy) -> str:
    return "\n".join(policy.notes)


def choose(record: Any, **wish: Any) -> Policy:
    return resolve(record, *request_and_run(sequence_length=1024, num_steps=50, **wish))


def lengths(policy: Policy) -> list[tuple[int | None, float]]:
    return [(share.sequence_length, share.weight) for share in policy.buckets]


# Sequence length ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(make_record: Make, bucket: Make) -> Any:
    """Buckets at 1,000 and 4,000 tokens, with curves and domains of their own."""
    return make_record(
        bucket(1000, coefficients=[1.0, 0.0], domain=[0.1, 0.4]),
        bucket(4000, coefficients=[3.0, 0.0], domain=[0.0, 0.2]),
    )


def test_between_two_buckets_the_curves_are_blended_in_log_length(two: Any) -> None:
    policy = resolve(two, *request_and_run(sequence_length=2000, num_steps=50))
    assert lengths(policy) == [(1000, pytest.approx(0.5)), (4000, pytest.approx(0.5))]
    assert "between the buckets at 1000 (weight 0.500) and 4000 (weight 0.500)" in say(policy)
    # Each curve is clamped to its own domain before they are blended.
    for x, lower, upper in ((0.05, 0.1, 0.05), (0.15, 0.15, 0.15), (0.3, 0.3, 0.2), (9.0, 0.4, 0.2)):
        assert policy.curve(x) == pytest.approx(0.5 * lower + 0.5 * 3 * upper)


@pytest.mark.parametrize("length", [1000, 4000])
def test_at_a_bucket_its_own_curve_is_exact(two: Any, length: int) -> None:
    policy = resolve(two, *request_and_run(sequence_length=length, num_steps=50))
    assert lengths(policy) == [(length, 1.0)]
    assert policy.notes == (CAUTIOUS,)


@pytest.mark.parametrize(
    ("length", "nearest", "where"), [(1, 1000, "below the shortest"), (10**7, 4000, "above the longest")]
)
def test_outside_the_outermost_buckets_the_nearest_is_used_and_named(
    two: Any, length: int, nearest: int, where: str
) -> None:
    policy = resolve(two, *request_and_run(sequence_length=length, num_steps=50))
    assert lengths(policy) == [(nearest, 1.0)]
    assert f"{length} is {where} bucket: the one at {nearest} is used" in say(policy)


@settings(max_examples=40, deadline=None)
@given(st.integers(1000, 4000), st.floats(0.0, 1.0))
def test_a_blend_lies_between_its_curves(two: Any, length: int, x: float) -> None:
    policy = resolve(two, *request_and_run(sequence_length=length, num_steps=50))
    low, high = sorted((min(max(x, 0.1), 0.4), 3 * min(x, 0.2)))
    assert low - 1e-12 <= policy.curve(x) <= high + 1e-12
    assert sum(share.weight for share in policy.buckets) == pytest.approx(1.0)


def test_without_a_length_the_longest_bucket_serves_until_one_is_known(two: Any) -> None:
    policy = resolve(two, *request_and_run(num_steps=50))
    assert lengths(policy) == [(4000, 1.0)]
    assert "until one is known" in say(policy)


def test_a_record_without_lengths_is_used_for_any_and_says_so(make_record: Make, bucket: Make) -> None:
    policy = resolve(make_record(bucket(None)), *request_and_run(sequence_length=777, num_steps=50))
    assert lengths(policy) == [(None, 1.0)]
    assert "777 is assumed to be fine" in say(policy)


def test_of_several_buckets_at_one_length_the_one_that_says_most_is_used(make_record: Make, bucket: Make) -> None:
    general = bucket(1000, num_steps=None, coefficients=[1.0], domain=None)
    special = bucket(1000, num_steps=50, coefficients=[2.0], domain=None)
    other = bucket(4000, num_steps=None, coefficients=[4.0], domain=None)
    policy = resolve(make_record(general, special, other), *request_and_run(sequence_length=2000, num_steps=50))
    assert policy.curve(0.3) == pytest.approx(3.0)


# Step count and shift -------------------------------------------------------------------------------------------------


@pytest.fixture
def settled(make_record: Make, bucket: Make) -> Any:
    """Fitted here at 20 and 50 steps and shifts 3 and 5."""
    return make_record(
        *(bucket(1000, num_steps=n, shift=s, coefficients=[n + s], domain=None) for n in (20, 50) for s in (3.0, 5.0))
    )


@pytest.mark.parametrize(("num_steps", "shift"), [(20, 3.0), (20, 5.0), (50, 3.0), (50, 5.0)])
def test_a_setting_of_the_record_is_used_without_a_word(settled: Any, num_steps: int, shift: float) -> None:
    policy = resolve(settled, *request_and_run(sequence_length=1000, num_steps=num_steps, shift=shift))
    assert (policy.curve(0.1), policy.notes, policy.refusal) == (num_steps + shift, (CAUTIOUS,), None)


def test_what_is_not_given_is_assumed_and_named(settled: Any) -> None:
    policy = resolve(settled, *request_and_run(sequence_length=1000))
    assert (policy.buckets[0].num_steps, policy.buckets[0].shift) == (50, 5.0)
    assert "No num_steps given: 50 steps assumed (the record has 20 steps, 50 steps)." in policy.notes
    assert "No shift given: shift 5 assumed (the record has shift 3, shift 5)." in policy.notes


@pytest.mark.parametrize("setting", [{"num_steps": 30, "shift": 3.0}, {"num_steps": 50, "shift": 8.0}])
@pytest.mark.parametrize("wish", [{}, {"threshold": 0.2}, {"speedup": 1.5}, {"max_error": 0.1}])
@pytest.mark.parametrize("status", ["validated", "draft"])
def test_what_was_fitted_here_computes_everything_elsewhere_and_says_why(
    settled: Any, make_record: Make, setting: dict[str, Any], wish: dict[str, Any], status: str
) -> None:
    buckets = [b.model_dump(mode="json", exclude_none=True) for b in settled.buckets]
    record = make_record(*buckets, status=status, schema_version=3)
    policy = resolve(record, *request_and_run(sequence_length=1000, **setting, **wish))
    assert policy.refusal is not None
    assert policy.refusal in policy.notes
    why = "promised under its own sampler alone" if "max_error" in wish else "no sigma profile"
    assert why in policy.refusal
    assert policy.warnings == (policy.refusal,)
    assert ("20 steps, 50 steps, not 30 steps" in policy.refusal) == (setting["num_steps"] == 30)
    assert ("shift 3, shift 5, not shift 8" in policy.refusal) == (setting["shift"] == 8.0)
    assert (policy.threshold, policy.schedule, policy.expected_speedup) == (0.0, None, None)


def test_a_sigma_profile_carries_it_over(make_record: Make, bucket: Make) -> None:
    record = make_record(bucket(num_steps=50, shift=3.0, sigma_profile=PROFILE, min_skip_step=5))
    native = resolve(record, *request_and_run(sequence_length=1024, num_steps=50, shift=3.0))
    assert (native.needs_sigma, native.refusal, native.expected_speedup) == (False, None, 1.5)
    for setting in ({"num_steps": 25, "shift": 3.0}, {"num_steps": 50, "shift": 5.0}):
        policy = resolve(record, *request_and_run(sequence_length=1024, **setting))
        assert (policy.needs_sigma, policy.refusal, policy.threshold) == (True, None, 0.1)
        assert policy.profile == SigmaProfile((1.0, 0.5, 0.0), (0.0, 1.0, 3.0))
        assert (policy.expected_speedup, policy.expected_error) == (None, None)
        assert "the sigma profile carries it over" in say(policy)
        assert policy.evidence == "carried"
        assert len(policy.warnings) == 1


def test_the_nearest_setting_is_the_nearest_in_ratio(make_record: Make, bucket: Make) -> None:
    buckets = [bucket(num_steps=n, coefficients=[n], domain=None) for n in (10, 50)]
    record = make_record(*buckets, status="published")
    for num_steps, nearest in ((5, 10), (20, 10), (25, 50), (90, 50)):
        policy = resolve(record, *request_and_run(sequence_length=1024, num_steps=num_steps, threshold=0.1))
        assert policy.buckets[0].num_steps == nearest
        assert f"{nearest} steps is nearest" in say(policy)


def test_published_numbers_are_scaled_and_go_on(make_record: Make, bucket: Make) -> None:
    record = make_record(bucket(domain=None, min_skip_step=5), status="published")
    policy = resolve(record, *request_and_run(sequence_length=1024, num_steps=30))
    assert (policy.refusal, policy.needs_sigma, policy.threshold, policy.first_skip_step) == (None, False, 0.1, 3)
    assert "Calibrated for 50 steps, not 30 steps" in say(policy)
    assert "not validated here" in say(policy)


def test_a_retired_record_keeps_to_where_it_was_fitted(make_record: Make, bucket: Make) -> None:
    fitted = make_record(bucket(), status="deprecated")
    assert resolve(fitted, *request_and_run(num_steps=30)).refusal is not None
    copied = make_record(bucket(domain=None), status="deprecated", provenance={})
    assert resolve(copied, *request_and_run(num_steps=30)).refusal is None


def test_a_record_that_does_not_say_holds_everywhere(make_record: Make, bucket: Make) -> None:
    policy = resolve(
        make_record(bucket(num_steps=None)), *request_and_run(sequence_length=1024, num_steps=33, shift=9.0)
    )
    assert (policy.refusal, policy.notes) == (None, (CAUTIOUS,))


# Status and method ----------------------------------------------------------------------------------------------------


def test_a_yanked_record_is_refused_unless_asked_for(make_record: Make, bucket: Make) -> None:
    retirement = {"date": "2026-01-02", "reason": "Wrong signal.", "replacement": "toy/better"}
    record = make_record(bucket(), status="yanked", retirement=retirement)
    with pytest.raises(
        RetiredCalibration, match=r"yanked on 2026-01-02: Wrong signal\. Use 'toy/better' instead"
    ) as error:
        choose(record)
    assert (error.value.model_key, error.value.replacement) == ("toy/model", "toy/better")
    policy = resolve(record, *request_and_run(num_steps=50), allow_yanked=True)
    assert "yanked on 2026-01-02" in say(policy)
    assert "'toy/better'" in say(policy)


def test_a_deprecated_record_works_and_says_so(make_record: Make) -> None:
    assert "deprecated on 2026-01-02" in say(choose(make_record(status="deprecated")))


def test_a_draft_says_so(make_record: Make) -> None:
    assert "not yet judged" in say(choose(make_record(status="draft")))


def test_the_record_s_and_the_lookup_s_notes_are_kept(make_record: Make) -> None:
    record = make_record(notes=["Mind the gap."])
    policy = resolve(Found(record, "local", "toy/model", ("From a shelf.",)), *request_and_run(num_steps=50))
    assert {"Mind the gap.", "From a shelf."} <= set(policy.notes)
    assert policy.layer == "local"


def test_another_engine_s_presets_are_refused(make_record: Make) -> None:
    preset = {"engine": "cache-dit", "method": "DBCache", "parameters": {"Fn_compute_blocks": 8}}
    bucket = {"num_steps": 28, "operating_points": [{"preset": preset}]}
    record = make_record(bucket, method="preset", signal="none", schema_version=3)
    with pytest.raises(InvalidCalibration, match="presets of cache-dit, which this project never applies"):
        resolve(record)


def test_a_published_curve_without_a_domain_is_evaluated_as_its_authors_do(make_record: Make, bucket: Make) -> None:
    coefficients = [7.33226126e02, -4.01131952e02, 6.75869174e01, -3.14987800e00, 9.61237896e-02]
    for post, after in (("none", lambda y: y), ("abs", abs), ("clip", lambda y: max(y, 0.0))):
        record = make_record(
            bucket(coefficients=coefficients, domain=None), status="published", rescale_post=post, provenance={"sources": [{"repository": "a/b"}]}
        )  # fmt: skip
        curve = choose(record).curve
        for x in np.linspace(0.0, 2.0, 41):
            assert curve(float(x)) == pytest.approx(after(float(np.polyval(coefficients, x))), rel=1e-9)


# Sources of policies --------------------------------------------------------------------------------------------------


def test_a_resolver_resolves_once_for_each_setting(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from easyteacache.policy import source as resolver

    calls = []
    monkeypatch.setattr(resolver, "resolve", lambda *a, **k: calls.append(a) or resolve(*a, **k))
    source = Resolver(Found(two, "given", "toy/model"))
    policies = [
        source.policy(Request(), RunContext(sequence_length=length, num_steps=steps))
        for length, steps in ((1000, 50), (2000, 50), (1000, 50), (1000, 25), (2000, 50))
    ]
    assert len(calls) == 3
    assert policies[0] is policies[2]
    assert source.policy(*request_and_run(threshold=0.7, sequence_length=1000, num_steps=50)).threshold == 0.7
    assert len(calls) == 4


# Profiles -------------------------------------------------------------------------------------------------------------

levels = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8, unique=True).map(
    lambda s: tuple(sorted(s, reverse=True))
)


@st.composite
def profiles(draw: Any) -> SigmaProfile:
    sigmas = draw(levels)
    steps = draw(st.lists(st.floats(0.0, 1.0), min_size=len(sigmas) - 1, max_size=len(sigmas) - 1))
    return SigmaProfile(sigmas, tuple(np.concatenate(([0.0], np.cumsum(steps))).tolist()))


@settings(max_examples=60, deadline=None)
@given(profiles(), profiles(), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_blended_profile_predicts_the_blend_of_the_predictions(
    lower: SigmaProfile, upper: SigmaProfile, weight: float, before: float, after: float
) -> None:
    blended = blend_profiles(lower, upper, weight)
    shared = min(lower.sigmas[0], upper.sigmas[0]) - max(lower.sigmas[-1], upper.sigmas[-1])
    assert (blended is None) == (shared <= 0)
    if blended is None:
        return
    assert blended.distances[0] == 0.0
    assert all(b > a for a, b in zip(blended.sigmas[1:], blended.sigmas, strict=False))
    span = blended.sigmas[0] - blended.sigmas[-1]
    first, second = (blended.sigmas[-1] + place * span for place in (before, after))
    parts = lower.between(first, second), upper.between(first, second)
    assert blended.between(first, second) == pytest.approx((1 - weight) * parts[0] + weight * parts[1], abs=1e-9)


def test_profiles_are_blended_only_where_both_buckets_have_one(make_record: Make, bucket: Make) -> None:
    steep = {"sigmas": [1.0, 0.0], "distances": [0.0, 4.0]}
    both = make_record(bucket(1000, sigma_profile=PROFILE), bucket(4000, sigma_profile=steep))
    policy = resolve(both, *request_and_run(sequence_length=2000, num_steps=50))
    assert policy.profile is not None
    assert policy.profile.between(1.0, 0.5) == pytest.approx(0.5 * 1.0 + 0.5 * 2.0)
    one = make_record(bucket(1000, sigma_profile=PROFILE), bucket(4000))
    assert resolve(one, *request_and_run(sequence_length=1001, num_steps=50)).profile is None
    assert resolve(one, *request_and_run(sequence_length=1001, num_steps=25)).refusal is not None


def test_the_reference_record_resolves_between_two_buckets_with_their_weights() -> None:
    from easyteacache.records import calibration

    record = calibration.load(Path(__file__).resolve().parents[2] / "registry/reference/moving-digits.json")
    steps = record.buckets[-1].num_steps
    known = sorted({bucket.sequence_length for bucket in record.buckets if bucket.num_steps == steps})
    policy = resolve(
        record, *request_and_run(sequence_length=known[0] + 17, num_steps=steps, shift=record.buckets[-1].shift)
    )
    assert [share.sequence_length for share in policy.buckets] == known[:2]
    assert f"(weight {policy.buckets[0].weight:.3f})" in say(policy)
