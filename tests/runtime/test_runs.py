"""Runs, branches and the order of calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from easyteacache.errors import StepOrderError
from easyteacache.policy.policy import Policy
from easyteacache.policy.request import VERBS, Request, RunContext
from easyteacache.runtime.session import Session
from easyteacache.teacache import TeaCache

LATENT = torch.zeros(1, 8, 4)
ONE = torch.ones(1, 6, 4)
Make = Callable[..., Any]


def reasons(cache: TeaCache, branch: str = "default") -> list[str]:
    return [record.reason for record in cache.statistics()[branch].steps]


def compute(cache: TeaCache, step: int, *, residual: float = 1.0, signal: torch.Tensor = ONE, **arguments: Any) -> None:
    assert not cache.check(step, signal, **arguments)
    branch = {"branch": arguments["branch"]} if "branch" in arguments else {}
    cache.store_truth(step, signal, LATENT, LATENT + residual, **branch)


# Branches ------------------------------------------------------------------------------------------------------------


def test_branches_decide_and_fill_for_themselves(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0, max_consecutive_skips=1)
    for step in range(4):
        for branch, residual in (("cond", 10.0), ("uncond", -10.0)):
            if cache.check(step, ONE, branch=branch):
                assert cache.update(ONE, LATENT, branch=branch).unique().tolist() == [residual + step - 1]
            else:
                cache.store_truth(step, ONE, LATENT, LATENT + residual + step, branch=branch)
    assert {name: run.pattern for name, run in cache.statistics().items()} == {"cond": "█·█·", "uncond": "█·█·"}
    assert cache.current_speedup_rate() == 2.0


def test_update_answers_the_last_branch_checked_unless_told_otherwise(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    compute(cache, 0, branch="cond", residual=1.0)
    compute(cache, 0, branch="uncond", residual=2.0)
    assert cache.check(1, ONE, branch="cond")
    assert cache.check(1, ONE, branch="uncond")
    assert cache.update(ONE, LATENT).unique().tolist() == [2.0]
    assert cache.update(ONE, LATENT, branch="cond").unique().tolist() == [1.0]


def test_a_branch_of_an_earlier_run_is_never_found_again(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    for step in range(3):
        for branch in ("cond", "uncond"):
            if cache.check(step, ONE, branch=branch):
                cache.update(ONE, LATENT)
            else:
                cache.store_truth(step, ONE, LATENT, LATENT + 1, branch=branch)
    compute(cache, 0, branch="cond")
    assert set(cache.statistics()) == {"cond"}
    # Guidance that sets in late: its step 3 would follow the earlier run's step 2.
    assert cache.check(1, ONE, branch="cond")
    cache.update(ONE, LATENT)
    assert not cache.check(3, ONE, branch="uncond")


def test_the_order_of_the_branches_may_change_between_runs(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    for order in (("a", "b"), ("b", "a"), ("a", "b")):
        for step in range(3):
            for branch in order:
                if cache.check(step, ONE, branch=branch):
                    cache.update(ONE, LATENT)
                else:
                    cache.store_truth(step, ONE, LATENT, LATENT + 1, branch=branch)
    assert {run.pattern for run in cache.statistics().values()} == {"█··"}


def test_a_run_of_one_branch_after_the_other_keeps_both(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    for branch in ("cond", "uncond"):
        compute(cache, 0, branch=branch)
        assert cache.check(1, ONE, branch=branch)
        cache.update(ONE, LATENT)
    assert {name: run.pattern for name, run in cache.statistics().items()} == {"cond": "█·", "uncond": "█·"}


# Runs ----------------------------------------------------------------------------------------------------------------


def test_step_zero_begins_a_new_run(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    compute(cache, 0, residual=1.0)
    assert cache.check(1, ONE)
    cache.update(ONE, LATENT)
    compute(cache, 0, residual=5.0)
    assert cache.check(1, ONE)
    assert cache.update(ONE, LATENT).unique().tolist() == [5.0]
    assert cache.statistics()["default"].pattern == "█·"


def test_a_new_run_reported_without_asking_forgets_the_cancelled_one(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    for step in range(3):
        compute(cache, 0) if step == 0 else cache.store_truth(step, ONE, LATENT, LATENT)
    cache.check(3, ONE)
    cache.store_truth(0, ONE, LATENT, LATENT + 7)
    assert cache.check(1, ONE)
    assert cache.update(ONE, LATENT).unique().tolist() == [7.0]


def test_statistics_survive_the_end_of_the_run_and_not_the_beginning_of_the_next(make_cache: Make, drive: Make) -> None:
    cache = make_cache(threshold=9.0)
    assert (cache.statistics(), cache.current_speedup_rate()) == ({}, 1.0)
    drive(cache, [ONE] * 4)
    cache.clear_cache()
    cache.clear_cache()
    assert cache.statistics()["default"].pattern == "█···"
    assert cache.current_speedup_rate() == 4.0
    assert "3 reused" in cache.summary()
    cache.begin_run()
    assert cache.statistics() == {}
    drive(cache, [ONE] * 2)
    drive(cache, [ONE] * 3)
    assert cache.statistics()["default"].pattern == "█··"


def test_clear_cache_drops_every_tensor(make_cache: Make, drive: Make) -> None:
    cache = make_cache(threshold=9.0)
    drive(cache, [ONE] * 3)
    assert cache.nbytes > 0
    cache.clear_cache()
    assert cache.nbytes == 0
    assert not cache.check(3, ONE)


def test_release_keeps_the_record_and_the_order(make_cache: Make, drive: Make) -> None:
    cache = make_cache(threshold=9.0)
    drive(cache, [ONE] * 3)
    cache.release()
    assert cache.nbytes == 0
    assert cache.statistics()["default"].pattern == "█··"
    with pytest.raises(StepOrderError):
        cache.check(2, ONE)
    assert not cache.check(3, ONE)


# Order ---------------------------------------------------------------------------------------------------------------


def test_update_without_any_check_is_an_error(make_cache: Make) -> None:
    with pytest.raises(StepOrderError, match="before any check"):
        make_cache().update(ONE, LATENT)


def test_update_after_a_check_that_said_no_is_an_error(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    assert not cache.check(0, ONE)
    with pytest.raises(StepOrderError, match="only when it said so"):
        cache.update(ONE, LATENT)


def test_a_second_update_for_one_check_is_an_error_and_changes_nothing(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    compute(cache, 0)
    assert cache.check(1, ONE)
    cache.update(ONE, LATENT)
    with pytest.raises(StepOrderError):
        cache.update(ONE, LATENT)
    assert cache.statistics()["default"].pattern == "█·"
    assert cache.check(2, ONE)


def test_update_after_the_step_was_computed_is_an_error(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    compute(cache, 0)
    assert cache.check(1, ONE)
    cache.store_truth(1, ONE, LATENT, LATENT + 1)
    with pytest.raises(StepOrderError):
        cache.update(ONE, LATENT)


def test_computing_an_admitted_step_is_allowed_and_noted(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    compute(cache, 0, residual=1.0)
    assert cache.check(1, ONE)
    cache.store_truth(1, ONE, LATENT, LATENT + 2)
    assert reasons(cache) == ["start", "declined"]
    assert cache.check(2, ONE)
    assert cache.update(ONE, LATENT).unique().tolist() == [2.0]


def test_asking_twice_before_answering_changes_nothing(make_cache: Make, signal: Make) -> None:
    once, twice = make_cache(threshold=0.25), make_cache(threshold=0.25)
    sizes = [1.0, 1.1, 1.2, 1.3, 1.4]
    patterns = []
    for cache, times in ((once, 1), (twice, 3)):
        for step, size in enumerate(sizes):
            answers = {cache.check(step, signal(size)) for _ in range(times)}
            assert len(answers) == 1
            if answers.pop():
                cache.update(signal(size), LATENT)
            else:
                cache.store_truth(step, signal(size), LATENT, LATENT + 1)
        patterns.append(cache.statistics()["default"].pattern)
    assert patterns[0] == patterns[1] == "█··█·"


@pytest.mark.parametrize("verb", ["check", "store_truth"])
def test_the_same_step_twice_says_that_guidance_needs_branches(make_cache: Make, verb: str) -> None:
    cache = make_cache(threshold=9.0)
    compute(cache, 0)
    cache.store_truth(1, ONE, LATENT, LATENT)
    with pytest.raises(StepOrderError, match="branch='uncond'"):
        cache.check(1, ONE) if verb == "check" else cache.store_truth(1, ONE, LATENT, LATENT)


def test_a_step_backwards_is_an_error_and_loses_nothing(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    compute(cache, 0)
    cache.store_truth(1, ONE, LATENT, LATENT)
    cache.store_truth(2, ONE, LATENT, LATENT + 3)
    with pytest.raises(StepOrderError, match="step 1 came after step 2"):
        cache.check(1, ONE)
    assert cache.check(3, ONE)
    assert cache.update(ONE, LATENT).unique().tolist() == [3.0]


def test_a_step_left_out_computes_the_next_one(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    compute(cache, 0)
    compute(cache, 2)
    assert cache.check(3, ONE)
    assert reasons(cache) == ["start", "gap"]


def test_a_check_that_was_never_answered_counts_as_a_step_left_out(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    compute(cache, 0)
    assert cache.check(1, ONE)
    assert not cache.check(2, ONE)


def test_steps_reported_without_asking_are_kept_apart_from_the_last_question(make_cache: Make, signal: Make) -> None:
    cache = make_cache(threshold=9.0)
    compute(cache, 0)
    assert cache.check(1, signal(2.0))
    cache.store_truth(2, signal(2.0), LATENT, LATENT)
    record = cache.statistics()["default"].steps[-1]
    assert (record.step, record.reason, record.distance) == (2, "unasked", None)


# Sequence length and step count --------------------------------------------------------------------------------------


class Recorded:
    """A policy source that remembers what it was asked for."""

    def __init__(self, policy: Policy) -> None:
        self.fixed, self.asked = policy, []

    def policy(self, request: Request, run: RunContext) -> Policy:
        self.asked.append(run)
        return self.fixed


@pytest.fixture
def watched(make_policy: Make) -> tuple[TeaCache, list[RunContext]]:
    source = Recorded(make_policy(threshold=9.0))
    cache = TeaCache(-1, _session=Session(source, Request()))
    cache.session.drive(VERBS)
    source.asked.clear()
    return cache, source.asked


def lengths(asked: list[RunContext]) -> list[int | None]:
    return [run.sequence_length for run in asked]


def steps(asked: list[RunContext]) -> list[int | None]:
    return [run.num_steps for run in asked]


def test_another_length_in_the_middle_of_a_run_computes_and_resolves_anew(watched: Any) -> None:
    cache, asked = watched
    compute(cache, 0, sequence_length=8)
    assert cache.check(1, ONE, 8)
    cache.update(ONE, LATENT)
    assert not cache.check(2, ONE, 16)
    assert lengths(asked) == [8, 16]
    assert reasons(cache) == ["start", "below"]
    cache.store_truth(2, ONE, LATENT, LATENT)
    assert reasons(cache)[-1] == "changed"
    assert cache.check(3, ONE, 16)


def test_another_length_drops_what_every_branch_remembers_when_its_turn_comes(watched: Any) -> None:
    cache, _ = watched
    for branch in ("cond", "uncond"):
        compute(cache, 0, sequence_length=8, branch=branch)
    for branch in ("cond", "uncond"):
        compute(cache, 1, sequence_length=16, branch=branch)
        assert cache.session.known(branch).length == 16
    for branch in ("cond", "uncond"):
        assert cache.check(2, ONE, 16, branch=branch)


def test_the_order_of_steps_holds_across_a_change_of_length(watched: Any) -> None:
    cache, _ = watched
    compute(cache, 0, sequence_length=8)
    compute(cache, 1, sequence_length=16)
    with pytest.raises(StepOrderError):
        cache.check(1, ONE, 32)


def test_a_length_that_is_not_given_is_the_last_one(watched: Any) -> None:
    cache, asked = watched
    compute(cache, 0, sequence_length=8)
    assert cache.check(1, ONE)
    cache.update(ONE, LATENT)
    assert cache.check(2, ONE, 0)
    assert lengths(asked) == [8]
    cache.clear_cache()
    compute(cache, 0)
    assert lengths(asked) == [8, 8]


def test_the_step_count_is_learned_from_the_last_run(watched: Any) -> None:
    cache, asked = watched
    for count in (5, 3, 4):
        for step in range(count):
            cache.store_truth(step, ONE, LATENT, LATENT)
    assert steps(asked) == [None, 5, 3]
    cache.clear_cache()
    compute(cache, 0)
    assert steps(asked)[-1] == 4


def test_a_declared_step_count_goes_before_a_learned_one(watched: Any) -> None:
    cache, asked = watched
    cache.store_truth(0, ONE, LATENT, LATENT)
    cache.begin_run(num_steps=7, sequence_length=24, shift=3.0)
    assert asked[-1] == RunContext(24, 7, 3.0, can=VERBS)
    cache.begin_run()
    assert asked[-1] == RunContext(24, 1, can=VERBS)


def test_what_the_cache_was_made_with_goes_before_what_it_learns(make_policy: Make) -> None:
    source = Recorded(make_policy())
    session = Session(source, Request(), RunContext(num_steps=20, shift=5.0))
    session.branch("default", 0).store_truth(0, None, LATENT, LATENT)
    session.branch("default", 0)
    assert set(steps(source.asked)) == {20}
    session.begin(RunContext(num_steps=10))
    assert source.asked[-1] == RunContext(num_steps=10, shift=5.0)


def test_a_disabled_cache_computes_everything_and_remembers_nothing(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    cache.enable = False
    for step in (0, 1, 1, 0):
        assert not cache.check(step, ONE)
        cache.store_truth(step, ONE, LATENT, LATENT)
    assert cache.update(ONE, LATENT) is LATENT
    assert (cache.statistics(), cache.nbytes) == ({}, 0)
    cache.enable = True
    compute(cache, 0)
    assert cache.check(1, ONE)
