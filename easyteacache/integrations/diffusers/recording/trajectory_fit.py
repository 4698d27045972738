"""Fit a plan's weights to what the plan itself computes, while it samples all runs of a batch with an Euler sampler.

Weights from traces assume that every output is the uncached run's. Outputs of a plan are computed on the plan's own states, which are a
little off, and the fewer are computed the more. So at every step that is to be corrected the weights are fitted anew, to the outputs
that the batch really has at that moment, and used at once: each step's weights see what the weights before it did. They hold to
the weights that they start from where the runs do not say otherwise. It is the correction of a sampler's truncation error by few coefficients (PAS, arXiv 2411.06503), found along the trajectory that will be used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
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
        self._start = start
        #: (R,) every run counts by its error relative to how far the sampler moves its noise.
        self._scale = np.ones(0) if exact is None else _scale(exact[-1] - exact[0])
        self._outputs: deque[Tensor] = deque(maxlen=max(len(row) for row in start))
        #: The state after the last corrected step, and what the steps since then weigh by ``start`` and by holding the last output.
        self._base: Tensor | None = None
        self._wanted: Array = np.zeros(0)
        self._held = 0.0
        #: One a step so far, as a calibration holds them.
        self.rows: list[Row] = []

    def handed(self, step: int, output: Tensor, state: Tensor) -> Tensor:
        """What the sampler takes instead of ``output`` at ``state``, both (R, ...); steps come one after the other."""
        size, computed = self._sizes[step], step in self._schedule
        if computed:
            self._append(output.detach().cpu())
        if self._base is None:
            self._base = state.detach().cpu().float()
        row = self._start[step]
        self._wanted[len(self._wanted) - len(row) :] += size * np.asarray(row)
        if not computed and not self._fills:
            self._held += size
            self.rows.append(_hold(len(self._outputs)))
            return output
        if computed and len(self._outputs) == 1:
            self._next(_hold(1))
            return output
        total = self._wanted if self._exact is None else self._nearest(self._exact[step + 1])
        own = total / size
        if self._held:
            own[-2] -= self._held / size
        moved = self._base + sum(float(w) * held.float() for w, held in zip(total, self._outputs, strict=True))
        self._next(tuple(float(f"{weight:.8g}") for weight in own))
        return ((moved.to(state.device) - state.float()) / size).to(output.dtype)

    def _append(self, output: Tensor) -> None:
        full = len(self._outputs) == self._outputs.maxlen
        # A weight of an output that is dropped goes to the oldest that is kept.
        kept = self._wanted[1:] if full else self._wanted
        if full and len(kept):
            kept = kept + np.eye(len(kept))[0] * self._wanted[0]
        self._outputs.append(output)
        self._wanted = np.append(kept, 0.0)

    def _next(self, row: Row) -> None:
        self.rows.append(row)
        self._base, self._held, self._wanted = None, 0.0, np.zeros(len(self._outputs))

    def _nearest(self, target: Tensor) -> Array:
        """Weights of the outputs with which the state comes nearest to ``target``, for the typical run."""
        assert self._base is not None
        grams, inner, squares = [], [], []
        for run, scale in enumerate(self._scale):
            held = torch.stack([output[run].flatten() for output in self._outputs]).double().numpy() * scale
            missing = (target[run] - self._base[run]).flatten().double().numpy() * scale - self._wanted @ held
            grams.append(held @ held.T)
            inner.append(held @ missing)
            squares.append(float(missing @ missing))
        gram, toward, left = np.stack(grams), np.stack(inner), np.array(squares)
        if not (np.isfinite(gram).all() and np.isfinite(toward).all()):
            # The sample is lost, and will be seen to be.
            return self._wanted
        shares, change = np.ones(len(gram)), np.zeros(len(self._wanted))
        for _ in range(ROUNDS):
            mean = np.einsum("r,rij->ij", shares, gram)
            change = np.linalg.lstsq(mean + RIDGE * np.diag(np.diag(mean)), shares @ toward, rcond=None)[0]
            squares_now = left - 2.0 * toward @ change + np.einsum("i,rij,j->r", change, gram, change)
            shares = 1.0 / np.maximum(squares_now, max(NEAREST * float(np.median(squares_now)), np.finfo(float).tiny))
            shares /= shares.max()
        return np.asarray(self._wanted + change)


def _scale(moved: Tensor) -> Array:
    sizes = moved.flatten(1).double().norm(dim=1)
    return np.asarray((1.0 / sizes.clamp_min(torch.finfo(torch.double).tiny)).numpy())


def _hold(count: int) -> Row:
    return (*(0.0 for _ in range(count - 1)), 1.0)
