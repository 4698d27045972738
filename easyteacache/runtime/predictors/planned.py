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
        instead: what gives the weights where other steps were computed; None: the last one holds.
    """

    axes: ClassVar[tuple[Axis, ...]] = ("step",)

    table: tuple[tuple[float, ...], ...]
    schedule: tuple[int, ...]
    name: str = FITTED
    instead: Predictor | None = None

    @property
    def history(self) -> int:  # type: ignore[override]
        """The longest row."""
        return max(len(row) for row in self.table)

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """The row of step ``at``; ``instead``'s weights when other steps were computed than those it belongs to."""
        row = self.row(anchors, at)
        return self.astray(anchors, at, reused=reused) if row is None else row

    def astray(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """The weights where other steps were computed than the schedule's."""
        if self.instead is None:
            return (*(0.0 for _ in anchors[:-1]), 1.0)
        return self.instead.weights(anchors, at, reused=reused)

    def row(self, anchors: Sequence[float], at: float) -> tuple[float, ...] | None:
        """The weights of step ``at``, one an anchor; None when others were computed than the schedule's last steps."""
        step = int(at)
        if step != at or not 0 <= step < len(self.table):
            return None
        row, seen = self.table[step], bisect.bisect_right(self.schedule, step)
        if tuple(anchors[-len(row) :]) != self.schedule[max(0, seen - len(row)) : seen]:
            return None
        return (*(0.0 for _ in anchors[: len(anchors) - len(row)]), *row)


def planned(predictor: Predictor, schedule: tuple[int, ...], num_steps: int) -> PlannedRows:
    """The rows of a predictor for one schedule, so that no more is remembered than they reach back for.

    Args:
        predictor: one that looks at every computed step, along the steps.
        schedule: the computed steps, ascending, the first of them 0.
        num_steps: steps of the run.
    """
    rows = tuple(_from_the_first_that_counts(row) for row in predictor.rows(schedule, num_steps))
    return PlannedRows(rows, schedule, predictor.name, predictor)


def _from_the_first_that_counts(row: tuple[float, ...]) -> tuple[float, ...]:
    first = next((position for position, weight in enumerate(row) if weight), len(row) - 1)
    return row[first:]
