"""Find the computed steps: constructions, elimination and local search on the predicted final error."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

import numpy as np

from easyteacache.records.trace import Array
from easyteacache.solver.replay.gate_replay import Schedule
from easyteacache.solver.replay.segment_objective import Objective, typical

#: A step that is no longer computed, and the one that is instead; None: no other.
Move = tuple[int, int | None]

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
    schedule = tuple(range(objective.runs.num_steps))
    found = {len(schedule): schedule}
    while len(schedule) > fewest:
        moves = _without_each(schedule)
        schedule = moved(schedule, *moves[int(np.argmin(values(objective, schedule, moves)))])
        found[len(schedule)] = schedule
    return found


def improve(objective: Objective, schedule: Schedule, *, tick: Callable[[], None] = lambda: None) -> Schedule:
    """Local search: move one computed step at a time, the best move first, as long as the objective falls.

    A move takes a computed step up to ``REACH`` places along, or one of the ``SPARE`` that are missed least to anywhere.
    """
    current, best = tuple(schedule), float(typical(objective.errors(schedule)))
    for _ in range(MOST_SWEEPS):
        tick()
        moves = _neighbours(objective, current)
        if not moves:
            break
        promising = np.argsort(values(objective, current, moves), kind="stable")[:TRIED]
        tried = [moved(current, *moves[i]) for i in promising]
        found = typical(objective.errors_together(tried))
        at = int(np.argmin(found))
        if found[at] >= best - LEAST_GAIN:
            break
        current, best = tried[at], float(found[at])
    return current


def _neighbours(objective: Objective, schedule: Schedule) -> list[Move]:
    """Moves of one computed step each; step 0 stays."""
    if len(schedule) < 2:
        return []
    computed = set(schedule)
    free = [step for step in range(1, objective.runs.num_steps) if step not in computed]
    order = np.argsort(values(objective, schedule, _without_each(schedule)), kind="stable")
    spare = {schedule[1 + int(i)] for i in order[:SPARE]}
    return [(old, new) for old in schedule[1:] for new in free if old in spare or abs(old - new) <= REACH]


def _without_each(schedule: Schedule) -> list[Move]:
    return [(step, None) for step in schedule[1:]]


def moved(schedule: Schedule, old: int, new: int | None) -> Schedule:
    """``schedule`` with ``new`` computed instead of ``old``, or with one step fewer."""
    at = bisect_left(schedule, old)
    fewer = schedule[:at] + schedule[at + 1 :]
    if new is None:
        return fewer
    to = bisect_left(fewer, new)
    return (*fewer[:to], new, *fewer[to:])


def values(objective: Objective, base: Schedule, moves: Sequence[Move]) -> Array:
    """The search objective of ``base`` after each of ``moves``: only the segments that a move changes are added up again.

    It is the first case of ``objective`` alone, which adds up over segments; ``improve`` takes both where it comes to a choice.
    """
    direction, squares = np.zeros(objective.runs.num_steps), np.zeros(len(objective.runs))
    for key in _keyed(objective, base, 0, objective.runs.num_steps):
        direction += objective.segment(*key).direction
        squares += objective.segment(*key).squares
    directions, all_squares = np.empty((len(moves), len(direction))), np.empty((len(moves), len(squares)))
    for position, (old, new) in enumerate(moves):
        low, high = (old, old) if new is None else (min(old, new), max(old, new))
        before, after = (
            _keyed(objective, base, low, high),
            _keyed(objective, moved(base, old, new), low, high),
        )
        d, s = direction.copy(), squares.copy()
        for key in after - before:
            segment = objective.segment(*key)
            d += segment.direction
            s += segment.squares
        for key in before - after:
            segment = objective.segment(*key)
            d -= segment.direction
            s -= segment.squares
        directions[position], all_squares[position] = d, s
    return typical(objective.combine(directions, np.maximum(all_squares, 0.0)))


def _keyed(objective: Objective, steps: Schedule, low: int, high: int) -> set[tuple[Schedule, int]]:
    """(anchors, end) of every stretch of reused steps that what is computed from ``low`` to ``high`` has a part in."""
    history, count = objective.rows.history, len(steps)
    first, last = bisect_left(steps, low) - 1, bisect_right(steps, high) + history - 1
    found = set()
    for i in range(max(0, first), min(count, last)):
        end = steps[i + 1] if i + 1 < count else objective.runs.num_steps
        if end - steps[i] > 1:
            found.add((steps[max(0, i + 1 - history) : i + 1], end))
    return found
