"""Polynomials through the last computed steps, continued."""

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
class Polynomial(Predictor):
    """The polynomial through the last two, three or four computed steps, continued; ``linear`` is DPCache (arXiv 2602.22654).

    Lagrange's weights, exact for unequal gaps. Falls back to the order that the anchors allow, down to hold.
    """

    names: ClassVar[tuple[str, ...]] = ("linear", "quadratic", "cubic")
    sampled: ClassVar[tuple[str, ...]] = ("linear", "quadratic")

    name: str = "linear"
    order: int = 1

    @classmethod
    def named(cls, name: str) -> Self:
        """``linear`` has order 1, and so on."""
        return cls(name, 1 + cls.names.index(name))

    @property
    def history(self) -> int:  # type: ignore[override]
        """``order + 1`` anchors."""
        return self.order + 1

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """Π_{j≠k} (at − a_j) / (a_k − a_j)."""
        found = []
        for k, anchor in enumerate(anchors):
            weight = 1.0
            for j, other in enumerate(anchors):
                if j != k:
                    weight *= (at - other) / (anchor - other)
            found.append(weight)
        return tuple(found)
