"""How reused steps are filled: a predictor, its axis and what it is applied to; and the error rows that follow.

A predictor maps the last computed steps to a reused one with weights that depend on coordinates alone. So the error of step j
is Σ_k w_k r_k − r_j = c_jᵀ r with a sparse row c_j that is the same for every run, and any error norm is a quadratic form in a
run's Gram matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from easyteacache.records.bucket import FITTED
from easyteacache.records.trace import Array
from easyteacache.runtime.predictors import Predictor, predictor
from easyteacache.solver.replay.runs import Runs

Coordinate = Literal["step", "timestep", "sigma"]
Target = Literal["residual", "feature", "output"]
Anchors = tuple[int, ...]


@dataclass(frozen=True, order=True)
class Filling:
    """What fills a reused step; the fields are those of an operating point."""

    forecaster: str = "hold"
    coordinate: Coordinate = "step"
    applied_to: Target = "residual"
    weights: tuple[tuple[float, ...], ...] | None = None

    def __str__(self) -> str:
        if self.forecaster == FITTED:
            return f"fitted weights of the {self.applied_to}"
        axis = f" over {self.coordinate}" if len(predictor(self.forecaster).axes) > 1 else ""
        corrected = "" if self.weights is None else ", corrected"
        return f"{self.forecaster}{axis} of the {self.applied_to}{corrected}"


@dataclass(frozen=True, eq=False)
class Row:
    """The error of one reused step as a sparse combination of residuals.

    Attributes:
        steps: (A + 1,) the anchors and, last, the reused step itself.
        weights: (A + 1,) the forecast's weights and, last, −1.
    """

    steps: NDArray[np.intp]
    weights: Array


class Rows:
    """The error rows c_j of one filling on one bucket's steps; remembers each, because a search meets them again and again."""

    def __init__(self, filling: Filling, runs: Runs) -> None:
        self.filling = filling
        self.num_steps = runs.num_steps
        self._predictor: Predictor = predictor(filling.forecaster).over([float(level) for level in runs.sigmas])
        # As the runtime: a predictor that knows no other axis runs along the steps.
        along = filling.coordinate in self._predictor.axes
        self._coordinates = coordinates(filling.coordinate if along else "step", runs)
        #: Most computed steps that a forecast looks at.
        self.history = self._predictor.history
        self._known: dict[tuple[Anchors, int], Row] = {}

    def row(self, anchors: Anchors, step: int) -> Row:
        """c_j of reused ``step``, forecast from the computed steps ``anchors`` (ascending, at most ``history``)."""
        found = self._known.get((anchors, step))
        if found is None:
            found = self._known[anchors, step] = self._row(anchors, step)
        return found

    def matrix(self, schedule: Sequence[int]) -> Array:
        """All error rows of a run that computes ``schedule``: (S, S), zero for computed steps."""
        rows = np.zeros((self.num_steps, self.num_steps))
        for anchors, step in reused_steps(schedule, self.num_steps, self.history):
            row = self.row(anchors, step)
            rows[step, row.steps] = row.weights
        return rows

    def _row(self, anchors: Anchors, step: int) -> Row:
        at = self._coordinates
        # Every step since the first anchor that is no anchor was reused: the same list that the runtime keeps.
        reused = [at[k] for k in range(anchors[0], step) if k not in anchors]
        weights = self._predictor.weights([at[k] for k in anchors], at[step], reused=reused)
        return Row(np.array([*anchors, step]), np.array([*weights, -1.0]))


def reused_steps(schedule: Sequence[int], num_steps: int, history: int) -> list[tuple[Anchors, int]]:
    """(the last computed steps, reused step) for every reused step of ``schedule`` (ascending, beginning with 0)."""
    found: list[tuple[Anchors, int]] = []
    ends = [*schedule[1:], num_steps]
    for position, (start, end) in enumerate(zip(schedule, ends, strict=True)):
        anchors = tuple(schedule[max(0, position + 1 - history) : position + 1])
        found.extend((anchors, step) for step in range(start + 1, end))
    return found


def coordinates(name: Coordinate, runs: Runs) -> list[float]:
    """The place of every step on the axis ``name``, (S,)."""
    if name == "step":
        return [float(step) for step in range(runs.num_steps)]
    values = runs.timesteps if name == "timestep" else runs.sigmas[:-1]
    return [float(value) for value in values]
