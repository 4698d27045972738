"""Predicted errors of plans that fill reused steps by a plain predictor and correct computed ones by fitted weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from easyteacache.solver.replay.error_propagation import Travel
from easyteacache.solver.replay.fitted_weights import Weights, matrix
from easyteacache.solver.replay.predictor_rows import Filling, Rows
from easyteacache.solver.replay.runs import Runs

Array = NDArray[np.float64]


class CorrectedTravel:
    """How errors travel when every computed step puts the sample where the weights say.

    After a computed step the state misses what the weights miss; until the next one, what the forecasts miss is added. Both are known
    exactly, but in Gram matrices of different quantities, whose inner products no trace holds: they are added as if at right angles.

    Args:
        runs: R runs of S steps by an Euler sampler, with the Gram matrices of the guided output.
        filling: what fills reused steps; its own weights are not looked at.
    """

    def __init__(self, runs: Runs, filling: Filling) -> None:
        self._num_steps = runs.num_steps
        self._plain = Filling(filling.forecaster, filling.coordinate, filling.applied_to)
        self._rows = Rows(self._plain, runs)
        self._state, self._forecast = Travel(runs, "output"), Travel(runs, filling.applied_to)
        transfer = runs.transfer if filling.applied_to == "residual" else np.ones(runs.num_steps)
        self._sizes, self._changes = runs.step_sizes[:, None], (runs.step_sizes * transfer)[:, None]
        self._exact = np.tril(np.tile(runs.step_sizes, (runs.num_steps, 1)))

    def errors(self, schedule: Sequence[int], weights: Weights) -> Array:
        """Predicted error of every run's final sample, relative to how far the sampler moved the noise, (R,)."""
        after = np.cumsum(self._sizes * matrix(schedule, weights, self._num_steps), axis=0)
        rows = self._rows.matrix(schedule)
        handed, missed = self._sizes * (rows + np.eye(self._num_steps)), self._changes * rows
        errors = np.empty((len(schedule), len(self._state.grams)))
        nothing = errors[:0]
        for position, (computed, step) in enumerate(zip(schedule, [*schedule[1:], self._num_steps], strict=True)):
            gap = slice(computed + 1, step)
            total = after[computed] + handed[gap].sum(axis=0)
            off = after[computed] - self._exact[computed]
            known = self._state.arriving(off, total, (), nothing)
            own = self._forecast.arriving(missed[gap].sum(axis=0), total, (), nothing)
            inherited = self._state.arriving(off, total, schedule, errors[:position]) - known
            errors[position] = inherited + np.hypot(known, own)
        return np.asarray(errors[-1])
