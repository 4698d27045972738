"""Non-decreasing, non-negative polynomials: Bernstein's basis and its exact conversion to stored coefficients.

On a domain [a, b] with u = (x − a)/(b − a), p(u) = Σ c_k C(n,k) uᵏ(1 − u)ⁿ⁻ᵏ is non-negative and non-decreasing whenever
0 ≤ c_0 ≤ c_1 ≤ … ≤ c_n (DeVore & Lorentz, Constructive Approximation, ch. 10). With c as cumulative sums of increments
d ≥ 0 that is a non-negative least-squares problem.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np

from easyteacache.records.trace import Array


def basis(u: Array, order: int) -> Array:
    """C(n,k) uᵏ(1 − u)ⁿ⁻ᵏ for u (N,) in [0, 1]: (N, n + 1)."""
    k = np.arange(order + 1)
    binomials = np.array([comb(order, i) for i in k], dtype=np.float64)
    return np.asarray(binomials * u[:, None] ** k * (1.0 - u[:, None]) ** (order - k))


def increasing_basis(u: Array, order: int) -> Array:
    """The basis whose non-negative combinations are the non-decreasing ones: tail sums of ``basis``, (N, n + 1)."""
    return np.asarray(np.cumsum(basis(u, order)[:, ::-1], axis=1)[:, ::-1])


def to_coefficients(control: Array, domain: tuple[float, float]) -> tuple[float, ...]:
    """Coefficients in x, highest degree first, of Σ c_k B_k((x − a)/(b − a)).

    Computed in rational arithmetic and rounded once: shifting a narrow domain to powers of x cancels digits otherwise.

    Args:
        control: (n + 1,) Bernstein coefficients c.
        domain: (a, b) with a < b.
    """
    order = len(control) - 1
    low, width = Fraction(domain[0]), Fraction(domain[1]) - Fraction(domain[0])
    powers_of_u = [
        sum(
            (Fraction(float(control[k])) * comb(order, i) * comb(i, k) * (-1) ** (i - k) for k in range(i + 1)),
            Fraction(0),
        )
        for i in range(order + 1)
    ]
    result = [Fraction(0)] * (order + 1)
    for i, value in enumerate(powers_of_u):
        scaled = value / width**i
        for m in range(i + 1):
            result[m] += scaled * comb(i, m) * (-low) ** (i - m)
    return tuple(float(value) for value in reversed(result))


def rounding_error(
    coefficients: tuple[float, ...], control: Array, domain: tuple[float, float], *, points: int = 501
) -> float:
    """Largest difference between the stored coefficients' Horner value and the Bernstein form, relative to max |p|."""
    u = np.linspace(0.0, 1.0, points)
    exact = basis(u, len(control) - 1) @ control
    stored = np.polyval(np.asarray(coefficients), domain[0] + u * (domain[1] - domain[0]))
    return float(np.max(np.abs(stored - exact)) / max(float(np.max(np.abs(exact))), np.finfo(float).tiny))
