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
    """The computed steps of another run that lie where a plan's do, as many as keep its harm to what the plan does.

    ``MORE`` of the plan's share at first, and one more at a time while ``harm`` is above ``WORSE`` times the plan's own.

    Args:
        computed, levels, onto: as for ``carried``.
        profile: of the plan's own runs.

    Raises:
        InvalidPlan: as ``carried``.
    """
    own, other = _checked(computed, levels, onto)
    kept, allowed = [own[step] for step in computed], WORSE * harm(computed, levels, profile)
    first = min(len(other), max(round(MORE * len(computed) * len(other) / len(own)), min(len(computed), 2)))
    for count in range(first, len(other)):
        found = _nearest(_spread(kept, count), other)
        if harm(found, onto, profile) <= allowed:
            return found
    return tuple(range(len(other)))


def harm(computed: Sequence[int], levels: Sequence[float], profile: SigmaProfile) -> float:
    """How much a plan may be expected to change the sample, of no unit: √Σ (|Δσ_j| d_j)² over its reused steps j.

    d_j is the output distance that the profile predicts since the last computed step, Δσ_j what the step moves the sample by. Over
    ten settings of Euler's sampler its logarithm follows that of the measured error with a correlation of 0.76, better than with d
    squared or the plain sum (docs/runtime.md). Infinite where the profile does not reach.
    """
    kept, last, total = set(computed), 0, 0.0
    for step in range(len(levels) - 1):
        if step in kept:
            last = step
            continue
        total += ((levels[step] - levels[step + 1]) * profile.between(levels[last], levels[step])) ** 2
    return math.sqrt(total) if math.isfinite(total) else math.inf


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


def places(levels: Sequence[float]) -> list[float]:
    """Where each step of a run lies, (S,): u of its noise level, rising from noise to sample.

    Levels up to 1 are those of flow matching, u = log((1 − σ) / σ); others are a noise's size beside the sample's, u = −log σ.

    Raises:
        InvalidPlan: there is no step, or the levels do not fall.
    """
    if len(levels) < 2 or any(after >= before for before, after in itertools.pairwise(levels)):
        raise InvalidPlan(f"{len(levels)} noise levels; expected two or more, strictly falling")
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
