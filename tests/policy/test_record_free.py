"""Policies without a record: made for each run, and honest about it."""

from __future__ import annotations

import pytest

from easyteacache import TeaCache
from easyteacache.errors import UnreachableTarget
from easyteacache.policy.carry import shifted_levels
from easyteacache.policy.record_free import EVEN, UNIVERSAL, OrUniversal
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.source import Resolver
from easyteacache.policy.uncalibrated import even_plan, universal_plan
from easyteacache.records.sampler import SamplerRecord

from .test_model_choice import found

LEVELS = shifted_levels(50, 5.0)
WAN = RunContext(num_steps=50, sequence_length=32_760, sampler=SamplerRecord.euler(LEVELS))


def sampler(prediction: str, levels: tuple[float, ...]) -> SamplerRecord:
    return SamplerRecord(name="Other", calls=len(levels) - 1, prediction=prediction, levels=levels)


def test_plan_is_the_universal_one_of_the_runs_levels_and_length() -> None:
    policy = UNIVERSAL.policy(Request(speedup=2.0), WAN)
    assert policy.schedule == universal_plan(LEVELS, 32_760, 25)
    assert policy.forecaster == "linear"
    assert policy.applied_to == "residual"
    assert policy.expected_speedup == 2.0
    assert policy.expected_error is None
    assert policy.evidence is None
    assert any("no calibration" in note for note in policy.notes)


def test_a_token_stands_for_as_many_values_as_the_run_says() -> None:
    small = RunContext(num_steps=50, sequence_length=256, shift=3.0, values_per_token=4)
    found = UNIVERSAL.policy(Request(speedup=2.5), small).schedule
    assert found == universal_plan(shifted_levels(50, 3.0), 256, 20, values=4)
    assert (
        found
        != UNIVERSAL.policy(Request(speedup=2.5), RunContext(num_steps=50, sequence_length=256, shift=3.0)).schedule
    )


@pytest.mark.parametrize(("missing", "named"), [("num_steps", "step count"), ("sequence_length", "length")])
def test_every_step_is_computed_until_the_run_is_known(missing: str, named: str) -> None:
    known = {"num_steps": 50, "sequence_length": 4096, "shift": 3.0}
    known.pop(missing)
    policy = UNIVERSAL.policy(Request(speedup=2.0), RunContext(**known))
    assert policy.decided_by == "nothing"
    assert named in policy.notes[0]


def test_a_run_whose_noise_levels_nobody_knows_is_computed() -> None:
    policy = UNIVERSAL.policy(Request(speedup=2.0), RunContext(num_steps=50, sequence_length=4096))
    assert policy.decided_by == "nothing"
    assert "noise levels" in policy.notes[0]


def test_levels_that_do_not_fall_are_no_plans() -> None:
    heun = sampler("velocity", (1.0, 0.5, 0.5, 0.2, 0.2, 0.0))
    policy = UNIVERSAL.policy(Request(speedup=2.0), RunContext(num_steps=5, sequence_length=4096, sampler=heun))
    assert policy.decided_by == "nothing"
    assert "do not fall" in policy.notes[0]


def test_a_sample_left_at_the_last_calls_level_has_a_plan() -> None:
    levels = (*LEVELS[:-1], LEVELS[-2])
    run = RunContext(num_steps=50, sequence_length=32_760, sampler=sampler("velocity", levels))
    policy = UNIVERSAL.policy(Request(speedup=2.0), run)
    assert policy.refusal is None
    assert policy.schedule == universal_plan(levels, 32_760, 25)
    assert len(policy.schedule) == 25


def test_under_a_sampler_that_draws_noise_every_step_is_computed_and_said() -> None:
    noisy = SamplerRecord(name="LCM (stochastic)", calls=50, prediction="velocity", levels=LEVELS)
    policy = UNIVERSAL.policy(Request(speedup=2.0), RunContext(num_steps=50, sequence_length=4096, sampler=noisy))
    assert policy.decided_by == "nothing"
    assert policy.refusal.startswith("LCM draws noise")
    assert policy.warnings == (policy.refusal,)


def test_why_there_is_no_plan_is_a_warning_and_no_plan_without_one_reuses() -> None:
    policy = UNIVERSAL.policy(Request(speedup=2.0), RunContext(num_steps=50, sequence_length=4096))
    assert (
        policy.refusal == "The noise levels are not known: pass shift=, or attach a pipeline. Every step is computed."
    )
    assert policy.warnings == policy.notes == (policy.refusal,)
    exact = UNIVERSAL.policy(Request(quality="exact"), WAN)
    assert exact.decided_by == "nothing"
    assert exact.refusal is None
    assert exact.warnings == ()


@pytest.mark.parametrize(("steps", "warned"), [(4, True), (8, True), (9, False)])
def test_a_plan_for_few_steps_says_so_in_its_notes(steps: int, warned: bool) -> None:
    run = RunContext(num_steps=steps, sequence_length=4096, shift=3.0)
    policy = UNIVERSAL.policy(Request(speedup=2.0), run)
    assert any(f"A run of {steps} steps" in text for text in policy.notes) == warned
    assert not any("A run of" in text for text in UNIVERSAL.policy(Request(speedup=1.0), run).notes)


def test_other_samplers_levels_are_taken_as_shares_of_noise() -> None:
    shares = (0.9999, *LEVELS[1:])
    sigmas = tuple(level / (1.0 - level) for level in shares)
    variances = tuple(level / (level**2 + (1.0 - level) ** 2) ** 0.5 for level in shares)
    for prediction, levels in (("epsilon", sigmas), ("v", variances)):
        run = RunContext(num_steps=50, sequence_length=32_760, sampler=sampler(prediction, levels))
        assert UNIVERSAL.policy(Request(speedup=2.0), run).schedule == universal_plan(shares, 32_760, 25)


def test_even_plan_needs_the_step_count_alone() -> None:
    assert EVEN.policy(Request(speedup=3.0), RunContext(num_steps=30)).schedule == even_plan(30, 10)
    assert EVEN.policy(Request(speedup=3.0), RunContext()).decided_by == "nothing"


def test_two_steps_are_always_computed_and_it_says_what_that_gives() -> None:
    policy = EVEN.policy(Request(speedup=10.0), RunContext(num_steps=4))
    assert policy.schedule == (0, 2)
    assert any("2×" in note for note in policy.notes)
    assert EVEN.policy(Request(speedup=2.0), RunContext(num_steps=1)).schedule == (0,)


@pytest.mark.parametrize(
    ("wish", "computed"),
    [
        ({"max_consecutive_skips": 1}, (0, 2, 3, 5, 6, 8, 9, 11)),
        ({"max_consecutive_skips": 0}, tuple(range(12))),
        ({"min_skip_step": 4}, (0, 1, 2, 3, 6, 9)),
        ({"max_skip_step": 7}, (0, 3, 6, 8, 9, 10, 11)),
        ({"max_skip_step": -3}, (0, 3, 6, 9, 10, 11)),
    ],
)
def test_the_caller_s_own_window_holds_for_a_plan_without_a_record(wish, computed) -> None:
    policy = EVEN.policy(Request(speedup=3.0, **wish), RunContext(num_steps=12))
    assert policy.schedule == computed
    assert policy.expected_speedup == 12 / len(computed)
    assert any("in the window that was asked for" in note for note in policy.notes)


def test_no_error_can_be_promised_and_a_speedup_is_needed() -> None:
    with pytest.raises(UnreachableTarget, match="no calibration"):
        UNIVERSAL.policy(Request(max_error=0.1), WAN)
    with pytest.raises(ValueError, match="speedup"):
        UNIVERSAL.policy(Request(), WAN)
    with pytest.raises(ValueError, match="at least 1"):
        TeaCache.uncalibrated(0.5)


def record_of(speedup: float, steps: int):
    plan = {"computed": list(range(0, 20, 2)), "rows": [[1.0]] * 20}
    return found(
        "toy", "plan", [{"plan": plan, "evidence": [{"kind": "published", "how": "reported", "speedup": speedup}]}]
    )


def test_a_record_that_holds_goes_first() -> None:
    source = OrUniversal(Resolver(record_of(2.0, 20)))
    policy = source.policy(Request(speedup=2.0), RunContext(num_steps=20, sequence_length=4096, shift=3.0))
    assert policy.model_key == "toy"


def test_where_a_record_offers_nothing_the_universal_plan_does_and_says_why() -> None:
    resolver = Resolver(record_of(2.0, 20))
    run = RunContext(num_steps=20, sequence_length=4096, shift=3.0)
    with pytest.raises(UnreachableTarget):
        resolver.policy(Request(speedup=4.0), run)
    policy = OrUniversal(resolver).policy(Request(speedup=4.0), run)
    assert policy.model_key == "uncalibrated"
    assert policy.schedule == universal_plan(shifted_levels(20, 3.0), 4096, 5)
    assert any("No record holds" in note for note in policy.notes)
    with pytest.raises(UnreachableTarget):
        OrUniversal(resolver).policy(Request(max_error=1e-9), run)


def test_summary_tells_that_there_is_no_evidence() -> None:
    cache = TeaCache.uncalibrated(2.0, num_steps=50, sequence_length=4096, shift=3.0)
    assert "uncalibrated" in cache.summary()
    assert "no evidence" in cache.summary()
    assert any("nothing is known of its quality on this model" in note for note in cache.policy.notes)
    assert "even" in TeaCache.even(2.0, num_steps=50).summary()
