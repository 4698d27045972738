"""MeanCache's forecast of the mean velocity over a step."""

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
    """MeanCache (arXiv 2601.19961): the mean velocity over the step, from a span of 2 to 6 earlier ones, of the model's output alone.

    Its weights depend on the noise levels of the run. Until those are known (``over``) it holds. ``meancache-S`` has one span for all
    steps; published plans give every gap between two computed steps a span of its own, one digit each: ``meancache-0022511``. Behind the
    last digit the last one goes on. It looks at every computed step, so it remembers them all.
    """

    names: ClassVar[tuple[str, ...]] = ("meancache-2", "meancache-3", "meancache-4", "meancache-5", "meancache-6")
    pattern: ClassVar[str] = r"meancache-[0-9]{1,30}"
    spelling: ClassVar[str] = "meancache-SSS… (a digit for every gap)"
    axes: ClassVar[tuple[Axis, ...]] = ("step",)
    places: ClassVar[tuple[Place, ...]] = ("output",)
    candidates: ClassVar[tuple[str, ...] | None] = ()
    needs_levels: ClassVar[bool] = True

    name: str = "meancache-2"
    spans: tuple[int, ...] = (2,)
    levels: tuple[float, ...] | None = None
    history: int = LONGEST_ROW

    @classmethod
    def named(cls, name: str) -> Self:
        """The spans are the digits of the name's last part."""
        return cls(name, tuple(int(digit) for digit in name.rpartition("-")[2]))

    def over(self, levels: Sequence[float]) -> MeanCache:
        """The same spans over these noise levels."""
        return MeanCache(self.name, self.spans, tuple(levels))

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """The recurrence over every step from the first anchor on, computed or not."""
        first, step = int(anchors[0]), int(at)
        if self.levels is None or step + 1 >= len(self.levels):
            return (*(0.0 for _ in anchors[:-1]), 1.0)
        computed = {int(anchor) for anchor in anchors}
        # Steps are counted from the first anchor: nothing before it is remembered.
        levels, known, gap = self.levels[first:], list[Weights](), -1
        for place in range(step - first + 1):
            if place + first in computed:
                known.append({place: 1.0})
                gap += 1
            else:
                span = self.spans[min(gap, len(self.spans) - 1)]
                known.append(meancache_step(place, known, levels, span))
        return tuple(known[-1].get(int(anchor) - first, 0.0) for anchor in anchors)
