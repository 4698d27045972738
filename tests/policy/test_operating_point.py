"""Operating points: what a threshold, a speed-up and an error budget mean for one record."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from easyteacache.errors import UnreachableTarget
from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import VERBS, Request, RunContext, request_and_run
from easyteacache.policy.source import FixedPolicy

Make = Callable[..., Any]
PROFILE = {"sigmas": [1.0, 0.5, 0.0], "distances": [0.0, 1.0, 3.0]}


def say(policy: Policy) -> str:
    return "\n".join(policy.notes)


def point(**fields: Any) -> dict[str, Any]:
    error = fields.pop("error", None)
    return {"evidence": "replayed", **fields, **({} if error is None else {"error": {"mean": error}})}


@pytest.fixture
def choices(make_record: Make, bucket: Make) -> Any:
    return make_record(
        bucket(
            operating_points=[
                point(threshold=0.05, speedup=1.25, error=0.01),
                point(threshold=0.10, speedup=2.0, error=0.05),
                point(schedule=list(range(0, 50, 2)), speedup=2.0, error=0.03, forecaster="linear"),
                point(threshold=0.20, speedup=3.0, error=0.2, forecaster="foca"),
            ]
        )
    )


def choose(record: Any, **wish: Any) -> Policy:
    return resolve(record, *request_and_run(sequence_length=1024, num_steps=50, **wish))


def choose_for_verbs(record: Any) -> Policy:
    return resolve(record, Request(), RunContext(sequence_length=1024, num_steps=50, can=VERBS))


def test_without_a_wish_the_most_cautious_point_is_used(choices: Any) -> None:
    policy = choose(choices)
    assert (policy.threshold, policy.expected_speedup, policy.expected_error) == (0.05, 1.25, 0.01)
    assert "most cautious" in say(policy)


@pytest.mark.parametrize(
    ("speedup", "threshold", "schedule"),
    [(1.0, 0.05, None), (1.26, 0.05, None), (1.5, 0.0, 25), (2.0, 0.0, 25), (3.0, 0.2, None)],
)
def test_a_speed_up_takes_the_best_that_is_fast_enough(
    choices: Any, speedup: float, threshold: float, schedule: int | None
) -> None:
    policy = choose(choices, speedup=speedup)
    assert policy.threshold == threshold
    assert (None if policy.schedule is None else len(policy.schedule)) == schedule


@pytest.mark.parametrize(("max_error", "speedup"), [(0.01, 1.25), (0.04, 2.0), (0.05, 2.0), (0.5, 3.0)])
def test_an_error_budget_takes_the_fastest_within_it(choices: Any, max_error: float, speedup: float) -> None:
    policy = choose(choices, max_error=max_error)
    assert policy.expected_speedup == speedup
    # Of two that are equally fast the better one.
    assert policy.expected_error == {1.25: 0.01, 2.0: 0.03, 3.0: 0.2}[speedup]


def test_a_faster_point_that_is_also_better_is_taken(make_record: Make, bucket: Make) -> None:
    points = [point(threshold=0.1, speedup=1.5, error=0.2), point(threshold=0.3, speedup=2.0, error=0.1)]
    assert choose(make_record(bucket(operating_points=points)), speedup=1.5).expected_speedup == 2.0


def test_without_errors_the_slowest_point_that_is_fast_enough_is_taken(make_record: Make, bucket: Make) -> None:
    points = [point(threshold=t, speedup=s) for t, s in ((0.1, 1.4), (0.2, 1.495), (0.3, 2.0))]
    assert choose(make_record(bucket(operating_points=points)), speedup=1.5).threshold == 0.2


def test_a_point_brings_its_forecaster_unless_the_caller_has_one(choices: Any) -> None:
    assert choose(choices, speedup=3.0).forecaster == "foca"
    assert choose(choices, speedup=2.0).forecaster == "linear"
    assert choose(choices, speedup=3.0, predictor="hold").forecaster == "hold"
    assert choose(choices, threshold=0.33).forecaster == "hold"


def test_a_threshold_of_the_caller_s_own_is_taken_as_it_is(choices: Any) -> None:
    policy = choose(choices, threshold=0.33)
    assert (policy.threshold, policy.schedule, policy.expected_speedup) == (0.33, None, None)


def test_impossible_targets_say_what_is_possible(choices: Any, make_record: Make, bucket: Make) -> None:
    with pytest.raises(UnreachableTarget, match=r"speed-up of 4 is not calibrated: the record offers 1\.25, 2, 3"):
        choose(choices, speedup=4.0)
    with pytest.raises(UnreachableTarget, match=r"error of 0\.001: the least is 0\.01"):
        choose(choices, max_error=0.001)
    bare = make_record(bucket(operating_points=[point(threshold=0.1)]))
    with pytest.raises(UnreachableTarget, match="states no speed-ups"):
        choose(bare, speedup=1.5)
    with pytest.raises(UnreachableTarget, match="states no errors"):
        choose(bare, max_error=0.1)
    with pytest.raises(UnreachableTarget, match="lists no operating points"):
        choose(make_record(bucket(operating_points=[])))


def test_a_blend_of_two_points_is_the_weighted_mean(make_record: Make, bucket: Make) -> None:
    record = make_record(
        bucket(1000, operating_points=[point(threshold=0.1, speedup=1.5, error=0.1)]),
        bucket(4000, operating_points=[point(threshold=0.3, speedup=2.5, error=0.3, forecaster="linear")]),
    )
    policy = resolve(record, *request_and_run(sequence_length=2100, num_steps=50))
    weight = policy.buckets[1].weight
    assert weight > 0.5
    for value, low, high in (
        (policy.threshold, 0.1, 0.3),
        (policy.expected_speedup, 1.5, 2.5),
        (policy.expected_error, 0.1, 0.3),
    ):
        assert value == pytest.approx((1 - weight) * low + weight * high)
    assert policy.forecaster == "linear"


def test_schedules_are_not_blended_and_the_nearer_one_is_named(make_record: Make, bucket: Make) -> None:
    plans = [list(range(0, 50, 2)), list(range(0, 50, 5))]
    record = make_record(
        *(bucket(n, operating_points=[point(schedule=s)]) for n, s in zip((1000, 4000), plans, strict=True))
    )
    policy = resolve(record, *request_and_run(sequence_length=1100, num_steps=50))
    assert list(policy.schedule or ()) == plans[0]
    assert "Schedules cannot be blended" in say(policy)
    mixed = make_record(
        bucket(1000, operating_points=[point(schedule=plans[0], speedup=2.0), point(threshold=0.1, speedup=2.0)]),
        bucket(4000, operating_points=[point(threshold=0.3, speedup=2.0)]),
    )
    # The nearer one's schedule goes before a blend of thresholds; where the nearer one has none, they are blended.
    policy = resolve(mixed, *request_and_run(sequence_length=1500, num_steps=50, speedup=2.0))
    assert list(policy.schedule or ()) == plans[0]
    policy = resolve(mixed, *request_and_run(sequence_length=3000, num_steps=50, speedup=2.0))
    assert policy.schedule is None
    assert 0.1 < policy.threshold < 0.3


def test_a_schedule_is_never_used_as_it_is_at_another_step_count_or_shift(make_record: Make, bucket: Make) -> None:
    record = make_record(bucket(shift=3.0, sigma_profile=PROFILE, operating_points=[point(schedule=[0, 2, 4])]))
    for setting in ({"num_steps": 25, "shift": 3.0}, {"num_steps": 50, "shift": 5.0}):
        policy = resolve(record, *request_and_run(sequence_length=1024, **setting))
        assert policy.schedule not in (None, (0, 2, 4))
        assert (policy.refusal, policy.evidence, policy.expected_error) == (None, "carried", None)
        assert policy.warnings == (policy.carried,)
        # Its own threshold needs no operating point.
        own = resolve(record, *request_and_run(sequence_length=1024, threshold=0.2, **setting))
        assert (own.refusal, own.threshold, own.needs_sigma) == (None, 0.2, True)


@pytest.mark.parametrize(("num_steps", "last"), [(50, 49), (None, 4)])
def test_a_schedule_ends_with_its_steps(make_record: Make, bucket: Make, num_steps: int | None, last: int) -> None:
    record = make_record(bucket(num_steps=num_steps, operating_points=[point(schedule=[0, 2, 4])]))
    assert resolve(record, *request_and_run(sequence_length=1024)).last_skip_step == last


def test_a_caller_that_sees_the_block_stack_alone_gets_a_point_for_it(make_record: Make, bucket: Make) -> None:
    points = [
        point(threshold=0.1, applied_to="output"),
        point(threshold=0.2, forecaster="linear", coordinate="timestep"),
        point(threshold=0.3),
    ]
    record = make_record(bucket(operating_points=points))
    assert choose(record).applied_to == "output"
    policy = choose_for_verbs(record)
    assert policy.threshold == 0.3
    assert "nothing but the block stack" in say(policy)
    # Where there is none the caller is told so when it uses it.
    assert choose_for_verbs(make_record(bucket(operating_points=points[:1]))).applied_to == "output"


def test_reported_speed_ups_say_whose_they_are(make_record: Make, bucket: Make) -> None:
    record = make_record(
        bucket(domain=None, operating_points=[{"threshold": 0.1, "speedup": 1.8, "evidence": "reported"}]),
        status="published",
    )
    assert "speed-up of 1.8 is what the source reports" in say(choose(record, speedup=1.5))


def test_a_fixed_policy_changes_only_what_is_asked(choices: Any) -> None:
    policy = choose(choices, speedup=2.0)
    source = FixedPolicy(policy)

    def after(**wish: Any) -> Policy:
        return source.policy(*request_and_run(sequence_length=9, **wish))

    assert after() == policy
    assert source.policy(Request(), RunContext(can=VERBS)) == policy
    changed = after(threshold=0.4, max_skip_step=-3, max_consecutive_skips=2)
    assert (changed.threshold, changed.schedule, changed.last_skip_step, changed.max_consecutive_skips) == (
        0.4,
        None,
        47,
        2,
    )


# Wishes ----------------------------------------------------------------------------------------------------------------


def test_wishes_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="threshold and speedup exclude each other"):
        Request(threshold=0.1, speedup=2.0)
    with pytest.raises(ValueError, match="speedup and max_error"):
        Request(speedup=2.0, max_error=0.1)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *[("sequence_length", bad) for bad in (0, -1, 1.5, True, "8", math.nan)],
        *[("num_steps", bad) for bad in (0, -1, 50.0, False)],
        *[("shift", bad) for bad in (0, -1, math.inf, "3")],
        *[("threshold", bad) for bad in (-0.1, math.nan, math.inf, True)],
        *[("speedup", bad) for bad in (0.5, math.nan)],
        *[("max_error", bad) for bad in (-1, math.inf)],
        *[("min_skip_step", bad) for bad in (-1, 1.0)],
        *[("max_skip_step", bad) for bad in (1.0, True)],
        *[("max_consecutive_skips", bad) for bad in (-1, 0.5)],
    ],
)
def test_a_number_out_of_range_is_named(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} is"):
        request_and_run(**{name: bad})


def test_numbers_of_numpy_are_numbers() -> None:
    request, run = request_and_run(
        sequence_length=np.int64(8), num_steps=np.uint8(50), threshold=np.float32(0.5), shift=np.float64(3)
    )  # type: ignore[arg-type]
    assert (run.sequence_length, run.num_steps, request.threshold, run.shift) == (8, 50, 0.5, 3.0)
    assert {type(run.sequence_length), type(request.threshold)} == {int, float}
