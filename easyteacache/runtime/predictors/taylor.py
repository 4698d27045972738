"""TaylorSeer's series of backward differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from easyteacache.runtime.predictors.predictor import Predictor
from easyteacache.runtime.predictors.registry import register_predictor

if TYPE_CHECKING:
    from typing_extensions import Self


@register_predictor
@dataclass(frozen=True, slots=True)
class Taylor(Predictor):
    """TaylorSeer (arXiv 2503.06923, eq. 9): Σ D^i F · m^i / i!, D^i by repeated backward differences, of order 1 to 4.

    Every difference is divided by the distance of the two latest computed steps at the step it belongs to, as in the published code
    (Shenyi-Z/Cache4Diffusion). From order 2 on that is no divided difference where gaps are unequal: it stays exact to first order.
    """

    names: ClassVar[tuple[str, ...]] = ("taylor-1", "taylor-2", "taylor-3", "taylor-4")
    candidates: ClassVar[tuple[str, ...] | None] = ("taylor-2",)

    name: str
    order: int

    @classmethod
    def named(cls, name: str) -> Self:
        """The order is the name's last part."""
        return cls(name, int(name.rpartition("-")[2]))

    @property
    def history(self) -> int:  # type: ignore[override]
        """``order + 1`` anchors."""
        return self.order + 1

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """Weights of the truncated Taylor series around the last anchor."""
        count = len(anchors)
        # rows[k] holds the weights of the i-th difference ending at anchor k; i grows with the loop.
        rows = [[1.0 if j == k else 0.0 for j in range(count)] for k in range(count)]
        total = rows[-1]
        factor, horizon = 1.0, at - anchors[-1]
        for i in range(1, count):
            rows = [
                [(b - a) / (anchors[k + i] - anchors[k + i - 1]) for a, b in zip(rows[k], rows[k + 1], strict=True)]
                for k in range(count - i)
            ]
            factor *= horizon / i
            total = [t + factor * d for t, d in zip(total, rows[-1], strict=True)]
        return tuple(total)
