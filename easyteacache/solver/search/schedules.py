"""Find the computed steps: constructions, elimination and local search on the predicted final error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from easyteacache.records.trace import Array
from easyteacache.solver.replay.gate_replay import Schedule
from easyteacache.solver.replay.segment_objective import Objective, typical

MOST_SWEEPS = 60
REACH = 2
SPARE = 4
# Moves of which both cases of the objective are worked out; the rest is sorted out by the one that adds up over segments.
TRIED = 12
# In the search objective, a mean logarithm: a gain of a millionth is rounding, not progress.
LEAST_GAIN = 1e-6


def uniform(num_steps: int, computed: int) -> Schedule:
    """``computed`` steps as evenly spaced as integers allow, beginning with 0."""
    return tuple(sorted({round(k * num_steps / computed) for k in range(computed)}))


def equalised(changes: Array, computed: int) -> Schedule:
    """Greedy on a table: a step is computed whenever the accumulated change passes the next equal share of its total.

    Args:
        changes: (S − 1,) expected change from each step to the next.
        computed: how many steps to compute, 1 … S.
    """
    total = np.concatenate(([0.0], np.cumsum(changes)))
    found = {0}
    for share in np.arange(1, computed) * total[-1] / computed:
        found.add(int(np.searchsorted(total, share)))
    # Shares that fall on one step leave some over: they go where most change is still skipped.
    while len(found) < computed:
        chosen = sorted(found)
        gaps = [
            (total[b - 1] - total[a], b - 1)
            for a, b in zip(chosen, [*chosen[1:], len(total)], strict=True)
            if b - a > 1
        ]
        found.add(max(gaps)[1])
    return tuple(sorted(found))


def eliminate(objective: Objective, fewest: int) -> dict[int, Schedule]:
    """From all steps computed down to ``fewest``, giving up at each count the step that is missed least.

    Returns:
        computed steps → schedule, for every count on the way.
    """
    schedule = list(range(objective.runs.num_steps))
    found = {len(schedule): tuple(schedule)}
    while len(schedule) > fewest:
        moves = _without_each(schedule)
        schedule = moves[int(np.argmin(values(objective, schedule, moves)))]
        found[len(schedule)] = tuple(schedule)
    return found


def improve(objective: Objective, schedule: Schedule, *, tick: Callable[[], None] = lambda: None) -> Schedule:
    """Local search: move one computed step at a time, the best move first, as long as the objective falls.

    A move takes a computed step up to ``REACH`` places along, or one of the ``SPARE`` that are missed least to anywhere.
    """
    current, best = list(schedule), float(typical(objective.errors(schedule)))
    for _ in range(MOST_SWEEPS):
        tick()
        moves = _neighbours(objective, current)
        if not moves:
            break
        promising = np.argsort(values(objective, current, moves), kind="stable")[:TRIED]
        found = typical(objective.errors_together([moves[i] for i in promising]))
        at = int(np.argmin(found))
        if found[at] >= best - LEAST_GAIN:
            break
        current, best = moves[promising[at]], float(found[at])
    return tuple(current)


def _neighbours(objective: Objective, schedule: list[int]) -> list[list[int]]:
    """Schedules that differ in the place of one computed step; step 0 stays."""
    if len(schedule) < 2:
        return []
    computed = set(schedule)
    free = [step for step in range(1, objective.runs.num_steps) if step not in computed]
    order = np.argsort(values(objective, schedule, _without_each(schedule)), kind="stable")
    spare = {schedule[1 + int(i)] for i in order[:SPARE]}
    moves = [(old, new) for old in schedule[1:] for new in free if old in spare or abs(old - new) <= REACH]
    return [sorted((computed - {old}) | {new}) for old, new in moves]


def _without_each(schedule: list[int]) -> list[list[int]]:
    return [schedule[:i] + schedule[i + 1 :] for i in range(1, len(schedule))]


def values(objective: Objective, base: Sequence[int], moves: Sequence[Sequence[int]]) -> Array:
    """The search objective of ``moves``, each close to ``base``: only the segments that differ are added up again.

    It is the first case of ``objective`` alone, which adds up over segments; ``improve`` takes both where it comes to a choice.
    """
    reference = _keyed(objective, base)
    direction, squares = np.zeros(objective.runs.num_steps), np.zeros(len(objective.runs))
    for key in reference:
        direction += objective.segment(*key).direction
        squares += objective.segment(*key).squares
    directions, all_squares = np.empty((len(moves), len(direction))), np.empty((len(moves), len(squares)))
    for position, move in enumerate(moves):
        keys = _keyed(objective, move)
        d, s = direction.copy(), squares.copy()
        for key in keys - reference:
            segment = objective.segment(*key)
            d += segment.direction
            s += segment.squares
        for key in reference - keys:
            segment = objective.segment(*key)
            d -= segment.direction
            s -= segment.squares
        directions[position], all_squares[position] = d, s
    return typical(objective.combine(directions, np.maximum(all_squares, 0.0)))


def _keyed(objective: Objective, schedule: Sequence[int]) -> set[tuple[tuple[int, ...], int]]:
    """(anchors, end) of every stretch of reused steps."""
    steps, history = tuple(schedule), objective.rows.history
    ends = (*steps[1:], objective.runs.num_steps)
    return {
        (steps[max(0, i + 1 - history) : i + 1], end)
        for i, (start, end) in enumerate(zip(steps, ends, strict=True))
        if end - start > 1
    }
