"""Matched noise: how noise levels of runs with different amounts of redundancy compare.

A flow-matching state is (1 − σ)x + σε. Where n times as many numbers show the same content, x is known from n times as many noisy
ones, which does to the content what scaling x by √n would do; and scaling x by c is dividing the ratio σ/(1 − σ) by c. So a noise
level at length L corresponds to one at length L₀ whose ratio is √(L₀/L) times as large. With the ratio s·u/(1 − u) of a schedule of shift s,
a run at length L and shift s corresponds to one at L₀ and shift s·√(L₀/L): the law by which resolutions share timesteps in
SD3 (arXiv 2403.03206, §5.3.2).

Measured (docs/transfer.md): it places models of very different sizes beside each other, from toys of 64 tokens to those whose plans are published,
and that is what the universal plan is made of (``uncalibrated``). From one length of a model to another it says too much: there noise
levels as they are come nearer, which is how records are carried (``carry``).

Everything here is plain Python on floats, so that resolving a policy needs no arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from easyteacache.policy.carry import carried
from easyteacache.policy.curves import SigmaProfile

#: Tokens that coordinates and matched shifts refer to.
REFERENCE_LENGTH = 256
#: How the ratio σ/(1 − σ) grows with the length: as L^EXPONENT.
EXPONENT = 0.5
_ROUNDING = 1e-6


def matched_noise(sigma: float, sequence_length: float, *, exponent: float = EXPONENT) -> float:
    """The coordinate log(σ/(1 − σ)) − ½ log(L/L₀) of a noise level.

    Args:
        sigma: noise level in [0, 1].
        sequence_length: tokens L of the generated stream, above 0.
        exponent: ½ by the law; 0 compares noise levels as they are.

    Returns:
        Any number; +∞ at σ = 1 and −∞ at σ = 0.

    Raises:
        ValueError: a noise level or length out of range.
    """
    sigma = _level(sigma)
    _check_length(sequence_length)
    if sigma == 0.0:
        return -math.inf
    if sigma == 1.0:
        return math.inf
    return math.log(sigma) - math.log1p(-sigma) - exponent * math.log(sequence_length / REFERENCE_LENGTH)


def noise_level(coordinate: float, sequence_length: float, *, exponent: float = EXPONENT) -> float:
    """The noise level of ``sequence_length`` tokens at a coordinate; the inverse of ``matched_noise``, and raises as it does."""
    _check_length(sequence_length)
    logit = coordinate + exponent * math.log(sequence_length / REFERENCE_LENGTH)
    if math.isnan(logit):
        raise ValueError(f"coordinate is {coordinate!r}, expected a number")
    # Either form, so that neither exponential overflows.
    return 1.0 / (1.0 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1.0 + math.exp(logit))


def carried_level(sigma: float, sequence_length: float, *, to: float, exponent: float = EXPONENT) -> float:
    """The noise level of ``to`` tokens that corresponds to ``sigma`` at ``sequence_length`` tokens; raises as ``matched_noise``."""
    sigma = _level(sigma)
    _check_length(sequence_length)
    _check_length(to)
    factor: float = (to / sequence_length) ** exponent
    return sigma * factor / (1.0 - sigma + sigma * factor)


def matched_shift(
    shift: float, sequence_length: float, *, to: float = REFERENCE_LENGTH, exponent: float = EXPONENT
) -> float:
    """The shift at which ``to`` tokens run like ``sequence_length`` tokens at ``shift``: s·√(L₀/L).

    Raises:
        ValueError: a shift or length that is not a finite number above 0.
    """
    if not (shift > 0 and math.isfinite(shift)):
        raise ValueError(f"shift is {shift!r}, expected a finite number above 0")
    _check_length(sequence_length)
    _check_length(to)
    return float(shift * (to / sequence_length) ** exponent)


def carry_profile(
    profile: SigmaProfile, sequence_length: float, *, to: float, exponent: float = EXPONENT
) -> SigmaProfile:
    """The sigma profile of ``to`` tokens that the law makes of one of ``sequence_length`` tokens: the same over matched noise."""
    levels = tuple(carried_level(sigma, sequence_length, to=to, exponent=exponent) for sigma in profile.sigmas)
    return SigmaProfile(levels, profile.distances)


def carry_plan(
    computed: Sequence[int],
    levels: Sequence[float],
    onto: Sequence[float],
    *,
    sequence_length: float,
    to: float,
    exponent: float = EXPONENT,
) -> tuple[int, ...]:
    """The computed steps of a run at another length that lie where a plan's do, over matched noise.

    Args:
        computed: the plan's computed steps, ascending, the first 0.
        levels: (S + 1,) falling noise levels in [0, 1] of the plan's own run.
        onto: (T + 1,) of the run to carry it to.
        sequence_length: tokens of the plan's own run.
        to: tokens of the other one.
        exponent: ½ by the law.

    Raises:
        InvalidPlan: as ``carry.carried``, which places the steps.
        ValueError: a noise level or length out of range.
    """
    moved = [carried_level(sigma, sequence_length, to=to, exponent=exponent) for sigma in levels]
    return carried(computed, moved, onto)


def _check_length(sequence_length: float) -> None:
    if not (sequence_length > 0 and math.isfinite(sequence_length)):
        raise ValueError(f"sequence_length is {sequence_length!r}, expected a finite number above 0")


def _level(sigma: float) -> float:
    """``sigma`` itself; just above 1, where rounding may leave the first level of a run, 1."""
    if not 0.0 <= sigma <= 1.0 + _ROUNDING:
        raise ValueError(f"sigma is {sigma!r}, expected a noise level in [0, 1]")
    return min(sigma, 1.0)
