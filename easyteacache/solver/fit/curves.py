"""Candidate curves p: signal distance → output distance, each fitted to pairs by least squares.

``monotone`` is what this project stores; ``teacache`` is the published method (arXiv 2411.19108: ``numpy.polyfit``, degree 4);
``chebyshev`` the same without its ill-conditioned basis; ``power`` a·xᵇ, which keeps its shape outside what it saw;
``isotonic`` the best any non-decreasing curve can do, a ceiling that cannot be stored.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.polynomial import chebyshev as cheb
from scipy.optimize import isotonic_regression, nnls

from easyteacache.policy.curves import Polynomial
from easyteacache.records.trace import Array
from easyteacache.solver.fit import bernstein
from easyteacache.solver.fit.points import Points

TEACACHE_ORDER = 4
HUBER = 1.345  # 95 % efficiency on normal errors (Huber 1964)
ROBUST_ROUNDS = 5
# A ridge this small, relative to the pairs, only decides between curves the pairs cannot tell apart.
RIDGE = 1e-9


@dataclass(frozen=True)
class Fitted:
    """One fitted curve.

    Attributes:
        form: the candidate's name, ``monotone``, ``teacache``, ``chebyshev``, ``power`` or ``isotonic``.
        order: degree of a polynomial, 0 otherwise.
        predict: x (N,) → p(x) (N,), clamped and floored as the runtime does it.
        coefficients: highest degree first, None where the form is no polynomial.
        domain: [x_min, x_max] of the pairs; None: evaluated wherever asked, as the paper does.
        rounding: largest error of the stored coefficients relative to max p, from writing the fit in powers of x.
    """

    form: str
    order: int
    predict: Callable[[Array], Array] = field(repr=False)
    coefficients: tuple[float, ...] | None = None
    domain: tuple[float, float] | None = None
    rounding: float = 0.0

    def curve(self) -> Polynomial:
        """The runtime's object for these coefficients."""
        assert self.coefficients is not None, f"{self.form} cannot be stored"
        return Polynomial(self.coefficients, domain=self.domain)


def monotone(points: Points, order: int, *, robust: bool = False) -> Fitted:
    """Non-decreasing, non-negative polynomial of ``order`` on the pairs' domain (Bernstein basis, NNLS)."""
    domain = points.domain
    merged = _merge(points)
    design = bernstein.increasing_basis(_unit(merged.x, domain), order)
    increments = _robustly(lambda weights: _nnls(design, merged.y, weights), design, merged, robust)
    control = np.cumsum(increments)
    coefficients = bernstein.to_coefficients(control, domain)
    return _stored("monotone", order, coefficients, domain, bernstein.rounding_error(coefficients, control, domain))


def chebyshev(points: Points, order: int, *, robust: bool = False) -> Fitted:
    """Least-squares polynomial of ``order`` in a Chebyshev basis scaled to the domain; floored at 0, free to fall."""
    domain = points.domain
    merged = _merge(points)
    design = np.asarray(cheb.chebvander(2.0 * _unit(merged.x, domain) - 1.0, order), dtype=np.float64)
    found = _robustly(lambda weights: _ridge(design, merged.y, weights), design, merged, robust)
    in_x = cheb.Chebyshev(found, domain=domain).convert(kind=np.polynomial.Polynomial)
    padded = np.zeros(order + 1)
    padded[: len(in_x.coef)] = in_x.coef
    return _stored("chebyshev", order, tuple(float(c) for c in padded[::-1]), domain)


def teacache(points: Points) -> Fitted:
    """``numpy.polyfit(x, y, 4)`` over all pairs and nothing else: no domain, no floor (ali-vilab/TeaCache, issue 2)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Polyfit may be poorly conditioned")  # its class has moved with numpy 2
        found = np.polyfit(points.x, points.y, TEACACHE_ORDER)
    coefficients = tuple(float(c) for c in found)
    return Fitted("teacache", TEACACHE_ORDER, lambda x: np.asarray(np.polyval(found, x)), coefficients)


def power(points: Points) -> Fitted:
    """a·xᵇ by least squares of the logarithms; pairs at 0 say nothing about it and are left out."""
    merged = _merge(points)
    used = (merged.x > 0) & (merged.y > 0)
    if np.count_nonzero(used) < 2 or np.ptp(np.log(merged.x[used])) == 0:
        mean = float(np.average(merged.y, weights=merged.weight))
        return Fitted("power", 0, lambda x: np.full(len(x), mean), None, None)
    slope, intercept = np.polyfit(np.log(merged.x[used]), np.log(merged.y[used]), 1, w=np.sqrt(merged.weight[used]))
    scale, exponent = float(np.exp(intercept)), float(slope)
    # A falling power of x has a pole at 0, so it is evaluated no closer to it than the smallest distance seen.
    least = float(merged.x[used].min())
    return Fitted("power", 0, lambda x: np.asarray(scale * np.maximum(x, least) ** exponent), None, None)


def isotonic(points: Points) -> Fitted:
    """The best non-decreasing step curve (pool adjacent violators), interpolated linearly, constant beyond its ends."""
    merged = _merge(points)
    y = np.asarray(isotonic_regression(merged.y, weights=merged.weight).x)
    return Fitted("isotonic", 0, lambda x: np.asarray(np.interp(x, merged.x, y)), None, points.domain)


@dataclass(frozen=True, eq=False)
class _Merged:
    """Pairs of equal x as one of their mean and count: the same least squares, fewer rows for a timestep-only signal."""

    x: Array
    y: Array
    weight: Array


def _merge(points: Points) -> _Merged:
    x, inverse, count = np.unique(points.x, return_inverse=True, return_counts=True)
    y = np.bincount(inverse, weights=points.y) / count
    return _Merged(x, y, count.astype(np.float64))


def _unit(x: Array, domain: tuple[float, float]) -> Array:
    return np.clip((x - domain[0]) / (domain[1] - domain[0]), 0.0, 1.0)


def _nnls(design: Array, y: Array, weights: Array) -> Array:
    root = np.sqrt(weights)
    # The triangular factor has the same normal equations in n + 1 rows, whatever the number of pairs.
    q, r = np.linalg.qr(design * root[:, None])
    penalty = np.sqrt(RIDGE * weights.sum()) * np.eye(design.shape[1])
    solution, _ = nnls(np.vstack((r, penalty)), np.concatenate((q.T @ (y * root), np.zeros(design.shape[1]))))
    return np.asarray(solution)


def _ridge(design: Array, y: Array, weights: Array) -> Array:
    root = np.sqrt(weights)
    penalty = np.sqrt(RIDGE * weights.sum()) * np.eye(design.shape[1])
    stacked = np.vstack((design * root[:, None], penalty))
    return np.asarray(np.linalg.lstsq(stacked, np.concatenate((y * root, np.zeros(design.shape[1]))), rcond=None)[0])


def _robustly(solve: Callable[[Array], Array], design: Array, merged: _Merged, robust: bool) -> Array:
    """Huber's M-estimate by reweighting; one plain solution without ``robust``."""
    found = solve(merged.weight)
    for _ in range(ROBUST_ROUNDS if robust else 0):
        deviation = np.abs(merged.y - design @ found)
        spread = 1.4826 * float(np.median(deviation))
        if spread == 0.0:
            break
        found = solve(merged.weight * np.minimum(1.0, HUBER * spread / np.maximum(deviation, 1e-300)))
    return found


def _stored(
    form: str, order: int, coefficients: tuple[float, ...], domain: tuple[float, float], rounding: float = 0.0
) -> Fitted:
    def predict(x: Array) -> Array:
        return np.asarray(np.maximum(np.polyval(np.asarray(coefficients), np.clip(x, *domain)), 0.0))

    return Fitted(form, order, predict, coefficients, domain, rounding)
