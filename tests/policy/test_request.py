"""What is wished and what is known of a run, and what both together decide by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from easyteacache.policy.curves import Polynomial, SigmaProfile
from easyteacache.policy.policy import BucketShare, Policy, resolve
from easyteacache.policy.request import VERBS, Capabilities, Request, RunContext, request_and_run
from easyteacache.records.sampler import SamplerRecord

Make = Callable[..., Any]
LEVELS = (1.0, 0.8, 0.5, 0.2, 0.0)
PROFILE = SigmaProfile((1.0, 0.0), (0.0, 1.0))
BARE = Policy(
    model_key="toy",
    revision=1,
    status="draft",
    layer="given",
    signal="timestep_projection",
    curve=Polynomial((1.0, 0.0)),
    threshold=0.25,
    first_skip_step=1,
    last_skip_step=None,
    max_consecutive_skips=None,
    buckets=(BucketShare(None, None, None, 1.0),),
)


def over(levels: tuple[float, ...] | None, **can: Any) -> RunContext:
    return RunContext(sampler=None if levels is None else SamplerRecord.euler(levels), can=Capabilities(**can))


# What decides -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "decided_by", "reads"),
    [
        ({}, "signal", (True, True)),
        ({"threshold": 0.0}, "nothing", (False, False)),
        ({"threshold": 0.0, "profile": PROFILE}, "nothing", (False, False)),
        ({"schedule": (0, 2)}, "schedule", (False, False)),
        ({"schedule": (0, 2), "threshold": 0.0}, "schedule", (False, False)),
        ({"schedule": (0, 2), "profile": PROFILE}, "schedule", (False, False)),
        ({"profile": PROFILE}, "sigma", (True, False)),
        ({"profile": PROFILE, "needs_sigma": True}, "sigma", (False, False)),
    ],
)
def test_a_policy_says_what_decides_and_whether_the_signal_is_read(
    changes: dict[str, Any], decided_by: str, reads: tuple[bool, bool]
) -> None:
    policy = dataclasses.replace(BARE, **changes)
    assert policy.decided_by == decided_by
    assert (policy.reads_signal(None), policy.reads_signal(0.5)) == reads


# What is known ----------------------------------------------------------------------------------------------------------


def test_a_driver_goes_before_what_the_caller_said_of_all_runs() -> None:
    stated = RunContext(sequence_length=8, num_steps=50, shift=3.0)
    assert RunContext(num_steps=20).after(stated, seen_steps=7) == RunContext(8, 20, 3.0)
    assert RunContext(shift=5.0).after(stated, seen_steps=7) == RunContext(8, 50, 5.0)
    assert RunContext().after(RunContext(), seen_steps=7) == RunContext(num_steps=7)
    assert RunContext(can=VERBS).after(stated).can == VERBS


def test_corrections_hold_over_their_own_noise_levels_and_where_nobody_knows_them() -> None:
    near, other = ((*(level + apart for level in LEVELS[:-1]), 0.0) for apart in (1e-6, 1e-3))
    for levels in (LEVELS, near, None):
        assert over(levels).corrects_over(LEVELS)
    assert not over(other).corrects_over(LEVELS)
    assert over((1.0, 0.7, 0.5, 0.2, 0.0)).corrects_over(None)
    for levels in ((1.0, 0.7, 0.5, 0.2, 0.0), LEVELS[:-1]):
        assert not over(levels).corrects_over(LEVELS)
    assert not over(LEVELS, corrects=False).corrects_over(LEVELS)
    assert not over(None, corrects=False).corrects_over(None)


def test_both_halves_may_be_said_in_one_go() -> None:
    request, run = request_and_run(speedup=2.0, num_steps=50, max_skip_step=-2, predictor="linear", shift=3.0)
    assert request == Request(speedup=2.0, max_skip_step=-2, predictor="linear")
    assert run == RunContext(num_steps=50, shift=3.0)


# What a driver can apply --------------------------------------------------------------------------------------------------


@pytest.fixture
def record(make_record: Make, bucket: Make) -> Any:
    """One plan each that predicts the output, predicts the residual along the timestep, and needs nothing but the block stack."""
    points = [
        {"schedule": [0, 1], "applied_to": "output", "forecaster": "linear", "speedup": 2.0, "error": {"mean": 0.01}},
        {"schedule": [0, 2], "coordinate": "timestep", "forecaster": "linear", "speedup": 2.0, "error": {"mean": 0.02}},
        {"schedule": [0, 3], "speedup": 2.0, "error": {"mean": 0.03}},
    ]
    return make_record(bucket(num_steps=4, operating_points=[{"evidence": "replayed", **point} for point in points]))


@pytest.mark.parametrize(
    ("can", "schedule"),
    [
        (Capabilities(), (0, 1)),
        (Capabilities(sees=("residual", "output"), corrects=False), (0, 1)),
        (Capabilities(sees=("residual", "feature")), (0, 2)),
        (VERBS, (0, 3)),
    ],
)
def test_a_plan_is_chosen_among_those_the_driver_can_apply(record: Any, can: Capabilities, schedule: Any) -> None:
    policy = resolve(record, Request(speedup=2.0), RunContext(num_steps=4, can=can))
    assert policy.schedule == schedule


def test_a_record_without_anything_to_leave_out_says_nothing_of_it(make_record: Make, bucket: Make) -> None:
    plain = make_record(bucket(num_steps=4, operating_points=[{"schedule": [0, 3], "evidence": "replayed"}]))
    for can in (VERBS, Capabilities(corrects=False)):
        notes = resolve(plain, Request(), RunContext(num_steps=4, can=can)).notes
        assert not any("left out" in note or "block stack" in note for note in notes)


@pytest.mark.parametrize("name", ["speedup", "threshold", "max_error"])
def test_a_number_larger_than_any_float_is_refused_as_others_out_of_range_are(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is larger than any float"):
        Request(**{name: 10**400})
