"""Fit what the sampler is handed at every step of a schedule, computed steps included, by least squares on traces.

The state before step k is Σ_i A[k, i + 1] v_i beside the noise, A the map of the sampler (``records.sampler``). From the outputs v_k
computed so far, the best that can be said about it is C_k = argmin_c E‖Σ_i A[k, i + 1] v_i − Σ_k c_k v_k‖², a few unknowns in the runs' Gram
matrix. What the sampler is handed at step k is then what brings its next state to C_{k+1}, for all that its memory makes of what it was handed
before. At a reused step that is a prediction; at a computed one it is the output *plus a correction* of what the predictions since the last
computed step got wrong, which costs no forward. Extrapolating and then correcting with the new value is what predictor-corrector solvers do
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
    """Whether these runs say what the fit needs: the model's output, and the map of a sampler whose every output moves its next state."""
    if runs.output is None or not runs.mapped:
        return False
    steps = SamplerSteps.of(runs.map)
    # What is handed over last need not count: some multistep samplers end on what they remember.
    return steps is not None and all(steps.corrects[:-1])


@dataclass(frozen=True, eq=False)
class _Arrival:
    """The state before a step, for one beginning of a schedule.

    Attributes:
        total: (S,) C_j, the weights of all outputs computed before the step.
        errors: (K, R) or (K, V, R), size of the state's error before every computed step but the first, and last before the step itself; relative to
            how far the sampler moves the noise.
    """

    total: Array
    errors: Array


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
        self._projections: dict[Schedule, Array] = {}
        self._nothing = np.empty((0, *self._travel.shape))
        self._arrivals: dict[tuple[Schedule, int], _Arrival] = {}

    def weights(self, schedule: Sequence[int]) -> Weights:
        """One row a step: weights of the last computed outputs, oldest first, the step's own last where it is computed."""
        handed, rows = np.zeros((self.num_steps, self.num_steps)), list[tuple[float, ...]]()
        computed: list[int] = []
        chosen = set(schedule)
        for step in range(self.num_steps):
            computed += [step] if step in chosen else []
            recent = computed[-HISTORY:]
            row = self._row(step, recent, handed)
            handed[step, recent] = row
            rows.append(tuple(_rounded(float(w)) for w in row))
        return tuple(rows)

    def _row(self, step: int, recent: list[int], handed: Array) -> Array:
        """The weights of the ``recent`` outputs that bring the next state nearest, after ``handed`` (S, S) at the steps before."""
        size = self._exact[step + 1, step]
        if abs(size) <= LEAST_MOVE * np.max(np.abs(self._exact[-1])):
            # It moves nothing: the last output is as good as any.
            return np.eye(len(recent))[-1]
        before = self._exact[step + 1, :step] @ handed[:step]
        return self._towards(before, recent, self._exact[step + 1], size) / size

    def errors(self, schedule: Sequence[int]) -> Array:
        """Predicted error of every run's final sample with the weights that are fitted to the schedule, (R,).

        Goes over every gap at once, so that a search can share beginnings; ``errors_of`` with the weights themselves, which are
        fitted step by step, may differ by some percent where outputs are nearly parallel.
        """
        return np.asarray(self._arrive(tuple(schedule), self.num_steps).errors[-1])

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
            total, earlier = before.total.copy(), before.errors
        recent = list(computed[-HISTORY:])
        exact = self._exact[step]
        total[recent] += self._towards(total, recent, exact, exact[step - 1])
        own = self._travel.arriving(total - self._exact[step], total, computed, earlier)
        errors = np.concatenate((earlier, own[None]))
        found = self._arrivals[computed, step] = _Arrival(total, errors)
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
