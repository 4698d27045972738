"""MeanCache's forecast of the mean velocity, with one span for all steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from easyteacache.policy.methods.meancache import meancache_step
from easyteacache.policy.methods.rows import LONGEST_ROW, Weights
from easyteacache.runtime.predictors.predictor import Axis, Place, Predictor
from easyteacache.runtime.predictors.registry import register_predictor

if TYPE_CHECKING:
    from typing_extensions import Self


@register_predictor
@dataclass(frozen=True, slots=True)
class MeanCache(Predictor):
    """MeanCache (arXiv 2601.19961) with a span of 2 to 6 steps: the mean velocity over the step, of the model's output alone.

    Its weights depend on the noise levels of the run. Until those are known (``over``) it holds. Published plans give every gap a span
    of its own, which makes them rows (``policy/methods/meancache.py``).
    """

    names: ClassVar[tuple[str, ...]] = ("meancache-2", "meancache-3", "meancache-4", "meancache-5", "meancache-6")
    axes: ClassVar[tuple[Axis, ...]] = ("step",)
    places: ClassVar[tuple[Place, ...]] = ("output",)
    candidates: ClassVar[tuple[str, ...] | None] = ()
    needs_levels: ClassVar[bool] = True

    name: str = "meancache-2"
    span: int = 2
    levels: tuple[float, ...] | None = None
    history: int = LONGEST_ROW

    @classmethod
    def named(cls, name: str) -> Self:
        """The span is the name's last part."""
        return cls(name, int(name.rpartition("-")[2]))

    def over(self, levels: Sequence[float]) -> MeanCache:
        """The same span over these noise levels."""
        return MeanCache(self.name, self.span, tuple(levels))

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """The recurrence over every step from the first anchor on, computed or not."""
        first, step = int(anchors[0]), int(at)
        if self.levels is None or step + 1 >= len(self.levels):
            return (*(0.0 for _ in anchors[:-1]), 1.0)
        computed = {int(anchor) for anchor in anchors}
        known: list[Weights] = []
        # Steps are counted from the first anchor: nothing before it is remembered.
        levels = self.levels[first:]
        for place in range(step - first + 1):
            if place + first in computed:
                known.append({place: 1.0})
            else:
                known.append(meancache_step(place, known, levels, self.span))
        return tuple(known[-1].get(int(anchor) - first, 0.0) for anchor in anchors)
