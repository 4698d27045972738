"""FoCa: a multi-step predictor with a corrector, run over computed and forecast steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from easyteacache.runtime.predictors.predictor import Predictor
from easyteacache.runtime.predictors.registry import register_predictor


@register_predictor
@dataclass(frozen=True, slots=True)
class FoCa(Predictor):
    """FoCa (arXiv 2508.16211, eqs. 6-8): BDF2 predictor, Heun corrector, for any spacing, over the last three computed steps.

    The history is recursive, as in the paper: a step that was itself forecast serves the next one, so the recursion is run over
    the anchors *and* the reused steps between them, on weight vectors. It is exact on F(t) = t.

    The paper's recursion remembers every step since the first. Here it begins anew at the two oldest anchors, entered with
    the slope between them: three residuals are kept instead of all, and the forecast is the paper's own as long as no more steps
    than that were computed.
    """

    names: ClassVar[tuple[str, ...]] = ("foca",)
    sampled: ClassVar[tuple[str, ...]] = ("foca",)

    name: str = "foca"
    history: int = 3

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """Run the recursion over every visited coordinate up to ``at``."""
        count = len(anchors)
        if count == 1:
            return (1.0,)
        unit = {anchor: [1.0 if j == k else 0.0 for j in range(count)] for k, anchor in enumerate(anchors)}
        if at in unit:
            return tuple(unit[at])
        direction = 1.0 if anchors[-1] > anchors[0] else -1.0
        start, second = anchors[0], anchors[1]
        values = [(start, unit[start]), (second, unit[second])]
        slope, full = _slope(values[0], values[1]), values[1]
        visited = {*anchors[2:], at, *(r for r in reused if (r - second) * direction > 0 and (at - r) * direction > 0)}
        for coordinate in sorted(visited, reverse=direction < 0):
            if coordinate in unit:
                value = (coordinate, unit[coordinate])
                slope, full = _slope(full, value), value
            else:
                value = (coordinate, _foca_step(values[-2], values[-1], coordinate, slope))
            values.append(value)
        return tuple(values[-1][1])


_Value = tuple[float, list[float]]


def _slope(before: _Value, after: _Value) -> list[float]:
    """F' between two computed steps, divided by their own gap."""
    return [(b - a) / (after[0] - before[0]) for a, b in zip(before[1], after[1], strict=True)]


def _foca_step(before: _Value, now: _Value, at: float, full_slope: list[float]) -> list[float]:
    """F_{k+1} from F_{k-1} and F_k; ``full_slope`` is the slope at the last computed step, F'_{k-N} of eq. 8."""
    (t1, f1), (t0, f0) = before, now
    h, w = at - t0, (at - t0) / (t0 - t1)
    # Predictor (eq. 7) with the backward-difference slope, then the slope at the end (eq. 6), both for spacing ratio w.
    predicted = [a + w * (a - b) for a, b in zip(f0, f1, strict=True)]
    end_slope = [
        ((1 + 2 * w) * p - (1 + w) ** 2 * a + w * w * b) / ((1 + w) * h)
        for p, a, b in zip(predicted, f0, f1, strict=True)
    ]
    return [a + 0.5 * h * (s + e) for a, s, e in zip(f0, full_slope, end_slope, strict=True)]
