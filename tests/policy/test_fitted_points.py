"""Operating points with fitted weights: chosen only where their corrections can be handed on and hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from easyteacache import TeaCache
from easyteacache.errors import UnreachableTarget
from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import Capabilities, Request, RunContext, request_and_run
from easyteacache.policy.source import FixedPolicy, Resolver
from easyteacache.runtime.session import Session

Make = Callable[..., Any]
STEPS = 8
SCHEDULE = (0, 1, 4, 6)
ROWS = [[1.0], [-0.5, 1.5], [-1.0, 2.0], [-1.5, 2.5], [0.25, -1.0, 1.75], [1.0], [-0.5, 1.5], [0.5, 0.5]]
LEVELS = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2, 0.0]
PROFILE = {"sigmas": LEVELS, "distances": [0.1 * k for k in range(STEPS + 1)]}


def fitted(schedule: tuple[int, ...] = SCHEDULE, **fields: Any) -> dict[str, Any]:
    count = 0
    rows = []
    for step in range(STEPS):
        count += step in schedule
        rows.append(ROWS[step][-count:])
    point = {"schedule": list(schedule), "forecaster": "fitted", "applied_to": "output", "weights": rows}
    return {"evidence": "replayed", "speedup": STEPS / len(schedule), "error": {"mean": 0.01}, **point, **fields}


def plain(schedule: tuple[int, ...] = (0, 2, 4, 6), **fields: Any) -> dict[str, Any]:
    point = {"schedule": list(schedule), "forecaster": "linear", "speedup": STEPS / len(schedule)}
    return {"evidence": "replayed", "error": {"mean": 0.05}, **point, **fields}


@pytest.fixture
def record(make_record: Make, bucket: Make) -> Any:
    points = [fitted(), plain(), fitted((0, 4), error={"mean": 0.2})]
    return make_record(bucket(num_steps=STEPS, shift=3.0, sigma_profile=PROFILE, operating_points=points))


def resolved(record: Any, *, euler: bool = True, **wish: Any) -> Policy:
    request, run = request_and_run(**{"sequence_length": 1024, "num_steps": STEPS, "shift": 3.0, **wish})
    return resolve(record, request, dataclasses.replace(run, can=Capabilities(corrects=euler)))


def say(policy: Policy) -> str:
    return "\n".join(policy.notes)


def test_a_fitted_point_brings_its_weights_and_the_noise_levels_they_hold_at(record: Any) -> None:
    policy = resolved(record, speedup=2.0)
    assert (policy.schedule, policy.forecaster, policy.applied_to) == (SCHEDULE, "fitted", "output")
    assert policy.weights is not None
    assert [list(row) for row in policy.weights] == fitted()["weights"]
    assert policy.noise_levels == tuple(LEVELS)
    assert policy.expected_error == 0.01


def test_a_corrected_schedule_goes_before_a_plain_one_of_as_many_steps(make_record: Make, bucket: Make) -> None:
    points = [plain(), fitted(error={"mean": 0.06}), fitted((0, 4), error={"mean": 0.2})]
    record = make_record(bucket(num_steps=STEPS, shift=3.0, sigma_profile=PROFILE, operating_points=points))
    assert resolved(record, speedup=2.0).schedule == SCHEDULE
    assert resolved(record, speedup=2.0, euler=False).schedule == (0, 2, 4, 6)
    # One of fewer steps does not.
    points = [plain(), fitted((0, 4), error={"mean": 0.06})]
    record = make_record(bucket(num_steps=STEPS, shift=3.0, sigma_profile=PROFILE, operating_points=points))
    assert resolved(record, speedup=2.0).schedule == (0, 2, 4, 6)


def test_noise_levels_are_not_known_where_the_profile_has_others(make_record: Make, bucket: Make) -> None:
    for profile in (None, {"sigmas": [1.0, 0.5, 0.0], "distances": [0.0, 1.0, 2.0]}):
        content = bucket(num_steps=STEPS, sigma_profile=profile, operating_points=[fitted()])
        policy = resolve(make_record(content), *request_and_run(num_steps=STEPS))
        assert policy.weights is not None
        assert policy.noise_levels is None


def test_without_euler_another_point_is_chosen_and_the_reason_noted(record: Any) -> None:
    policy = resolved(record, speedup=2.0, euler=False)
    assert (policy.schedule, policy.weights, policy.forecaster) == ((0, 2, 4, 6), None, "linear")
    assert "correct computed steps are left out" in say(policy)
    assert policy.noise_levels is None
    assert "left out" not in say(resolved(record, speedup=2.0))


def test_without_euler_the_most_cautious_of_the_others_is_the_default(record: Any) -> None:
    assert resolved(record, euler=False).schedule == (0, 2, 4, 6)


def test_a_target_that_only_corrections_reach_is_an_error_that_says_so(record: Any) -> None:
    assert resolved(record, speedup=4.0).schedule == (0, 4)
    with pytest.raises(UnreachableTarget, match=r"the record offers 2\. .*Euler"):
        resolved(record, speedup=4.0, euler=False)
    assert resolved(record, max_error=0.02).schedule == SCHEDULE
    with pytest.raises(UnreachableTarget, match=r"the least is 0\.05\. .*Euler"):
        resolved(record, max_error=0.02, euler=False)


def test_a_record_of_fitted_points_alone_says_why_none_is_left(make_record: Make, bucket: Make) -> None:
    only = make_record(bucket(num_steps=STEPS, operating_points=[fitted()]))
    with pytest.raises(UnreachableTarget, match="Euler"):
        resolved(only, euler=False)


def test_at_another_step_count_or_shift_no_weights_are_used(record: Any) -> None:
    for change in ({"num_steps": 9}, {"num_steps": 4}, {"shift": 5.0}):
        for euler in (True, False):
            policy = resolved(record, **change, speedup=2.0, euler=euler)
            # The plan without weights is carried over: the shift says what the noise levels are.
            assert (policy.weights, policy.expected_error, policy.evidence) == (None, None, "carried")
            assert policy.schedule is not None
            assert policy.warnings == (policy.carried,)
    thresholds = make_threshold(record)
    policy = resolved(thresholds, num_steps=9, threshold=0.3)
    assert (policy.weights, policy.schedule, policy.threshold, policy.needs_sigma) == (None, None, 0.3, True)


def make_threshold(record: Any) -> Any:
    content = record.model_dump(mode="json", exclude_none=True)
    evidence = {"kind": "submitted", "how": "replayed", "speedup": 2.0}
    content["buckets"][0]["operating_points"].append({"threshold": 0.3, "evidence": [evidence]})
    return type(record).from_mapping(content)


def test_a_threshold_of_the_caller_s_own_has_no_weights(record: Any) -> None:
    policy = resolved(record, threshold=0.2)
    assert (policy.weights, policy.forecaster, policy.threshold) == (None, "hold", 0.2)


def test_a_forecaster_of_the_caller_s_own_replaces_the_weights_and_their_error(record: Any) -> None:
    policy = resolved(record, speedup=2.0, predictor="quadratic")
    assert (policy.schedule, policy.weights, policy.forecaster) == (SCHEDULE, None, "quadratic")
    assert (policy.noise_levels, policy.expected_error) == (None, None)
    assert policy.expected_speedup == 2.0


@pytest.mark.parametrize(
    "window", [{"min_skip_step": 3}, {"max_skip_step": 6}, {"max_skip_step": -2}, {"max_consecutive_skips": 1}]
)
def test_a_window_that_computes_other_steps_takes_another_point(record: Any, window: dict[str, int]) -> None:
    policy = resolved(record, speedup=2.0, **window)
    assert (policy.schedule, policy.weights) == ((0, 2, 4, 6), None)
    assert "the window asked for computes other steps" in say(policy)


@pytest.mark.parametrize(
    "window", [{"min_skip_step": 2}, {"max_skip_step": 7}, {"max_skip_step": -1}, {"max_consecutive_skips": 2}]
)
def test_a_window_that_leaves_the_plan_alone_keeps_it(record: Any, window: dict[str, int]) -> None:
    policy = resolved(record, speedup=2.0, **window)
    assert policy.schedule == SCHEDULE
    assert policy.weights is not None


def test_the_nearer_bucket_s_plan_keeps_to_its_own_window(make_record: Make, bucket: Make) -> None:
    near = bucket(1000, num_steps=STEPS, max_consecutive_skips=3, operating_points=[fitted((0, 4))])
    for other in (
        {"max_consecutive_skips": 1, "operating_points": [plain()]},
        {"min_skip_step": 2, "max_skip_step": 5, "operating_points": [plain((0, 1, 4, 6, 7))]},
    ):
        record = make_record(near, bucket(4000, num_steps=STEPS, **other))
        policy = resolve(record, *request_and_run(sequence_length=1100, num_steps=STEPS))
        assert policy.schedule == (0, 4)
        assert policy.weights is not None
        assert (policy.first_skip_step, policy.last_skip_step, policy.max_consecutive_skips) == (1, 7, 3)
        # Past the middle it is the other one's turn.
        policy = resolve(record, *request_and_run(sequence_length=3900, num_steps=STEPS))
        assert policy.weights is None
        assert policy.max_consecutive_skips == other.get("max_consecutive_skips")


def test_between_lengths_the_nearer_one_s_corrections_are_used_and_a_blend_has_none(
    make_record: Make, bucket: Make
) -> None:
    threshold = {"threshold": 0.2, "speedup": 2.0, "evidence": "replayed"}
    record = make_record(
        bucket(1000, num_steps=STEPS, operating_points=[threshold, fitted()]),
        bucket(4000, num_steps=STEPS, operating_points=[threshold]),
    )
    policy = resolve(record, *request_and_run(sequence_length=1500, num_steps=STEPS, speedup=2.0))
    assert (policy.schedule, policy.weights is None) == (SCHEDULE, False)
    policy = resolve(record, *request_and_run(sequence_length=3000, num_steps=STEPS, speedup=2.0))
    assert (policy.schedule, policy.weights, policy.threshold) == (None, None, pytest.approx(0.2))


# A given policy -----------------------------------------------------------------------------------------------------------


def after(policy: Policy, *, euler: bool = True, **known: Any) -> Policy:
    request, run = request_and_run(**{"sequence_length": 9, "num_steps": STEPS, "shift": 3.0, **known})
    return FixedPolicy(policy).policy(request, dataclasses.replace(run, can=Capabilities(corrects=euler)))


def test_a_given_policy_keeps_its_weights_under_euler_only(record: Any) -> None:
    given = resolved(record, speedup=2.0)
    assert after(given) == given
    without = after(given, euler=False)
    assert (without.schedule, without.weights, without.forecaster, without.threshold) == (None, None, "hold", 0.0)
    assert "Euler" in (without.refusal or "")
    assert without.refusal in without.notes
    assert (without.expected_speedup, without.expected_error) == (None, None)


def test_a_given_policy_gets_its_weights_back_under_euler(record: Any) -> None:
    given = resolved(record, speedup=2.0)
    source = FixedPolicy(given)
    assert source.policy(Request(), RunContext(num_steps=STEPS, can=Capabilities(corrects=False))).weights is None
    assert source.policy(Request(), RunContext(num_steps=STEPS)) == given


def test_a_given_policy_computes_every_step_at_another_step_count_or_shift(record: Any) -> None:
    given = resolved(record, speedup=2.0)
    for other, word in (
        ({"num_steps": 9}, "9 steps instead of 8"),
        ({"shift": 5.0}, "5 as the time shift instead of 3"),
    ):
        policy = after(given, **other)
        assert (policy.schedule, policy.weights, policy.threshold) == (None, None, 0.0)
        assert word in (policy.refusal or "")
    assert after(given, num_steps=None, shift=None) == given
    bare = dataclasses.replace(given, weights=None, forecaster="linear")
    assert after(bare, num_steps=9).schedule == SCHEDULE


def test_a_threshold_replaces_a_given_policy_s_weights_without_a_refusal(record: Any) -> None:
    for euler in (True, False):
        policy = after(resolved(record, speedup=2.0), threshold=0.4, euler=euler)
        assert (policy.threshold, policy.schedule, policy.weights, policy.refusal) == (0.4, None, None, None)


# A cache ------------------------------------------------------------------------------------------------------------------


def cache_of(record: Any, **wish: Any) -> TeaCache:
    from easyteacache.registry.registry import Found

    asked = request_and_run(sequence_length=1024, num_steps=STEPS, shift=3.0, **wish)
    return TeaCache(-1, _session=Session(Resolver(Found(record, "given", record.model_key)), *asked))


def run_of(*, euler: bool, num_steps: int = STEPS) -> RunContext:
    return RunContext(num_steps=num_steps, shift=3.0, can=Capabilities(corrects=euler))


def test_a_cache_that_learns_of_another_sampler_goes_back_and_forth(record: Any) -> None:
    cache = cache_of(record, speedup=2.0)
    assert cache.policy.weights is not None
    for euler in (False, False, True, True, False):
        cache.session.drive(Capabilities(corrects=euler))
        assert (cache.policy.weights is not None) == euler


def test_a_sampler_that_reaches_nothing_is_refused_every_time_and_changes_nothing(record: Any) -> None:
    cache = cache_of(record, speedup=4.0)
    before = cache.policy
    for _ in range(2):
        with pytest.raises(UnreachableTarget, match="Euler"):
            cache.session.drive(Capabilities(corrects=False))
        with pytest.raises(UnreachableTarget, match="Euler"):
            cache.session.begin(run_of(euler=False))
    assert cache.policy == before
    cache.session.begin(run_of(euler=True))
    assert cache.policy.weights == before.weights


def test_a_run_of_another_sampler_at_a_foreign_step_count_is_computed_not_refused(record: Any) -> None:
    cache = cache_of(record, speedup=4.0)
    cache.session.begin(run_of(euler=True))
    cache.session.begin(run_of(euler=False, num_steps=9))
    assert cache.policy.refusal is not None


def test_the_verbs_never_get_a_plan_that_corrects(record: Any, make_record: Make, bucket: Make) -> None:
    cache = cache_of(record, speedup=2.0)
    latent = torch.zeros(1, 4, 2)
    for step in range(STEPS):
        if cache.check(step, None, 1024):
            cache.update(None, latent)
        else:
            cache.store_truth(step, None, latent, latent + 1.0)
    assert (cache.policy.weights, cache.policy.schedule) == (None, (0, 2, 4, 6))
    assert cache.statistics()["default"].hits == (1, 3, 5, 7)
    only = cache_of(make_record(bucket(num_steps=STEPS, shift=3.0, operating_points=[fitted()])))
    with pytest.raises(Exception, match="output") as caught:
        only.check(0, None, 1024)
    assert type(caught.value).__name__ == "InvalidCalibration"
