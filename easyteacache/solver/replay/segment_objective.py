"""Predicted error of the final sample of a plan, without the model.

Step j's error e_j = Σ_k w_k r_k − r_j enters the sample as a_j e_j, a_j the weight of its output there (Δσ_j of Euler's), and travels through the rest of the run. What happens to it on
the way follows from the model's Jacobian, which no trace holds; but for a velocity v = (x − x̂)/σ it lies between two cases:

* where the sample is undecided, an error grows by g_j until the end: the final error is ‖Σ_j g_j a_j e_j‖, one quadratic form in
  the run's Gram matrix, because everything is linear in the residuals;
* where the model is certain of x̂, δv = δx/σ pulls errors back, as long as outputs are computed. A forecast made of outputs that were
  computed on a disturbed state feeds the disturbance back instead, the more the further it extrapolates.

Both are exact for their case and cost no model; the prediction is their root of squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from easyteacache.records.trace import Array
from easyteacache.solver.replay.predictor_rows import Anchors, Filling, Rows
from easyteacache.solver.replay.runs import Runs

# Share of the norm of the summed errors; the rest goes to the sum of their norms, because errors made long apart are met by
# different Jacobians and cannot be relied on to cancel.
COHERENCE = 0.9
SMALLEST = 1e-12


@dataclass(frozen=True, eq=False)
class Segment:
    """What the reused steps between one computed step and the next contribute.

    Attributes:
        direction: (S,) weights of the residuals in Σ g_j a_j e_j.
        squares: (R,) Σ ‖g_j a_j e_j‖² of every run.
    """

    direction: Array
    squares: Array


class Objective:
    """Predicted final errors of schedules with one filling, on one set of runs.

    Args:
        runs: R runs of S steps.
        filling: what fills reused steps.
        gains: (S,) how much an error made at each step grows until the end of the run.
        rows: the filling's error rows on these steps, where another objective already has them.
    """

    def __init__(self, runs: Runs, filling: Filling, gains: Array, *, rows: Rows | None = None) -> None:
        self.runs, self.filling = runs, filling
        self.rows = rows or Rows(filling, runs)
        self._gram = runs.gram(filling.applied_to)
        self._transfer = runs.transfer_of(filling.applied_to)
        self._factors = gains * runs.moves[-1] * self._transfer
        self._segments: dict[tuple[Anchors, int], Segment] = {}
        self._nothing = Segment(np.zeros(runs.num_steps), np.zeros(len(runs)))

    def errors(self, schedule: Sequence[int]) -> Array:
        """Predicted error of the final sample relative to how far the sampler moved the noise, (R,)."""
        return np.asarray(self.errors_together([schedule])[0])

    def errors_together(self, schedules: Sequence[Sequence[int]]) -> Array:
        """``errors`` of K schedules, (K, R)."""
        growing = self.errors_of([self.segments(schedule) for schedule in schedules])
        return np.asarray(np.hypot(growing, self.fed_back(schedules)))

    def fed_back(self, schedules: Sequence[Sequence[int]]) -> Array:
        """The second case, (K, R): errors that every computed step pulls back and every forecast may feed back."""
        steps = self.runs.num_steps
        rows = np.stack([self.rows.matrix(schedule) for schedule in schedules])
        own = np.arange(steps)
        # What a computed step answers to a disturbance, and what a forecast makes of earlier answers.
        answers = rows / self.runs.sigmas[:-1]
        answers[:, own, own] = np.where(rows[:, own, own] == 0.0, 1.0 / self.runs.sigmas[:-1], 0.0)
        # [:, j]: the disturbance of the state before step j, in units of the residuals.
        disturbed = np.zeros((len(rows), steps + 1, steps))
        changes = np.zeros((len(rows), steps, steps))
        for j in range(steps):
            changes[:, j] = (answers[:, j, None, : j + 1] @ disturbed[:, : j + 1])[:, 0] + self._transfer[j] * rows[
                :, j
            ]
            disturbed[:, j + 1] = self.runs.moves[j + 1, : j + 1] @ changes[:, : j + 1]
        return self._norms(disturbed[:, -1])

    def _norms(self, directions: Array) -> Array:
        """‖Σ_j d_j r_j‖ of K directions (K, S), relative to the displacement, (K, R)."""
        squared = np.einsum("rks,ks->kr", directions[None] @ self._gram, directions)
        return np.asarray(np.sqrt(np.maximum(squared, 0.0)) / self.runs.displacement)

    def errors_of(self, plans: Sequence[Sequence[Segment]]) -> Array:
        """The first case, of K plans given as their segments, (K, R)."""
        directions = np.stack([np.sum([s.direction for s in plan], axis=0) for plan in plans])
        squares = np.stack([np.sum([s.squares for s in plan], axis=0) for plan in plans])
        return self.combine(directions, squares)

    def combine(self, directions: Array, squares: Array) -> Array:
        """Errors (K, R) from summed directions (K, S) and squares (K, R)."""
        apart = squares / self.runs.displacement**2
        return np.asarray(np.sqrt(COHERENCE * self._norms(directions) ** 2 + (1.0 - COHERENCE) * apart) + SMALLEST)

    def segments(self, schedule: Sequence[int]) -> list[Segment]:
        """One segment per computed step of ``schedule`` (ascending, beginning with 0)."""
        ends = [*schedule[1:], self.runs.num_steps]
        return [self.segment(self.anchors(schedule, i), end) for i, end in enumerate(ends)]

    def anchors(self, schedule: Sequence[int], position: int) -> Anchors:
        """The computed steps a forecast after ``schedule[position]`` looks at."""
        return tuple(schedule[max(0, position + 1 - self.rows.history) : position + 1])

    def segment(self, anchors: Anchors, end: int) -> Segment:
        """The reused steps after ``anchors[-1]`` and before ``end``."""
        if end == anchors[-1] + 1:
            return self._nothing
        found = self._segments.get((anchors, end))
        if found is None:
            found = self._segments[anchors, end] = self._extend(anchors, end)
        return found

    def _extend(self, anchors: Anchors, end: int) -> Segment:
        before, row = self.segment(anchors, end - 1), self.rows.row(anchors, end - 1)
        weights = self._factors[end - 1] * row.weights
        square = (self._gram[:, row.steps[:, None], row.steps] @ weights) @ weights
        direction = before.direction.copy()
        direction[row.steps] += weights
        return Segment(direction, before.squares + np.maximum(square, 0.0))


def typical(errors: Array) -> Array:
    """What a search minimises: the mean of the logarithms plus that of the worst fifth, over the last axis (runs).

    The mean error alone is ruled by whichever run is worst, the mean logarithm alone ignores it; an early error that flips some
    samples shows only in the tail.
    """
    logs = np.sort(np.log(errors), axis=-1)
    worst = max(1, logs.shape[-1] // 5)
    return np.asarray(0.5 * logs.mean(axis=-1) + 0.5 * logs[..., -worst:].mean(axis=-1))
