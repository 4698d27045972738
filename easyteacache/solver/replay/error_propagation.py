"""What the errors of a plan become at the end of a run, from traces alone.

Before step k a plan's state is wrong by Σ_i A[k, i + 1] e_i, A the sampler's map and e_i what was handed over at step i less the exact
output: one quadratic form in the run's Gram matrix, for any deterministic sampler. An output that is computed there repeats a part of that
error (``propagation.responses``), which the states after it inherit by the weight that output has in them. What neighbouring outputs repeat
points the same way, for it is the same error of the state: it adds up with the signs of their weights, and a second-order forecast, whose weights
alternate, hands on little of it. It does not point where the predictions missed, so those two sizes are added.

Against plans sampled end to end on the reference model this ranks plans better than adding up weighted errors did (docs/solver.md),
and it counts fitted plans and plain predictors by one measure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from easyteacache.records.trace import Array
from easyteacache.solver.replay.propagation import View, responses
from easyteacache.solver.replay.runs import Runs

SMALLEST = 1e-12


class Travel:
    """Adds up how errors travel, on one set of runs.

    Args:
        runs: R runs of S steps.
        applied_to: whose Gram matrices the errors are given in, ``residual``, ``feature`` or ``output``; or (R, D, D) of any D quantities.
        view: how outputs answer to disturbances; where it is V views at once, errors are (V, R) instead of (R,), and added up as if at
            right angles: sizes added up count too much, for which named views are taken in part (``propagation.APART``).
    """

    def __init__(self, runs: Runs, applied_to: str | Array, *, view: View = "measured") -> None:
        grams = runs.gram(applied_to) if isinstance(applied_to, str) else applied_to
        #: (R, D, D), so that what the outputs make up of the sample has length 1 in every run.
        self.grams = grams / np.square(runs.displacement)[:, None, None]
        self._flat, self._moves = self.grams.reshape(-1, self.grams.shape[-1]), runs.moves
        self._responses = responses(runs.sigmas, view=view)
        self._squared_responses = np.square(self._responses)
        #: Shape of one state's errors.
        self.shape = (*self._responses.shape[:-1], len(runs))

    def errors(self, missed: Array, handed: Array, schedule: Sequence[int]) -> Array:
        """Size of the final sample's error, (R,) or (V, R).

        Args:
            missed: (S, D) what was handed over at every step less the exact output, as weights of the recorded quantities.
            handed: (S, S) the weights of the computed outputs in what was handed over.
            schedule: the computed steps, ascending, the first of them 0.
        """
        return self.final(self._moves @ missed, self._moves @ handed, schedule)

    def arriving(self, missed: Array, total: Array, computed: Sequence[int], earlier: Array) -> Array:
        """Size of the state's error before a step, (R,) or (V, R).

        Args:
            missed: (D,) what predictions missed so far, Σ A[k, i + 1] e_i, as weights of the recorded quantities.
            total: (S,) weights of the computed outputs in the state.
            computed: the computed steps so far, ascending, the first of them 0.
            earlier: (K, R) or (V, K, R), the squares of their own ``arriving``, from the second computed step on.
        """
        # One matrix for all runs: a search asks for this tens of thousands of times.
        squared = (self._flat @ missed).reshape(len(self.grams), -1) @ missed
        size = np.sqrt(np.maximum(squared, 0.0)) + SMALLEST
        count = earlier.shape[-2]
        if not count:
            return np.broadcast_to(size, self.shape)
        steps = np.array(computed[1 : 1 + count])
        weights = total[steps]
        if self._responses.ndim == 1:
            return np.asarray(size + np.abs((weights * self._responses[steps]) @ np.sqrt(earlier)))
        # What computed outputs repeat of earlier errors points elsewhere every time.
        shares = weights * weights * self._squared_responses[:, steps]
        return np.asarray(np.sqrt(size * size + np.matmul(shares[:, None], earlier)[:, 0]))

    def final(self, missed: Array, totals: Array, schedule: Sequence[int]) -> Array:
        """Size of the final sample's error, (R,) or (V, R), from rows ``missed`` (S + 1, D) and ``totals`` (S + 1, S) of the state before every step."""
        squares = np.empty((*self.shape[:-1], len(schedule), self.shape[-1]))
        for position, step in enumerate((*schedule[1:], len(missed) - 1)):
            arrived = self.arriving(missed[step], totals[step], schedule, squares[..., :position, :])
            squares[..., position, :] = arrived * arrived
        return arrived
