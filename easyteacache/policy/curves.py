"""The rescale polynomial p: signal distance x → predicted output distance y.

TeaCache (arXiv 2411.19108, eq. 6) accumulates p(x) over steps. A list that was fitted here carries the domain the fit saw, is
clamped to it and floored at 0, because outside it a polynomial says nothing (Wan2.1 T2V-14B: p(0) = −13.0 without retention
steps). Published lists carry no domain: they are evaluated as their authors did where p says anything at all (``trusted``),
which is neither below 0 nor beyond its turning point.
Pure Python on floats: a prebuilt ``numpy.poly1d`` costs forty times as much per call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

RescalePost = Literal["none", "abs", "clip"]

#: Signal distances (relative L1) that published models show within a run, where a record states no domain of its own.
USUAL_DISTANCES = (0.0, 0.3)
#: A polynomial that falls to less than this share of a maximum has turned there.
WIGGLE = 0.5


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
        up_to: beyond this signal distance, and where p is below 0, nothing is predicted: NaN. None: it is followed everywhere.
    """

    coefficients: tuple[float, ...]
    domain: tuple[float, float] | None = None
    post: RescalePost = "none"
    up_to: float | None = None

    @classmethod
    def trusted(
        cls, coefficients: Sequence[float], *, domain: tuple[float, float] | None = None, post: RescalePost = "none"
    ) -> Polynomial:
        """A polynomial that is followed up to its turning point, and nowhere below 0.

        More change of the signal with less change of the output is no prediction, and a negative distance is none: a step whose
        signal lies there is computed. (Wan2.1 T2V-14B is −9 to −2083 at distances of 0.12 to 0.33: followed, it never computes.)
        """
        return cls(tuple(coefficients), domain, post, turning_point(coefficients))

    def __call__(self, x: float) -> float:
        """p(x) by Horner's rule, after clamping to the domain and before ``post``; NaN where it predicts nothing."""
        if self.domain is not None:
            x = min(max(x, self.domain[0]), self.domain[1])
        y = 0.0
        for coefficient in self.coefficients:
            y = y * x + coefficient
        if self.up_to is not None and (y < 0.0 or x > self.up_to):
            return math.nan
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


def turning_point(coefficients: Sequence[float]) -> float:
    """The least x > 0 from which a polynomial falls for good after it has risen; infinite where it never does.

    For good: to less than ``WIGGLE`` of what it was there, before it rises above that again if it ever does. Fits of degree 4 have
    shallower dips inside their data, where they still say something.

    Args:
        coefficients: highest degree first.
    """
    slope = _derivative(coefficients)
    turns = _roots(slope)
    # Places where it turns, and one beyond them all, where nothing but the leading power counts.
    places = [*turns, 2.0 * (turns[-1] + 1.0) + _root_bound(coefficients)] if turns else []
    values = [_value(coefficients, x) for x in places]
    for position, x in enumerate(turns):
        top = values[position]
        if top <= 0.0 or not _sign(slope, x, before=True) > 0 > _sign(slope, x, before=False):
            continue
        lowest = top
        for value in values[position + 1 :]:
            if value >= top:
                break
            lowest = min(lowest, value)
        if lowest < WIGGLE * top:
            return x
    return math.inf


def _derivative(coefficients: Sequence[float]) -> list[float]:
    degree = len(coefficients) - 1
    return [value * (degree - place) for place, value in enumerate(coefficients[:-1])]


def _value(coefficients: Sequence[float], x: float) -> float:
    y = 0.0
    for coefficient in coefficients:
        y = y * x + coefficient
    return y


def _roots(coefficients: Sequence[float]) -> list[float]:
    """Where a polynomial changes sign at x > 0, ascending: between two neighbouring roots of its derivative it is monotone."""
    kept = list(coefficients)
    while kept and kept[0] == 0.0:
        kept.pop(0)
    if len(kept) < 2:
        return []
    bound = _root_bound(kept)
    if not math.isfinite(bound):
        return []
    places = [0.0, *(x for x in _roots(_derivative(kept)) if 0.0 < x < bound), bound]
    found = []
    for low, high in pairwise(places):
        below, above = _value(kept, low), _value(kept, high)
        if below * above >= 0.0:
            continue
        while low < (middle := 0.5 * (low + high)) < high:
            low, high = (middle, high) if _value(kept, middle) * below > 0.0 else (low, middle)
        found.append(high)
    return found


def _root_bound(coefficients: Sequence[float]) -> float:
    """Cauchy's bound: every root lies below it."""
    leading, *others = [value for place, value in enumerate(coefficients) if any(coefficients[: place + 1])] or [1.0]
    return 1.0 + max((abs(value / leading) for value in others), default=0.0)


def _sign(coefficients: Sequence[float], x: float, *, before: bool) -> float:
    return _value(coefficients, x * (1.0 - 1e-6 if before else 1.0 + 1e-6))


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
