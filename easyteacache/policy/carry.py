"""Carry the computed steps of a plan over to a run with other steps or other noise levels.

What a step does depends on its noise level, not on its number. So the computed steps are placed by level: on the axis
u = log(σ / (1 − σ)), along which a time shift moves every level by the same distance. The share of computed steps is kept, so that the
speed-up is; a plan that is carried to its own levels is itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from easyteacache.errors import InvalidPlan
from easyteacache.policy.curves import SigmaProfile

# Levels of 0 and 1 lie at infinity: nearer than this to either end says nothing.
_EDGE = 1e-3
#: A plan that nobody judged there computes this much more than its share.
MORE = 1.1
#: It may do this much more harm, by what the profile predicts.
WORSE = 1.1


def carried(computed: Sequence[int], levels: Sequence[float], onto: Sequence[float]) -> tuple[int, ...]:
    """The computed steps of another run that lie where a plan's do.

    Args:
        computed: the plan's computed steps, ascending, the first of them 0.
        levels: (S + 1,) noise levels of the plan's own run, the sample's last; falling.
        onto: (T + 1,) noise levels of the run to carry it over to.

    Returns:
        ``round(len(computed) · T / S)`` ascending steps below T, at least 2 where T allows it, the first of them 0; of a
        plan that computes step 0 alone, that one.

    Raises:
        InvalidPlan: the computed steps are no plan of S steps, or a list of levels does not fall.
    """
    own, other = _checked(computed, levels, onto)
    fewest = min(len(computed), 2)
    count = min(len(other), fewest if fewest == 1 else max(round(len(computed) * len(other) / len(own)), fewest))
    return _nearest(_spread([own[step] for step in computed], count), other)


def carried_within(
    computed: Sequence[int], levels: Sequence[float], onto: Sequence[float], profile: SigmaProfile
) -> tuple[int, ...]:
    """The computed steps of another run that lie where a plan's do, and as many more as keep its harm to what the plan does.

    First ``MORE`` of the plan's share; then never more steps reused in a row than the plan reuses, in proportion to the step
    counts; then, while ``harm`` is above ``WORSE`` times the plan's own (in a run of fewer steps in proportion less), the row that does
    most of it is cut where that helps most.

    Args:
        computed, levels, onto: as for ``carried``.
        profile: of the plan's own runs.

    Raises:
        InvalidPlan: as ``carried``.
    """
    own, other = _checked(computed, levels, onto)
    count = min(len(other), max(round(MORE * len(computed) * len(other) / len(own)), min(len(computed), 2)))
    longest = math.ceil(_longest_row(computed, len(own)) * max(1.0, len(other) / len(own)))
    found = _with_rows_of(_nearest(_spread([own[step] for step in computed], count), other), len(other), longest)
    # Over longer steps the same distance is harder to predict: in a run of 12 steps 8 computed ones were too few.
    allowed = (WORSE * min(1.0, len(other) / len(own)) * harm(computed, levels, profile)) ** 2
    parts = {step: _of_row(step, end, onto, profile) for step, end in itertools.pairwise((*found, len(other)))}
    while sum(part for part, _ in parts.values()) > allowed:
        start = max(parts, key=lambda step: parts[step][0])
        end = parts[start][1]
        cuts = (
            (_of_row(start, cut, onto, profile), _of_row(cut, end, onto, profile), cut) for cut in range(start + 1, end)
        )
        before, after, cut = min(cuts, key=lambda each: each[0][0] + each[1][0])
        parts |= {start: before, cut: after}
    return tuple(sorted(parts))


def harm(computed: Sequence[int], levels: Sequence[float], profile: SigmaProfile) -> float:
    """How much a plan may be expected to change the sample, of no unit: √Σ (Σ |Δσ_j| d_j)², over its rows of reused steps.

    d_j is the output distance that the profile predicts since the last computed step, Δσ_j what the step moves the sample by. Within
    one row of reused steps the errors point the same way and add up; those of different rows do not. Infinite where the
    profile does not reach.
    """
    rows = itertools.pairwise((*computed, len(levels) - 1))
    return math.sqrt(sum(_of_row(step, end, levels, profile)[0] for step, end in rows))


def _of_row(start: int, end: int, levels: Sequence[float], profile: SigmaProfile) -> tuple[float, int]:
    """(Σ |Δσ_j| d_j)² over the steps reused between a computed one and the next, which is ``end``; and that."""
    row = sum(
        (levels[step] - levels[step + 1]) * profile.between(levels[start], levels[step])
        for step in range(start + 1, end)
    )
    return (row**2 if math.isfinite(row) else math.inf), end


def _longest_row(computed: Sequence[int], steps: int) -> int:
    return max(after - before - 1 for before, after in itertools.pairwise((*computed, steps)))


def _with_rows_of(computed: Sequence[int], steps: int, longest: int) -> tuple[int, ...]:
    """The same steps, and further ones wherever more than ``longest`` in a row would be reused."""
    found: list[int] = []
    for before, after in itertools.pairwise((*computed, steps)):
        found.extend(range(before, after, longest + 1))
    return tuple(found)


def _checked(
    computed: Sequence[int], levels: Sequence[float], onto: Sequence[float]
) -> tuple[list[float], list[float]]:
    """The places of both runs' steps; raises as ``carried`` does."""
    own, other = places(levels), places(onto)
    steps = len(own)
    if (
        not computed
        or computed[0] != 0
        or computed[-1] >= steps
        or any(b <= a for a, b in itertools.pairwise(computed))
    ):
        raise InvalidPlan(
            f"computed steps {list(computed)} of {steps}; expected ascending indices below {steps} that begin with 0"
        )
    return own, other


def falling(levels: Sequence[float]) -> bool:
    """Does each call of a run have less noise than the one before? The sample may be left at the last call's level, as DEIS leaves it."""
    *calls, last = levels
    return all(after < before for before, after in itertools.pairwise(calls)) and last <= calls[-1]


def places(levels: Sequence[float]) -> list[float]:
    """Where each step of a run lies, (S,): u of its noise level, rising from noise to sample.

    Levels up to 1 are those of flow matching, u = log((1 − σ) / σ); others are a noise's size beside the sample's, u = −log σ.

    Raises:
        InvalidPlan: there is no step, or the levels do not fall from call to call.
    """
    if len(levels) < 2 or not falling(levels):
        raise InvalidPlan(f"{len(levels)} noise levels; expected two or more, strictly falling but for the last")
    if levels[0] > 1.0 + 1e-6:
        return [-math.log(max(level, _EDGE)) for level in levels[:-1]]
    clipped = [min(max(level, _EDGE), 1.0 - _EDGE) for level in levels[:-1]]
    return [math.log((1.0 - level) / level) for level in clipped]


def shifted_levels(num_steps: int, shift: float = 1.0) -> tuple[float, ...]:
    """The (S + 1,) noise levels of a flow-matching run with a time shift: s·t / (1 + (s − 1)·t) at evenly spaced t from 1 to 0."""
    times = [1.0 - step / num_steps for step in range(num_steps + 1)]
    return tuple(shift * time / (1.0 + (shift - 1.0) * time) for time in times)


def _spread(at: Sequence[float], count: int) -> list[float]:
    """``count`` places spread as these are; these themselves where there are as many."""
    if count == len(at) or len(at) == 1:
        return list(at[:count])
    if count == 1:
        return [at[0]]
    found = []
    for position in range(count):
        exact = position * (len(at) - 1) / (count - 1)
        low = min(math.floor(exact), len(at) - 2)
        found.append(at[low] + (exact - low) * (at[low + 1] - at[low]))
    return found


def _nearest(wanted: Sequence[float], there: Sequence[float]) -> tuple[int, ...]:
    """Ascending steps, the first of them 0, whose places differ least from the wanted ones, all together."""
    steps = len(there)
    # cost[step]: least sum of distances of the places so far, the last of them at `step`.
    cost = [math.inf] * steps
    cost[0] = 0.0
    came: list[list[int]] = []
    for position in range(1, len(wanted)):
        fresh, before = [math.inf] * steps, [0] * steps
        best, best_at = math.inf, 0
        for step in range(1, steps):
            if cost[step - 1] < best:
                best, best_at = cost[step - 1], step - 1
            fresh[step], before[step] = best + abs(there[step] - wanted[position]), best_at
        cost = fresh
        came.append(before)
    last = min(range(steps), key=lambda step: (cost[step], step))
    found = [last]
    for before in reversed(came):
        found.append(before[found[-1]])
    return tuple(reversed(found))
