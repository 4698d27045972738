"""Predicted errors of any plan on recorded runs: one ruler for every schedule, filling and target.

A plan is computed steps, the same or others for each guidance branch, and what fills the reused ones: a predictor of the residual, of the
feature before the head or of the output, rows of weights, or a predictor whose misses rows make good. All of them hand the sampler
combinations of what was recorded, so the error of every state is a quadratic form: Â − A, the sampler's map with what was handed over less
the map itself, in the Gram matrix of what was recorded (``error_propagation.Travel`` says what becomes of it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from easyteacache.records.bucket import FITTED
from easyteacache.records.trace import Array
from easyteacache.runtime.sampler_steps import SamplerSteps
from easyteacache.solver.replay.error_propagation import Travel
from easyteacache.solver.replay.fitted_weights import matrix
from easyteacache.solver.replay.gate_replay import Schedule
from easyteacache.solver.replay.handed import handed_rows
from easyteacache.solver.replay.predictor_rows import Filling, Rows
from easyteacache.solver.replay.propagation import View
from easyteacache.solver.replay.runs import Runs


class PlanErrors:
    """Predicts what plans do to the final samples of some runs.

    Args:
        runs: R runs of S steps.
        view: how outputs answer to disturbances; where it is V views at once, errors are (V, R) instead of (R,).
        rows: the error rows of fillings on these steps, where somebody has them already.
    """

    def __init__(self, runs: Runs, *, view: View = "measured", rows: dict[Filling, Rows] | None = None) -> None:
        self.runs, self._view = runs, view
        self._rows = {} if rows is None else rows
        self._travels: dict[tuple[str, bool], Travel] = {}
        self._steps: SamplerSteps | None = None

    def errors(self, schedule: Schedule | Mapping[str, Schedule], filling: Filling) -> Array:
        """Predicted error of every run's final sample, relative to what the outputs make up of it, (R,).

        Args:
            schedule: the computed steps, ascending, the first of them 0; or each branch's own, where they differ without weights.
            filling: what fills reused steps, and the weights that fill or correct.

        Raises:
            InvalidTrace: the runs hold no Gram matrix of what the filling is applied to, or the weights are not one row a step.
        """
        if isinstance(schedule, Mapping):
            apart = dict(schedule)
            schedule = next(iter(apart.values()))
            if any(other != schedule for other in apart.values()):
                return self._of_branches(apart, filling)
        if filling.weights is None:
            return self._plain(tuple(schedule), filling)
        if filling.forecaster == FITTED:
            handed = matrix(schedule, filling.weights, self.runs.num_steps)
            return self._travel("output").errors(handed - np.eye(len(handed)), handed, schedule)
        return self._corrected(tuple(schedule), filling, filling.weights)

    def _plain(self, schedule: Schedule, filling: Filling) -> Array:
        rows = self._error_rows(filling).matrix(schedule)
        travel, transfer = self._travel(filling.applied_to), self.runs.transfer_of(filling.applied_to)
        return travel.errors(transfer[:, None] * rows, rows + np.eye(len(rows)), schedule)

    def _corrected(self, schedule: Schedule, filling: Filling, weights: Sequence[tuple[float, ...]]) -> Array:
        """Filled by a predictor, and put right by weights at computed steps."""
        plain = Filling(filling.forecaster, filling.coordinate, filling.applied_to)
        rows, exact = self._error_rows(plain).matrix(schedule), np.eye(self.runs.num_steps)
        self._steps = self._steps or SamplerSteps.of(self.runs.map)
        totals = handed_rows(schedule, weights, rows + exact, self._steps)
        if filling.applied_to == "output":
            return self._travel("output").errors(totals - exact, totals, schedule)
        # Outputs first, then errors of what was filled, whose inner products with the outputs no trace holds: at right angles.
        missed = self.runs.transfer_of(filling.applied_to)[:, None] * rows
        both = handed_rows(schedule, weights, np.hstack((exact, missed)), self._steps)
        both[:, : len(exact)] -= exact
        return self._travel(filling.applied_to, beside_output=True).errors(both, totals, schedule)

    def _of_branches(self, schedules: Mapping[str, Schedule], filling: Filling) -> Array:
        """Of branches that compute different steps: exact in the Gram matrix of both, each weighted as guidance does."""
        plain = Filling(filling.forecaster, filling.coordinate, filling.applied_to)
        rows = [self._error_rows(plain).matrix(schedule) for schedule in schedules.values()]
        either = sorted(set().union(*schedules.values()))
        found = np.empty(self._travel("residual").shape)
        for shares, members in self.runs.by_shares(tuple(schedules)):
            runs = self.runs.take(members)
            transfers = [runs.of_branch(branch).transfer_of(filling.applied_to) for branch in schedules]
            missed = [share * transfer[:, None] * row for share, transfer, row in zip(shares, transfers, rows, strict=True)]  # fmt: skip
            totals = sum(share * (row + np.eye(len(row))) for share, row in zip(shares, rows, strict=True))
            travel = Travel(runs, runs.joint(filling.applied_to, tuple(schedules)), view=self._view)
            found[..., members] = travel.errors(np.hstack(missed), np.asarray(totals), either)
        return found

    def _travel(self, applied_to: str, *, beside_output: bool = False) -> Travel:
        key = (applied_to, beside_output)
        if key not in self._travels:
            gram = self.runs.gram(applied_to)
            self._travels[key] = Travel(
                self.runs, _beside(self.runs.gram("output"), gram) if beside_output else gram, view=self._view
            )
        return self._travels[key]

    def _error_rows(self, filling: Filling) -> Rows:
        if filling not in self._rows:
            self._rows[filling] = Rows(filling, self.runs)
        return self._rows[filling]


def _beside(first: Array, second: Array) -> Array:
    """(R, 2S, 2S): two kinds of quantities whose inner products with each other are taken for 0."""
    nothing = np.zeros_like(first)
    return np.block([[first, nothing], [nothing, second]])
