"""Hold: the last computed step again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from easyteacache.runtime.predictors.predictor import Axis, Predictor
from easyteacache.runtime.predictors.registry import register_predictor


@register_predictor
@dataclass(frozen=True, slots=True)
class Hold(Predictor):
    """The last computed step again: TeaCache (arXiv 2411.19108), MagCache, LeMiCa, FORA."""

    names: ClassVar[tuple[str, ...]] = ("hold",)
    axes: ClassVar[tuple[Axis, ...]] = ("step",)

    name: str = "hold"
    history: int = 1

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """All weight on the last anchor."""
        return (*(0.0 for _ in anchors[:-1]), 1.0)
