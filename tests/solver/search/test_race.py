"""Racing: the best plan of many, with the runs spent on those that are close."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from easyteacache.solver.replay.segment_objective import typical
from easyteacache.solver.search.race import WORTH, may_win, race, typical_of

Array = NDArray[np.float64]
BATCH = 12


@dataclass(frozen=True, eq=False)
class Seen:
    errors: Array


class Track:
    """Contestants are their mean logarithmic error; runs differ by far more, plans on one run by ``apart``."""

    def __init__(self, *, rounds: int, apart: float = 0.4, seed: int = 0) -> None:
        self.rounds, self.apart, self._rng = rounds, apart, np.random.default_rng(seed)
        self._runs = self._rng.normal(0.0, 1.5, rounds * BATCH)
        self._own: dict[float, Array] = {}
        self.runs_of: dict[float, int] = {}

    def sample(self, plan: float, batches: int) -> Seen:
        count = batches * BATCH
        self.runs_of[plan] = count
        if plan not in self._own:
            self._own[plan] = self._rng.normal(0.0, self.apart, self.rounds * BATCH)
        return Seen(np.exp((plan + self._runs + self._own[plan])[:count]))


def test_what_is_far_behind_runs_once_and_what_is_close_to_the_end() -> None:
    track = Track(rounds=8)
    ranked = race([0.0, 2.0, 0.05, 3.0], track.sample, track.rounds)
    assert track.runs_of[2.0] == track.runs_of[3.0] == BATCH
    assert track.runs_of[0.0] == track.runs_of[0.05] == 8 * BATCH
    assert {plan for plan, _ in ranked[:2]} == {0.0, 0.05}
    assert typical_of(ranked[0][1].errors) <= typical_of(ranked[1][1].errors)
    assert [plan for plan, _ in ranked[2:]] == [2.0, 3.0]
    assert all(len(result.errors) == track.runs_of[plan] for plan, result in ranked)


def test_it_ends_when_one_is_left() -> None:
    track = Track(rounds=50)
    assert [plan for plan, _ in race([1.0, 0.0], track.sample, track.rounds)] == [0.0, 1.0]
    assert track.runs_of[0.0] < 50 * BATCH


def test_of_plans_that_differ_by_nothing_worth_having_one_is_enough() -> None:
    track = Track(rounds=50, apart=0.01)
    race([0.0, 0.001, 0.002], track.sample, track.rounds)
    assert max(track.runs_of.values()) < 50 * BATCH


def test_of_plans_that_were_dropped_the_later_one_is_the_better_one() -> None:
    # Dropped after the second batch, though its errors on both look worse than the other's on the first.
    errors = {
        "best": [1.0] * 24,
        "late": [0.8, 1.1] * 4 + [9.0, 8.0] * 4 + [9.0] * 8,
        "soon": [1.5, 1.6] * 4 + [1.5] * 16,
    }
    seen = {name: np.array(values) for name, values in errors.items()}
    ranked = race(["soon", "late", "best"], lambda name, batches: Seen(seen[name][: 8 * batches]), 3)
    assert [name for name, _ in ranked] == ["best", "late", "soon"]
    assert [len(result.errors) for _, result in ranked] == [16, 16, 8]


def test_after_the_last_batch_none_is_dropped() -> None:
    track = Track(rounds=1)
    ranked = race([3.0, 0.0, 2.0], track.sample, 1)
    assert [plan for plan, _ in ranked] == [0.0, 2.0, 3.0]


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_draw_goes_to_the_earlier_one(rounds: int) -> None:
    same = Seen(np.array([0.1, 0.2, 0.3]))
    assert race(["b", "a", "c"], lambda name, batches: same, rounds)[0][0] == "b"


def test_a_race_finds_the_best_more_often_than_the_first_batch_does() -> None:
    plans = [0.0, 0.1, 0.2, 0.3, 0.4]
    by_race, by_batch, spent = 0, 0, 0
    for seed in range(40):
        track = Track(rounds=12, apart=0.5, seed=seed)
        by_race += race(plans, track.sample, track.rounds)[0][0] == 0.0
        spent += sum(track.runs_of.values())
        by_batch += min(plans, key=lambda plan: typical_of(track.sample(plan, 1).errors)) == 0.0
    assert by_race > 1.3 * by_batch
    assert spent < 0.75 * 40 * len(plans) * 12 * BATCH


@pytest.mark.parametrize("gap", [0.02, 0.3, 1.0])
def test_what_may_win_is_within_two_jackknife_errors_of_a_gain_worth_having(gap: float) -> None:
    track = Track(rounds=4)
    errors, best = track.sample(gap, 4).errors, track.sample(0.0, 4).errors
    count = len(errors)
    left = [float(typical(np.delete(errors, i)) - typical(np.delete(best, i))) for i in range(count)]
    spread = np.sqrt((count - 1) * np.var(left))
    difference = float(typical(errors) - typical(best))
    assert may_win(errors, best) == (difference < 2 * spread - WORTH)
    assert may_win(errors, best) == (gap == 0.02)
    assert may_win(best, errors)


def test_one_run_tells_nothing_apart() -> None:
    assert may_win(np.array([1.0]), np.array([0.1]))
    assert not may_win(np.array([0.0, 0.0]), np.array([0.0, 0.0]))
