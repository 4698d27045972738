"""Fit what the sampler is handed at every step of a schedule, computed steps included, by least squares on traces.

The state before step k is Σ_i A[k, i + 1] v_i beside the noise, A the map of the sampler (``records.sampler``). From the outputs v_k
computed so far, the best that can be said about it is C_k = argmin_c E‖Σ_i A[k, i + 1] v_i − Σ_k c_k v_k‖², a few unknowns in the runs' Gram
matrix. The model sees the states of computed steps alone. So at a reused step the sampler is handed a prediction, and at a computed one the
output *plus a correction*, which brings the state of the next computed step to its C, for all that the sampler's memory makes of what it was
handed before. That makes good what predictions got wrong, and costs no forward. Extrapolating and then correcting with the new value is what predictor-corrector solvers do
(UniPC, arXiv 2302.04867); here the weights are not those of a polynomial but those that recorded runs ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from easyteacache.errors import InvalidTrace
from easyteacache.records.trace import Array
from easyteacache.runtime.sampler_steps import LEAST_MOVE, SamplerSteps
from easyteacache.solver.replay.error_propagation import Travel
from easyteacache.solver.replay.gate_replay import Schedule
from easyteacache.solver.replay.propagation import View
from easyteacache.solver.replay.runs import Runs

Weights = tuple[tuple[float, ...], ...]
#: Computed outputs that a step looks at, the step's own included: a fourth was worth 3 dB on the reference model, a fifth nothing.
HISTORY = 4
# Of the mean diagonal: keeps the solution of nearly parallel outputs small.
RIDGE = 1e-6


def correctable(runs: Runs) -> bool:
    """Whether these runs say what the fit needs: the model's output, and the map of a sampler with a short memory."""
    return runs.output is not None and runs.mapped and SamplerSteps.of(runs.map) is not None


@dataclass(frozen=True, eq=False)
class _Arrival:
    """The state before a step, for one beginning of a schedule.

    Attributes:
        total: (S,) C_j, the weights of all outputs computed before the step.
        error: (R,) or (V, R), size of the state's error before the step, relative to how far the sampler moves the noise.
        squares: (K, R) or (V, K, R), the squares of that before every computed step but the first, and last before the step itself.
    """

    total: Array
    error: Array
    squares: Array


class StateFit:
    """Fits schedules on one set of runs, and predicts what they do there.

    Args:
        runs: R runs of S steps, with the Gram matrices of the guided output; ``correctable`` holds for them.
        view: how errors travel; where it is V views at once, predicted errors are (V, R) instead of (R,).
    """

    def __init__(self, runs: Runs, *, view: View = "measured") -> None:
        self.num_steps = runs.num_steps
        self._travel = Travel(runs, "output", view=view)
        self._mean = np.asarray(self._travel.grams.mean(axis=0))
        #: (S + 1, S) exact weights of the state before each step, and of the final sample.
        self._exact = runs.moves
        self._least = LEAST_MOVE * float(np.max(np.abs(runs.moves[-1])))
        self._projections: dict[Schedule, Array] = {}
        self._nothing = np.empty((*self._travel.shape[:-1], 0, len(runs)))
        self._arrivals: dict[tuple[Schedule, int], _Arrival] = {}

    def weights(self, schedule: Sequence[int]) -> Weights:
        """One row a step: weights of the last computed outputs, oldest first, the step's own last where it is computed.

        At a reused step they predict its output. At a computed one they put the state right that the model sees next: the sampler is handed
        what its memory makes of the steps before, those after it predicted.
        """
        handed, rows = np.zeros((self.num_steps, self.num_steps)), list[tuple[float, ...]]()
        computed: list[int] = []
        for step, end in zip(schedule, (*schedule[1:], self.num_steps), strict=True):
            computed.append(step)
            recent = computed[-HISTORY:]
            handed[step, step] = 1.0
            for reused in range(step + 1, end):
                exact = np.zeros(self.num_steps)
                exact[reused] = 1.0
                handed[reused, recent] = self._towards(np.zeros(self.num_steps), recent, exact, 1.0)
            size = self._exact[end, step]
            # Before the first there is nothing to put right.
            if step and abs(size) > self._least:
                missing = self._exact[end] - self._exact[end, :end] @ handed[:end]
                handed[step, recent] += self._projection(tuple(recent)) @ missing / size
            rows += [tuple(_rounded(float(w)) for w in handed[each, recent]) for each in range(step, end)]
        return tuple(rows)

    def errors(self, schedule: Sequence[int]) -> Array:
        """Predicted error of every run's final sample with the weights that are fitted to the schedule, (R,).

        Goes over every gap at once, so that a search can share beginnings; ``errors_of`` with the weights themselves, which are
        fitted step by step, may differ by some percent where outputs are nearly parallel.
        """
        return np.asarray(self._arrive(tuple(schedule), self.num_steps).error)

    def errors_of(self, schedule: Sequence[int], weights: Weights) -> Array:
        """Predicted error of every run's final sample with given weights, relative to what the outputs make up of it, (R,)."""
        totals = self._exact @ matrix(schedule, weights, self.num_steps)
        return self._travel.final(totals - self._exact, totals, schedule)

    def _arrive(self, computed: Schedule, step: int) -> _Arrival:
        """The state before ``step`` when ``computed`` were the computed steps so far; shared by schedules that begin alike."""
        found = self._arrivals.get((computed, step))
        if found is not None:
            return found
        total, earlier = np.zeros(self.num_steps), self._nothing
        if len(computed) > 1:
            before = self._arrive(computed[:-1], computed[-1])
            total, earlier = before.total.copy(), before.squares
        recent = list(computed[-HISTORY:])
        exact = self._exact[step]
        total[recent] += self._towards(total, recent, exact, exact[step - 1])
        own = self._travel.arriving(total - self._exact[step], total, computed, earlier)
        squares = np.concatenate((earlier, (own * own)[..., None, :]), axis=-2)
        found = self._arrivals[computed, step] = _Arrival(total, own, squares)
        return found

    def _towards(self, total: Array, recent: list[int], exact: Array, held: float) -> Array:
        """What to add to the weights of the ``recent`` outputs so that the ``exact`` state is met best; at least ``held`` of the last."""
        missing = exact - total
        missing[recent[-1]] -= held
        change = self._projection(tuple(recent)) @ missing
        change[-1] += held
        return np.asarray(change)

    def _projection(self, recent: Schedule) -> Array:
        """(K, S): from any combination of outputs to the nearest one of the ``recent``, in the mean over runs."""
        found = self._projections.get(recent)
        if found is None:
            gram = self._mean[np.ix_(recent, recent)]
            ridge = RIDGE * np.trace(gram) / len(recent) * np.eye(len(recent))
            found = self._projections[recent] = np.linalg.solve(gram + ridge, self._mean[list(recent)])
        return found

    def forget(self) -> None:
        """Drop what was remembered of beginnings; a long search meets millions."""
        self._arrivals.clear()


def matrix(schedule: Sequence[int], weights: Weights, num_steps: int) -> Array:
    """The rows of ``weights`` at their places, (S, S): what step j hands on is its row times all outputs.

    Raises:
        InvalidTrace: not one row a step.
    """
    if len(weights) != num_steps:
        raise InvalidTrace("weights", f"{len(weights)} rows for runs of {num_steps} steps", rule="trace.steps")
    rows, chosen = np.zeros((num_steps, num_steps)), set(schedule)
    computed: list[int] = []
    for step, row in enumerate(weights):
        computed += [step] if step in chosen else []
        rows[step, computed[-len(row) :]] = row
    return rows


def _rounded(value: float) -> float:
    return float(f"{value:.8g}")
