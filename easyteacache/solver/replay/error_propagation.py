"""What the errors of a plan become at the end of a run, from traces alone.

Before step j a plan's state is wrong by Σ_{i<j} Δσ_i e_i: what its forecasts missed, one quadratic form in the run's Gram matrix. An output that
is computed there repeats a part of that error (``propagation.responses``), which the states after it inherit by the weight that
output has in them. Sizes are added up along the run, because what a wrong state does to the model's output points elsewhere.

Against plans sampled end to end on the reference model this ranks plans better than adding up weighted errors did (docs/solver.md),
and it counts fitted plans and plain forecasts by one measure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from easyteacache.records.trace import Array
from easyteacache.solver.replay.predictor_rows import Filling, Rows
from easyteacache.solver.replay.propagation import View, responses
from easyteacache.solver.replay.runs import Runs

SMALLEST = 1e-12


class Travel:
    """Adds up how errors travel, on one set of runs.

    Args:
        runs: R runs of S steps.
        applied_to: whose Gram matrices the errors are given in, ``residual`` or ``output``.
        view: how outputs answer to disturbances; where it is V views at once, errors are (V, R) instead of (R,), and added up as if at
            right angles: sizes added up count too much, for which named views are halved (``propagation.APART``).
    """

    def __init__(self, runs: Runs, applied_to: str, *, view: View = "measured") -> None:
        #: (R, S, S), so that how far the sampler moves the noise has length 1 in every run.
        self.grams = runs.gram(applied_to) / np.square(runs.displacement)[:, None, None]
        self._flat = self.grams.reshape(-1, self.grams.shape[-1])
        self._responses = responses(runs.sigmas, view=view)
        #: Shape of one state's errors.
        self.shape = (*self._responses.shape[:-1], len(runs))

    def arriving(self, missed: Array, total: Array, computed: Sequence[int], earlier: Array) -> Array:
        """Size of the state's error before a step, (R,) or (V, R).

        Args:
            missed: (S,) what forecasts missed so far, Σ Δσ_i e_i, as weights of the recorded quantities.
            total: (S,) weights of the computed outputs in the state.
            computed: the computed steps so far, ascending, the first of them 0.
            earlier: (K, R) or (K, V, R), their own ``arriving``, from the second computed step on.
        """
        # One matrix for all runs: a search asks for this tens of thousands of times.
        squared = (self._flat @ missed).reshape(len(self.grams), -1) @ missed
        size = np.sqrt(np.maximum(squared, 0.0)) + SMALLEST
        if not len(earlier):
            return np.broadcast_to(size, self.shape)
        steps = list(computed[1 : 1 + len(earlier)])
        shares = np.abs(total[steps]) * self._responses[..., steps]
        if shares.ndim == 1:
            return np.asarray(size + shares @ earlier)
        # What computed outputs repeat of earlier errors points elsewhere every time.
        return np.asarray(np.sqrt(size**2 + np.square(shares.T[:, :, None] * earlier).sum(axis=0)))

    def final(self, missed: Array, totals: Array, schedule: Sequence[int]) -> Array:
        """Size of the final sample's error, (R,) or (V, R), from (S, S) rows ``missed`` and ``totals`` after every step."""
        errors = np.empty((len(schedule), *self.shape))
        for position, step in enumerate((*schedule[1:], len(missed))):
            errors[position] = self.arriving(missed[step - 1], totals[step - 1], schedule, errors[:position])
        return np.asarray(errors[-1])


class PlainTravel:
    """Predicted errors of schedules filled by one predictor without weights of its own.

    Args:
        runs: R runs of S steps.
        filling: what fills reused steps.
        rows: the filling's error rows on these steps, where somebody has them already.
    """

    def __init__(self, runs: Runs, filling: Filling, *, rows: Rows | None = None) -> None:
        self._travel, self._rows = Travel(runs, filling.applied_to), rows or Rows(filling, runs)
        transfer = runs.transfer if filling.applied_to == "residual" else np.ones(runs.num_steps)
        self._sizes, self._changes = runs.step_sizes[:, None], (runs.step_sizes * transfer)[:, None]

    def errors(self, schedule: Sequence[int]) -> Array:
        """Predicted error of every run's final sample, relative to how far the sampler moved the noise, (R,)."""
        rows = self._rows.matrix(schedule)
        handed = rows + np.eye(len(rows))
        missed = np.cumsum(self._changes * rows, axis=0)
        return self._travel.final(missed, np.cumsum(self._sizes * handed, axis=0), schedule)
