"""Matched noise: how noise levels of different sequence lengths compare, and how plans and profiles are carried between them.

A flow-matching state is (1 − σ)x + σε. Where more tokens show the same content, x is known from proportionally more noisy
values, which does to every content what scaling x by √L would do; and scaling x by c is dividing the ratio σ/(1 − σ) by c. So a noise
level at length L corresponds to one at length L₀ whose ratio is √(L₀/L) times as large. With the ratio s·u/(1 − u) of a schedule of shift s,
a run at length L and shift s corresponds to one at L₀ and shift s·√(L₀/L): the law by which resolutions share timesteps in
SD3 (arXiv 2403.03206, §5.3.2). docs/transfer.md measures where it holds, and where a smaller exponent is nearer.

Everything here is plain Python on floats, so that resolving a policy needs no arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from easyteacache.policy.curves import SigmaProfile

#: Tokens that matched shifts and coordinates refer to.
REFERENCE_LENGTH = 256
#: How the ratio σ/(1 − σ) grows with the length: it is divided by (L / L₀)^EXPONENT.
EXPONENT = 0.5


def matched_noise(sigma: float, sequence_length: float, *, exponent: float = EXPONENT) -> float:
    """The coordinate log(σ/(1 − σ)) − ½ log(L/L₀) of a noise level.

    Args:
        sigma: noise level in [0, 1].
        sequence_length: tokens L of the generated stream, above 0.
        exponent: ½ by the law.

    Returns:
        Any number; +∞ at σ = 1 and −∞ at σ = 0.

    Raises:
        ValueError: a noise level or length out of range.
    """
    _check_level(sigma)
    if sigma == 0.0:
        return -math.inf
    if sigma == 1.0:
        return math.inf
    return math.log(sigma / (1.0 - sigma)) - exponent * math.log(_checked(sequence_length) / REFERENCE_LENGTH)


def noise_level(coordinate: float, sequence_length: float, *, exponent: float = EXPONENT) -> float:
    """The noise level of ``sequence_length`` tokens at a coordinate; the inverse of ``matched_noise``."""
    if math.isinf(coordinate):
        return 1.0 if coordinate > 0 else 0.0
    logit = coordinate + exponent * math.log(_checked(sequence_length) / REFERENCE_LENGTH)
    # Either form, so that neither exponential overflows.
    return 1.0 / (1.0 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1.0 + math.exp(logit))


def carried_level(sigma: float, sequence_length: float, *, to: float, exponent: float = EXPONENT) -> float:
    """The noise level of ``to`` tokens that corresponds to ``sigma`` at ``sequence_length`` tokens."""
    _check_level(sigma)
    factor = (_checked(to) / _checked(sequence_length)) ** exponent
    return sigma * factor / (1.0 - sigma + sigma * factor)


def matched_shift(
    shift: float, sequence_length: float, *, to: float = REFERENCE_LENGTH, exponent: float = EXPONENT
) -> float:
    """The shift at which ``to`` tokens run like ``sequence_length`` tokens at ``shift``: s·√(L₀/L).

    Raises:
        ValueError: a shift or length that is not above 0.
    """
    if not (shift > 0 and math.isfinite(shift)):
        raise ValueError(f"shift is {shift!r}, expected a finite number above 0")
    return shift * (_checked(to) / _checked(sequence_length)) ** exponent


def flow_levels(shift: float, num_steps: int) -> tuple[float, ...]:
    """The noise levels s·u/(1 + (s − 1)u), u = 1 − k/S, of a flow-matching schedule: S + 1 numbers from 1 to 0.

    Raises:
        ValueError: a shift that is not above 0, or no steps.
    """
    if not (shift > 0 and math.isfinite(shift)):
        raise ValueError(f"shift is {shift!r}, expected a finite number above 0")
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps!r}, expected at least 1")
    ends = [1.0 - k / num_steps for k in range(num_steps + 1)]
    return tuple(shift * u / (1.0 + (shift - 1.0) * u) for u in ends)


def carry_profile(
    profile: SigmaProfile, sequence_length: float, *, to: float, exponent: float = EXPONENT
) -> SigmaProfile:
    """The sigma profile of ``to`` tokens that the law makes of one of ``sequence_length`` tokens: the same over matched noise."""
    levels = tuple(carried_level(sigma, sequence_length, to=to, exponent=exponent) for sigma in profile.sigmas)
    return SigmaProfile(levels, profile.distances)


def carry_plan(
    computed: Sequence[int],
    *,
    levels: Sequence[float],
    sequence_length: float,
    to_levels: Sequence[float],
    to_length: float,
    count: int | None = None,
    exponent: float = EXPONENT,
) -> tuple[int, ...]:
    """Carry a plan's computed steps to another length, shift and step count.

    The share of computed steps passed before a noise level is kept as a function of matched noise; the steps of the other
    setting are its quantiles, rounded to different whole steps.

    Args:
        computed: ascending step indices, the first 0.
        levels: (S + 1,) falling noise levels that the plan was made over.
        sequence_length: its tokens.
        to_levels: (T + 1,) falling noise levels to carry it to.
        to_length: tokens there.
        count: computed steps there, 1 … T; None keeps the speed-up.
        exponent: ½ by the law, 0 keeps noise levels as they are.

    Returns:
        Ascending step indices, the first 0.

    Raises:
        ValueError: a plan that does not begin with step 0 or leaves its levels, levels that do not fall, or a count out of range.
    """
    steps, others = len(levels) - 1, len(to_levels) - 1
    _check_falling(levels)
    _check_falling(to_levels)
    if not computed or computed[0] != 0 or computed[-1] >= steps or any(b <= a for a, b in pairwise(computed)):
        raise ValueError(f"expected ascending computed steps from 0 to below {steps}, found {list(computed)}")
    wanted = max(1, round(len(computed) * others / steps)) if count is None else count
    if not 1 <= wanted <= others:
        raise ValueError(f"expected 1 to {others} computed steps, found {wanted}")
    positions = [float(step) for step in (*computed, steps)]
    found: list[float] = []
    for k in range(wanted):
        place = _between(k * len(computed) / wanted, positions)
        sigma = carried_level(_between(place, levels), sequence_length, to=to_length, exponent=exponent)
        found.append(_where(sigma, to_levels))
    return distinct_steps(found, others)


def distinct_steps(places: Sequence[float], num_steps: int) -> tuple[int, ...]:
    """Round ascending ``places`` to different steps of 0 … ``num_steps`` − 1, the first 0, each as near as its neighbours leave it."""
    steps: list[int] = []
    for place in places:
        steps.append(0 if not steps else max(round(place), steps[-1] + 1))
    for back in range(1, len(steps)):
        steps[-back] = min(steps[-back], num_steps - back)
    return tuple(steps)


def _between(place: float, values: Sequence[float]) -> float:
    """Linear interpolation of ``values`` at a fractional index."""
    below = min(int(place), len(values) - 2)
    return values[below] + (place - below) * (values[below + 1] - values[below])


def _where(sigma: float, levels: Sequence[float]) -> float:
    """The fractional index at which falling ``levels`` reach ``sigma``."""
    if sigma >= levels[0]:
        return 0.0
    for step in range(len(levels) - 1):
        if levels[step + 1] <= sigma:
            return step + (levels[step] - sigma) / (levels[step] - levels[step + 1])
    return float(len(levels) - 1)


def _checked(sequence_length: float) -> float:
    if not (sequence_length > 0 and math.isfinite(sequence_length)):
        raise ValueError(f"sequence_length is {sequence_length!r}, expected a finite number above 0")
    return sequence_length


def _check_level(sigma: float) -> None:
    if not 0.0 <= sigma <= 1.0:
        raise ValueError(f"sigma is {sigma!r}, expected a noise level in [0, 1]")


def _check_falling(levels: Sequence[float]) -> None:
    if len(levels) < 2 or not all(a > b for a, b in pairwise(levels)):
        raise ValueError("expected at least two noise levels, strictly falling")
    _check_level(levels[0])
    _check_level(levels[-1])
