"""Find schedules whose weights are fitted, for every number of computed steps, under all plausible views of how errors travel at once.

How an error of the state travels on is the model's, and no trace holds it (``answers``). A search under one view ends in what that view
likes best, and in the nearest such minimum: on the reference model and on others that cost up to 6 dB against what the same traces could
find. So all views are worked out together, which costs little more than one; a search goes by their mean, from several starts; and of what
the searches found the schedule is taken whose worst regret is least, the most that it loses to another under any view. Where the model is at
hand, every view's own candidates are sampled besides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from easyteacache.policy.uncalibrated import even_plan, universal_plan
from easyteacache.records.trace import Array
from easyteacache.solver.replay.fitted_weights import StateFit
from easyteacache.solver.replay.gate_replay import Schedule
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.replay.segment_objective import typical
from easyteacache.solver.search.answers import Answers

# More runs than these hardly change what is found.
SEARCH_RUNS = 12
REACH = 2
MOST_SWEEPS = 60
LEAST_GAIN = 1e-4
# A start whose logarithm is worse by more is not searched from.
WITHIN_REACH = 0.1
# Moves that are tried again after one was made: those that were best before it. All are tried before a search ends.
TRIED_AGAIN = 14


class FittedSearch:
    """Schedules of one bucket with fitted weights.

    Args:
        runs: its calibration runs; ``fitted_weights.correctable`` holds for them.
        counts: computed steps of the schedules that will be asked for.
        answers: how outputs answer to disturbances; None: what is expected of any model.
        tick: called now and then, for a progress bar.
    """

    def __init__(
        self,
        runs: Runs,
        counts: Sequence[int],
        *,
        answers: Answers | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        chosen = runs.take(range(min(SEARCH_RUNS, len(runs))))
        self._answers = answers or Answers.expected(runs)
        self._judge = Judge(StateFit(chosen, view=self._answers.plausible()))
        self._levels = [float(level) for level in runs.sigmas]
        self._values, self._tick = self._answers.values, tick
        self._eliminated = eliminate(self._judge, min(counts), tick=tick)
        self._best: dict[int, Schedule] = {}
        for count in sorted(set(counts)):
            self._best[count] = self._found(count)
        for dearer, count in itertools.pairwise(sorted(self._best, reverse=True)):
            self._best[count] = self._reduced(self._best[dearer], count)

    def best(self, computed: int) -> Schedule:
        """The schedule of ``computed`` steps, one of ``counts``, that loses least under the view that it does worst under."""
        return self._best[computed]

    def candidates(self, computed: int) -> list[Schedule]:
        """Different schedules of ``computed`` steps that are worth sampling: the best one first, then what each view likes best."""
        views = np.eye(self._judge.views)
        starts = [self._eliminated[computed], self._best[computed]]
        own = [improve(self._judge, start, view, tick=self._tick) for view in views for start in starts]
        between = [improve(self._judge, found, tick=self._tick) for found in dict.fromkeys(own)]
        return list(dict.fromkeys([self._best[computed], *own, *between]))

    def _found(self, computed: int) -> Schedule:
        starts = [self._eliminated[computed], self._universal(computed)]
        cheaper = max((count for count in self._best if count < computed), default=None)
        if cheaper is not None:
            # So that a budget is never worse than a cheaper one: its plan and some more steps.
            starts.append(extend(self._judge, self._best[cheaper], computed))
        found = [improve(self._judge, start, thorough=False, tick=self._tick) for start in dict.fromkeys(starts)]
        best = min(found, key=lambda schedule: float(self._judge.of(schedule).mean()))
        found.append(improve(self._judge, best, tick=self._tick))
        self._judge.forget()
        return least_regret(self._judge, list(dict.fromkeys([*found[::-1], *starts])))

    def _reduced(self, dearer: Schedule, computed: int) -> Schedule:
        """The best one, or what is left of a dearer one: from there a search may reach what it does not from a cheaper one."""
        best, start = self._best[computed], reduce(self._judge, dearer, computed)
        found = [best, start]
        if float(self._judge.of(start).mean()) < float(self._judge.of(best).mean()) + WITHIN_REACH:
            found.append(improve(self._judge, start, thorough=False, tick=self._tick))
        self._judge.forget()
        return least_regret(self._judge, list(dict.fromkeys(found)))

    def _universal(self, computed: int) -> Schedule:
        try:
            return universal_plan(self._levels, max(1, round(self._values)), computed, values=1.0)
        except ValueError:
            # Levels that are not those of flow matching.
            return even_plan(len(self._levels) - 1, computed)


class Judge:
    """What schedules are worth on some runs, under V views.

    Args:
        fit: with V views at once.
    """

    def __init__(self, fit: StateFit) -> None:
        self._fit, self.num_steps = fit, fit.num_steps
        self._known: dict[Schedule, Array] = {}
        self.views = len(self.of((0,)))

    def of(self, schedule: Schedule) -> Array:
        """(V,) the typical error of the final sample under every view, as a logarithm."""
        found = self._known.get(schedule)
        if found is None:
            found = self._known[schedule] = np.atleast_1d(typical(self._fit.errors(schedule)))
        return found

    def forget(self) -> None:
        """Drop what was remembered of beginnings; a long search meets millions."""
        self._fit.forget()


def least_regret(judge: Judge, schedules: Sequence[Schedule]) -> Schedule:
    """Of some schedules the one that loses least to the best of them, under the view that it loses most under; the first of equals."""
    values = np.stack([judge.of(schedule) for schedule in schedules])
    return schedules[int(np.argmin((values - values.min(axis=0)).max(axis=1)))]


def eliminate(judge: Judge, fewest: int, *, tick: Callable[[], None] = lambda: None) -> dict[int, Schedule]:
    """From all steps computed down to ``fewest``, giving up at each count the step that is missed least: count → schedule."""
    schedule = tuple(range(judge.num_steps))
    found = {len(schedule): schedule}
    while len(schedule) > max(1, fewest):
        tick()
        schedule = reduce(judge, schedule, len(schedule) - 1)
        found[len(schedule)] = schedule
    judge.forget()
    return found


def extend(judge: Judge, schedule: Schedule, computed: int) -> Schedule:
    """``schedule`` and more steps, up to ``computed``: each time the one that helps most."""
    while len(schedule) < computed:
        more = [tuple(sorted((*schedule, step))) for step in range(1, judge.num_steps) if step not in schedule]
        schedule = min(more, key=lambda move: float(judge.of(move).mean()))
    return schedule


def reduce(judge: Judge, schedule: Schedule, computed: int) -> Schedule:
    """``schedule`` and fewer steps, down to ``computed``: each time without the one that is missed least."""
    while len(schedule) > computed:
        fewer = [schedule[:i] + schedule[i + 1 :] for i in range(1, len(schedule))]
        schedule = min(fewer, key=lambda move: float(judge.of(move).mean()))
    return schedule


def improve(
    judge: Judge,
    schedule: Schedule,
    weights: Array | None = None,
    *,
    thorough: bool = True,
    tick: Callable[[], None] = lambda: None,
) -> Schedule:
    """Move one computed step by up to ``REACH`` at a time, the best move first, as long as the typical error falls.

    Args:
        judge: of schedules.
        schedule: where to start.
        weights: (V,) of the views; None: their mean.
        thorough: ends only when no move gains; otherwise when none of the promising ones does.
        tick: called now and then.
    """
    shares = np.full(judge.views, 1.0 / judge.views) if weights is None else weights
    best, promise = float(shares @ judge.of(schedule)), dict[tuple[int, int], float]()
    everything = True
    for _ in range(MOST_SWEEPS):
        tick()
        moves = _moves(schedule, judge.num_steps)
        if not everything:
            moves = sorted(moves, key=lambda move: promise.get(move, -np.inf))[:TRIED_AGAIN]
        found = [(float(shares @ judge.of(_moved(schedule, move))), move) for move in moves]
        promise.update({move: value - best for value, move in found})
        least, move = min(found, default=(np.inf, (0, 0)))
        if least < best - LEAST_GAIN:
            schedule, best, everything = _moved(schedule, move), least, False
        elif everything or not thorough:
            break
        else:
            everything = True
    return schedule


def neighbours(schedule: Schedule, num_steps: int, *, reach: int = REACH) -> list[Schedule]:
    """Every schedule with one computed step, not the first, moved by up to ``reach``."""
    return [_moved(schedule, move) for move in _moves(schedule, num_steps, reach)]


def _moves(schedule: Schedule, num_steps: int, reach: int = REACH) -> list[tuple[int, int]]:
    computed, places = set(schedule), [d for d in range(-reach, reach + 1) if d]
    moves = [(old, old + d) for old in schedule[1:] for d in places if 0 < old + d < num_steps]
    return [(old, new) for old, new in moves if new not in computed]


def _moved(schedule: Schedule, move: tuple[int, int]) -> Schedule:
    old, new = move
    return tuple(sorted((set(schedule) - {old}) | {new}))
