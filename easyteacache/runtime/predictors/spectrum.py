"""Spectrum's ridge fit of Chebyshev polynomials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from easyteacache.policy.methods.rows import LONGEST_ROW
from easyteacache.policy.methods.spectrum import SpectrumFit
from easyteacache.runtime.predictors.predictor import Axis, Predictor
from easyteacache.runtime.predictors.registry import register_predictor

if TYPE_CHECKING:
    from typing_extensions import Self


#: What the published scripts run with.
PUBLISHED = SpectrumFit()


@register_predictor
@dataclass(frozen=True, slots=True)
class Spectrum(Predictor):
    """Spectrum (arXiv 2603.01623): a ridge fit of Chebyshev polynomials to all computed steps, half and half with ``linear``.

    The one predictor whose weights need not add up to 1. ``spectrum-M-L-W`` has degree M, ridge L/1000 and W percent of the polynomials,
    ``spectrum-M-L-W-H`` maps step H to the end of their interval instead of step 50; ``spectrum`` is the published
    ``spectrum-4-100-50``. It looks at every computed step, so it remembers them all.
    """

    names: ClassVar[tuple[str, ...]] = ("spectrum",)
    pattern: ClassVar[str] = r"spectrum-\d{1,2}-0*[1-9]\d{0,5}-(\d{1,2}|100)(-0*[1-9]\d{0,4})?"
    spelling: ClassVar[str] = "spectrum-M-L-W[-H] (degree, ridge in thousandths, percent, horizon)"
    axes: ClassVar[tuple[Axis, ...]] = ("step",)
    candidates: ClassVar[tuple[str, ...] | None] = ()

    name: str = "spectrum"
    fit: SpectrumFit = PUBLISHED
    history: int = LONGEST_ROW

    @classmethod
    def named(cls, name: str) -> Self:
        """The published settings, or those in the name."""
        if name in cls.names:
            return cls(name)
        degree, ridge, blend, *horizon = (int(part) for part in name.split("-")[1:])
        return cls(name, SpectrumFit(degree, ridge / 1000.0, blend / 100.0, *(float(step) for step in horizon)))

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """The ridge fit's row, blended with the straight line's."""
        return self.fit.weights(anchors, at)
