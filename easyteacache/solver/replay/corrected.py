"""Predicted errors of plans that fill reused steps by a plain predictor and correct computed ones by fitted weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from easyteacache.records.trace import Array
from easyteacache.runtime.corrector import Corrector
from easyteacache.solver.replay.error_propagation import Travel
from easyteacache.solver.replay.fitted_weights import Weights
from easyteacache.solver.replay.predictor_rows import Filling, Rows
from easyteacache.solver.replay.runs import Runs


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
        rows = self._rows.matrix(schedule)
        handed = handed_rows(schedule, weights, rows + np.eye(self._num_steps), self._sizes[:, 0])
        after, missed = np.cumsum(self._sizes * handed, axis=0), self._changes * rows
        errors = np.empty((len(schedule), len(self._state.grams)))
        nothing = errors[:0]
        for position, (computed, step) in enumerate(zip(schedule, [*schedule[1:], self._num_steps], strict=True)):
            gap = slice(computed + 1, step)
            total = after[step - 1]
            off = after[computed] - self._exact[computed]
            known = self._state.arriving(off, total, (), nothing)
            own = self._forecast.arriving(missed[gap].sum(axis=0), total, (), nothing)
            inherited = self._state.arriving(off, total, schedule, errors[:position]) - known
            errors[position] = inherited + np.hypot(known, own)
        return np.asarray(errors[-1])


def handed_rows(schedule: Sequence[int], weights: Weights, filled: Array, sizes: Array) -> Array:
    """What the sampler is handed at every step, as weights of the recorded outputs: the runtime's corrector, driven by rows.

    Args:
        schedule: the computed steps, ascending.
        weights: a row a step, as an operating point holds them.
        filled: (S, S) what every step gives by itself: at a computed step its own output, at a reused one what it is filled with.
        sizes: (S,) Δσ of every step.

    Returns:
        (S, S), a row a step.
    """
    corrector, chosen = Corrector(weights, schedule), frozenset(schedule)
    handed, moved = np.array(filled, dtype=np.float64), np.zeros(len(filled))
    computed: list[int] = []
    for step, size in enumerate(sizes.tolist()):
        correction = corrector.handed(step, size, computed=step in chosen)
        if step in chosen:
            computed.append(step)
        if correction is not None:
            handed[step] = -moved
            handed[step, computed[-len(correction.weights) :]] += correction.weights
            handed[step] /= correction.size
        moved = np.zeros(len(filled)) if step in chosen else moved + size * handed[step]
    return handed
