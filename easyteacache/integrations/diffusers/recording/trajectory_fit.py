"""Fit a plan's weights to what the plan itself computes, while it samples all runs of a batch with an Euler sampler.

Weights from traces assume that every output is the uncached run's. Outputs of a plan are computed on the plan's own states, which are a
little off, and the fewer are computed the more. So at every step that is to be corrected the weights are fitted anew, to the outputs
that the batch really has at that moment, and used at once: each step's weights see what the weights before it did. They hold to
the weights that they start from where the runs do not say otherwise. It is the correction of a sampler's truncation error by few coefficients (PAS, arXiv 2411.06503), found along the trajectory that will be used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from easyteacache.records.trace import Array
from easyteacache.runtime.corrector import CorrectedOutputs, Corrector

Row = tuple[float, ...]
# Of each output's mean square: how firmly weights hold to those they start from. With a thousandth of it 15 runs' noise is fitted.
RIDGE = 1e-3
# Runs far off weigh less in every round, so that the typical run decides and not the worst; more rounds change nothing.
ROUNDS = 4
# Of the median run's square: nothing weighs more than a run this near.
NEAREST = 1e-3


class Refit:
    """What an Euler sampler is handed at every step of one plan, and the weights that say so.

    Args:
        exact: (S + 1) states of the uncached runs, each (R, ...), the noise first; None: nothing is fitted, ``start`` is followed.
        sizes: (S,) σ of the next step − σ of this one.
        schedule: the computed steps, ascending, beginning with 0.
        start: a row of weights for every step, of the computed outputs up to it, oldest first: where the fit starts from.
        fills: the weights fill reused steps, too; otherwise whatever the pipeline gives there is taken as it is.
    """

    def __init__(
        self,
        exact: Sequence[Tensor] | None,
        sizes: Sequence[float],
        schedule: Sequence[int],
        start: Sequence[Row],
        *,
        fills: bool,
    ) -> None:
        self._exact, self._sizes, self._schedule, self._fills = exact, sizes, frozenset(schedule), fills
        self._history = max(len(row) for row in start)
        refine = None if exact is None else self._refined
        self._corrected = CorrectedOutputs(Corrector(start, schedule, fills=fills, refine=refine))
        #: (R,) every run counts by its error relative to how far the sampler moves its noise.
        self._scale = np.ones(0) if exact is None else _scale(exact[-1] - exact[0])
        #: The state after the last corrected step, and Σ Δσ of the steps since then, which held the last output.
        self._base: Tensor | None = None
        self._held = 0.0
        #: One a step so far, as a calibration holds them.
        self.rows: list[Row] = []

    def handed(self, step: int, output: Tensor, state: Tensor) -> Tensor:
        """What the sampler takes instead of ``output`` at ``state``, both (R, ...); steps come one after the other."""
        size, computed = self._sizes[step], step in self._schedule
        if self._base is None:
            self._base = state.detach().cpu().float()
        seen, kept = len(self.rows), output.detach().cpu()
        found = self._corrected.handed(step, kept, size, computed=computed)
        if len(self.rows) == seen:
            # Nothing was fitted here: the first output, or a step that holds the last one.
            self.rows.append(_hold(len(self._corrected.outputs)))
        if computed or self._fills:
            self._base, self._held = None, 0.0
        else:
            self._held += size
        return output if found is kept else found.to(output.device)

    def _refined(self, step: int, size: float, wanted: list[float]) -> list[float]:
        """Weights that bring the state after ``step`` nearest to the uncached runs', instead of the plan's; a row that says so."""
        assert self._exact is not None
        # A weight of an output that a row has no place for goes to the oldest that it has.
        dropped = len(wanted) - self._history
        start = np.asarray(wanted if dropped <= 0 else [sum(wanted[: dropped + 1]), *wanted[dropped + 1 :]])
        total = self._nearest(self._corrected.outputs[-len(start) :], start, self._exact[step + 1])
        own = total / size
        if self._held:
            own[-2] -= self._held / size
        self.rows.append(tuple(float(f"{weight:.8g}") for weight in own))
        return [0.0] * (len(wanted) - len(total)) + [float(weight) for weight in total]

    def _nearest(self, outputs: Sequence[Tensor], wanted: Array, target: Tensor) -> Array:
        """Weights of ``outputs`` with which the state comes nearest to ``target``, for the typical run; ``wanted`` where it does not say."""
        assert self._base is not None
        grams, inner, squares = [], [], []
        for run, scale in enumerate(self._scale):
            held = torch.stack([output[run].flatten() for output in outputs]).double().numpy() * scale
            missing = (target[run] - self._base[run]).flatten().double().numpy() * scale - wanted @ held
            grams.append(held @ held.T)
            inner.append(held @ missing)
            squares.append(float(missing @ missing))
        gram, toward, left = np.stack(grams), np.stack(inner), np.array(squares)
        if not (np.isfinite(gram).all() and np.isfinite(toward).all()):
            # The sample is lost, and will be seen to be.
            return wanted
        shares, change = np.ones(len(gram)), np.zeros(len(wanted))
        for _ in range(ROUNDS):
            mean = np.einsum("r,rij->ij", shares, gram)
            change = np.linalg.lstsq(mean + RIDGE * np.diag(np.diag(mean)), shares @ toward, rcond=None)[0]
            squares_now = left - 2.0 * toward @ change + np.einsum("i,rij,j->r", change, gram, change)
            shares = 1.0 / np.maximum(squares_now, max(NEAREST * float(np.median(squares_now)), np.finfo(float).tiny))
            shares /= shares.max()
        return np.asarray(wanted + change)


def _scale(moved: Tensor) -> Array:
    sizes = moved.flatten(1).double().norm(dim=1)
    return np.asarray((1.0 / sizes.clamp_min(torch.finfo(torch.double).tiny)).numpy())


def _hold(count: int) -> Row:
    return (*(0.0 for _ in range(count - 1)), 1.0)
