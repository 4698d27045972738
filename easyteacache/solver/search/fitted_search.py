"""Find schedules whose weights are fitted: candidates for every number of computed steps, by several views of how errors travel.

How an error of the state travels on is the model's, and no trace holds it. So the search is done under several assumptions; each gives its
own schedule, and those that all of them together find best lie between. Where the model is at hand, sampling decides (``solver/choice.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from easyteacache.solver.replay.fitted_weights import StateFit
from easyteacache.solver.replay.gate_replay import Schedule
from easyteacache.solver.replay.propagation import VIEWS
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.replay.segment_objective import typical

# More runs than these do not change what is found.
SEARCH_RUNS = 16
REACH = 2
MOST_SWEEPS = 40
LEAST_GAIN = 1e-4


class FittedSearch:
    """Schedules of one bucket with fitted weights.

    Args:
        runs: its calibration runs; ``fitted.correctable`` holds for them.
        fewest: computed steps of the shortest schedule that will be asked for.
        views: names of ``propagation.VIEWS`` to search under, the preferred one first.
        tick: called now and then, for a progress bar.
    """

    def __init__(
        self, runs: Runs, fewest: int, *, views: Sequence[str] = tuple(VIEWS), tick: Callable[[], None] = lambda: None
    ) -> None:
        chosen = runs.take(range(min(SEARCH_RUNS, len(runs))))
        self._fits = [StateFit(chosen, view=view) for view in views]
        self._fewest, self._tick = fewest, tick
        self._eliminated: dict[int, dict[int, Schedule]] = {}

    def candidates(self, computed: int) -> list[Schedule]:
        """Different schedules of ``computed`` steps: the best of every view, the preferred one first, then the best of all together."""
        found = [self._improved([fit], self._start(position, computed)) for position, fit in enumerate(self._fits)]
        if len(self._fits) > 1:
            found += [self._improved(self._fits, schedule) for schedule in dict.fromkeys(found)]
        return list(dict.fromkeys(found))

    def _start(self, position: int, computed: int) -> Schedule:
        if position not in self._eliminated:
            self._eliminated[position] = eliminate(self._fits[position], self._fewest, tick=self._tick)
        return self._eliminated[position][computed]

    def _improved(self, fits: Sequence[StateFit], start: Schedule) -> Schedule:
        found = improve(fits, start, tick=self._tick)
        for fit in fits:
            fit.forget()
        return found


def eliminate(fit: StateFit, fewest: int, *, tick: Callable[[], None] = lambda: None) -> dict[int, Schedule]:
    """From all steps computed down to ``fewest``, giving up at each count the step that is missed least: count → schedule."""
    schedule = tuple(range(fit.num_steps))
    found = {len(schedule): schedule}
    while len(schedule) > max(1, fewest):
        tick()
        moves = [schedule[:i] + schedule[i + 1 :] for i in range(1, len(schedule))]
        schedule = moves[int(np.argmin([_value([fit], move) for move in moves]))]
        found[len(schedule)] = schedule
    fit.forget()
    return found


def improve(fits: Sequence[StateFit], schedule: Schedule, *, tick: Callable[[], None] = lambda: None) -> Schedule:
    """Move one computed step by up to ``REACH`` at a time, the best move first, as long as the typical error falls, in the mean of ``fits``."""
    best = _value(fits, schedule)
    for _ in range(MOST_SWEEPS):
        tick()
        moves = neighbours(schedule, fits[0].num_steps)
        values = [_value(fits, move) for move in moves]
        if not values or min(values) >= best - LEAST_GAIN:
            break
        best, schedule = min(zip(values, moves, strict=True))
    return schedule


def neighbours(schedule: Schedule, num_steps: int, *, reach: int = REACH) -> list[Schedule]:
    """Every schedule with one computed step, not the first, moved by up to ``reach``."""
    computed, places = set(schedule), [d for d in range(-reach, reach + 1) if d]
    moves = [(old, old + d) for old in schedule[1:] for d in places if 0 < old + d < num_steps]
    return [tuple(sorted((computed - {old}) | {new})) for old, new in moves if new not in computed]


def _value(fits: Sequence[StateFit], schedule: Schedule) -> float:
    return float(np.mean([typical(fit.errors(schedule)) for fit in fits]))
