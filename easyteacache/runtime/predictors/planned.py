"""Rows that a plan holds for every step."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from easyteacache.runtime.predictors.predictor import FITTED, Axis, Predictor


@dataclass(frozen=True, slots=True)
class PlannedRows(Predictor):
    """The rows of a plan, a published one or one fitted to traces (``solver/replay/fitted_weights.py``), along the steps.

    Fitted rows also correct computed steps, whatever fills the reused ones (``corrector.py``).

    Attributes:
        table: per step the weights of the last computed outputs up to and including that step, oldest first.
        schedule: the computed steps that the rows belong to, ascending.
    """

    axes: ClassVar[tuple[Axis, ...]] = ("step",)

    table: tuple[tuple[float, ...], ...]
    schedule: tuple[int, ...]
    name: str = FITTED

    @property
    def history(self) -> int:  # type: ignore[override]
        """The longest row."""
        return max(len(row) for row in self.table)

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """The row of step ``at``; the last anchor alone when other steps were computed than those it was fitted to."""
        row = self.row(anchors, at)
        return (*(0.0 for _ in anchors[:-1]), 1.0) if row is None else row

    def row(self, anchors: Sequence[float], at: float) -> tuple[float, ...] | None:
        """The weights of step ``at``, one an anchor; None when others were computed than the schedule's last steps."""
        step = int(at)
        if step != at or not 0 <= step < len(self.table):
            return None
        row, seen = self.table[step], bisect.bisect_right(self.schedule, step)
        if tuple(anchors[-len(row) :]) != self.schedule[max(0, seen - len(row)) : seen]:
            return None
        return (*(0.0 for _ in anchors[: len(anchors) - len(row)]), *row)
