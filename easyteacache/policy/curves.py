"""The rescale polynomial p: signal distance x → predicted output distance y.

TeaCache (arXiv 2411.19108, eq. 6) accumulates p(x) over steps. Published coefficient lists carry no domain and are
evaluated exactly as their authors did; a list that was fitted here carries the domain the fit saw, is clamped to it and
floored at 0, because outside it a polynomial says nothing (Wan2.1 T2V-14B: p(0) = −13.0 without retention steps).
Pure Python on floats: a prebuilt ``numpy.poly1d`` costs forty times as much per call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

RescalePost = Literal["none", "abs", "clip"]


class Curve(Protocol):
    """Anything that predicts the output distance y from the signal distance x."""

    def __call__(self, x: float) -> float:
        """Predicted output distance (relative L1, dimensionless) at signal distance ``x`` ≥ 0."""
        ...


@dataclass(frozen=True, slots=True)
class Polynomial:
    """One bucket's rescale polynomial.

    Attributes:
        coefficients: highest degree first, as ``numpy.polyval`` takes them; any order from 0 up.
        domain: ``(x_min, x_max)`` of the fit; x is clamped into it. None: evaluated wherever asked.
        post: what is done to p(x): nothing, ``abs`` (as vLLM-Omni and ComfyUI's FLUX do), or ``clip`` at 0.
    """

    coefficients: tuple[float, ...]
    domain: tuple[float, float] | None = None
    post: RescalePost = "none"

    def __call__(self, x: float) -> float:
        """p(x) by Horner's rule, after clamping to the domain and before ``post``."""
        if self.domain is not None:
            x = min(max(x, self.domain[0]), self.domain[1])
        y = 0.0
        for coefficient in self.coefficients:
            y = y * x + coefficient
        if self.post == "abs":
            return abs(y)
        if self.post == "clip" or self.domain is not None:
            return max(y, 0.0)
        return y


@dataclass(frozen=True, slots=True)
class Blend:
    """(1 − weight) · lower(x) + weight · upper(x): curves are blended, never raw coefficients.

    Each curve keeps its own domain, so that blending two buckets cannot push either out of what it saw.
    """

    lower: Curve
    upper: Curve
    weight: float

    def __call__(self, x: float) -> float:
        """The blended prediction at ``x``."""
        return (1.0 - self.weight) * self.lower(x) + self.weight * self.upper(x)


def log_weight(length: float, *, lower: float, upper: float) -> float:
    """Position of ``length`` between two bucket lengths in [0, 1], linear in the logarithm."""
    return (math.log(length) - math.log(lower)) / (math.log(upper) - math.log(lower))


@dataclass(frozen=True, slots=True)
class SigmaProfile:
    """D(σ): accumulated output distance as a monotone function of the noise level.

    Attributes:
        sigmas: strictly descending noise levels, 1 = pure noise.
        distances: accumulated output distance at each, non-decreasing, starting at 0.
    """

    sigmas: tuple[float, ...]
    distances: tuple[float, ...]

    def __call__(self, sigma: float) -> float:
        """D(σ) by linear interpolation, constant beyond both ends."""
        return _interpolate(sigma, self.sigmas, self.distances)

    def between(self, before: float, after: float) -> float:
        """Predicted output distance between the noise levels of two consecutive steps.

        Returns:
            |D(after) − D(before)|, 0 or more; NaN (not known) when one of them lies outside the levels that were seen.
        """
        if not (self._covers(before) and self._covers(after)):
            return math.nan
        return abs(self(after) - self(before))

    def _covers(self, sigma: float) -> bool:
        # Records round their noise levels to nine digits, samplers hold them in single precision.
        slack = 1e-6 * self.sigmas[0]
        return self.sigmas[-1] - slack <= sigma <= self.sigmas[0] + slack


def blend_profiles(lower: SigmaProfile, upper: SigmaProfile, weight: float) -> SigmaProfile | None:
    """(1 − weight) · D_lower(σ) + weight · D_upper(σ) over the noise levels that both saw; None when they share none."""
    high, low = min(lower.sigmas[0], upper.sigmas[0]), max(lower.sigmas[-1], upper.sigmas[-1])
    if low >= high:
        return None
    inside = {sigma for sigma in (*lower.sigmas, *upper.sigmas) if low < sigma < high}
    sigmas = tuple(sorted({high, low, *inside}, reverse=True))
    distances = [(1.0 - weight) * lower(sigma) + weight * upper(sigma) for sigma in sigmas]
    return SigmaProfile(sigmas, tuple(distance - distances[0] for distance in distances))


def _interpolate(at: float, descending: Sequence[float], values: Sequence[float]) -> float:
    """Linear interpolation of never-falling ``values`` over ``descending`` positions."""
    if at >= descending[0]:
        return values[0]
    if at <= descending[-1]:
        return values[-1]
    low, high = 0, len(descending) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if descending[middle] >= at:
            low = middle
        else:
            high = middle
    share = (descending[low] - at) / (descending[low] - descending[high])
    # Rounding may carry a share just below 1 past the value at the knot, which would break monotony by one unit.
    return min(values[low] + share * (values[high] - values[low]), values[high])
