"""Spectrum (arXiv 2603.01623; hanjq17/Spectrum): a ridge fit of Chebyshev polynomials, blended with a straight line.

On τ_k = 2k/H − 1, with X the values T_0 … T_m(τ_k) of every computed step k so far, b and a the two latest of them,

    a_j· = w T(τ_j)ᵀ (XᵀX + λI)⁻¹ Xᵀ + (1 − w) [1 + (j − b)/(b − a) at b, −(j − b)/(b − a) at a].

λ shrinks T_0 too, so that the weights add up to less than 1. H is 50 in the published code whatever the step count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easyteacache.errors import InvalidPlan
from easyteacache.policy.methods.rows import LONGEST_ROW, Rows, Weights, unrolled

if TYPE_CHECKING:
    from easyteacache.records.trace import Array

HORIZON = 50.0


@dataclass(frozen=True, slots=True)
class SpectrumFit:
    """The settings of a forecast.

    Attributes:
        degree: m, highest Chebyshev polynomial, 0 or more.
        ridge: λ, above 0.
        blend: w, share of the polynomials, 0 to 1; the rest is a straight line through the two latest computed steps.
        horizon: H, the step that is mapped to 1.
    """

    degree: int = 4
    ridge: float = 0.1
    blend: float = 0.5
    horizon: float = HORIZON

    def __post_init__(self) -> None:
        if self.degree < 0 or not self.ridge > 0 or not 0 <= self.blend <= 1 or not self.horizon > 0:
            raise InvalidPlan(
                f"degree {self.degree}, ridge {self.ridge}, blend {self.blend}, horizon {self.horizon}; "
                "expected 0 or more, above 0, 0 to 1, above 0"
            )

    def weights(self, anchors: Sequence[float], at: float) -> tuple[float, ...]:
        """One weight per computed step in ``anchors`` (step indices, oldest first) for step ``at`` behind them."""
        import numpy as np  # only here: a record is listed and resolved without it

        places = np.asarray(anchors, dtype=np.float64)
        line = np.zeros(len(places))
        line[-1] = 1.0
        if len(places) > 1:
            slope = (at - places[-1]) / (places[-1] - places[-2])
            line[-2:] = -slope, 1.0 + slope
        # Written as X(XᵀX + λI)⁻¹T: the normal matrix is symmetric.
        design, here = self._chebyshev(places), self._chebyshev(np.array([at]))[0]
        normal = design.T @ design + self.ridge * np.eye(self.degree + 1)
        fitted = design @ np.linalg.solve(normal, here)
        return tuple(float(w) for w in self.blend * fitted + (1.0 - self.blend) * line)

    def _chebyshev(self, places: Array) -> Array:
        """T_0 … T_m at each place, (K, m + 1)."""
        import numpy as np

        places = 2.0 * places / self.horizon - 1.0
        return np.asarray(np.polynomial.chebyshev.chebvander(places, self.degree), dtype=np.float64)


def spectrum_rows(computed: Sequence[int], num_steps: int, fit: SpectrumFit | None = None) -> Rows:
    """Spectrum's rows for one schedule; the fit looks at the last ``LONGEST_ROW`` computed steps, as published.

    Args:
        computed: the computed steps, ascending, the first of them 0.
        num_steps: S.
        fit: its settings; None: the published script's.

    Raises:
        InvalidPlan: the computed steps are no plan.
    """
    fit, steps = fit or SpectrumFit(), list(computed)

    def fill(step: int, known: Sequence[Weights]) -> Weights:
        before = [k for k in steps if k < step][-LONGEST_ROW:]
        return dict(zip(before, fit.weights([float(k) for k in before], float(step)), strict=True))

    return unrolled(computed, num_steps, fill)
