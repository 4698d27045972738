"""Mean: the original project's predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from easyteacache.runtime.predictors.predictor import Axis, Predictor
from easyteacache.runtime.predictors.registry import register_predictor


@register_predictor
@dataclass(frozen=True, slots=True)
class Mean(Predictor):
    """The mean of the last two computed steps: the original project's ``enable_vt_predictor`` (oneflyingfish/EasyTeacache).

    The original also averages in what it forecast itself; here only computed steps count.
    """

    names: ClassVar[tuple[str, ...]] = ("mean",)
    axes: ClassVar[tuple[Axis, ...]] = ("step",)
    candidates: ClassVar[tuple[str, ...] | None] = ()

    name: str = "mean"
    history: int = 2

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """Half and half, or everything on the only anchor there is."""
        return (0.5, 0.5) if len(anchors) > 1 else (1.0,)
