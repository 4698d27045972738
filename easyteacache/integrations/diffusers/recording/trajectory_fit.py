"""Fit a plan's weights to what the plan itself computes, while it samples all runs of a batch with a deterministic sampler.

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

from easyteacache.errors import AttachError
from easyteacache.records.trace import Array
from easyteacache.runtime.corrector import Corrector, TensorSums
from easyteacache.runtime.sampler_steps import Ahead, SamplerSteps

Row = tuple[float, ...]
# Of each output's mean square: how firmly weights hold to those they start from. With a thousandth of it 15 runs' noise is fitted.
RIDGE = 1e-3
# Runs far off weigh less in every round, so that the typical run decides and not the worst; more rounds change nothing.
ROUNDS = 4
# Of the median run's square: nothing weighs more than a run this near.
NEAREST = 1e-3


class Refit:
    """What a sampler is handed at every step of one plan, and the weights that say so.

    Args:
        exact: (S + 1) states of the uncached runs, each (R, ...), the noise first; None: nothing is fitted, ``start`` is followed.
        sampler_map: (S + 1, S + 1) what the sampler does (``records.sampler``).
        schedule: the computed steps, ascending, beginning with 0.
        start: a row of weights for every step, of the computed outputs up to it, oldest first: where the fit starts from.
        fills: the weights fill reused steps, too; otherwise whatever the pipeline gives there is taken as it is.

    Raises:
        AttachError: the map is of no sampler with a short memory.
    """

    def __init__(
        self,
        exact: Sequence[Tensor] | None,
        sampler_map: Array,
        schedule: Sequence[int],
        start: Sequence[Row],
        *,
        fills: bool,
    ) -> None:
        steps = SamplerSteps.of(sampler_map)
        if steps is None:
            raise AttachError("no short memory explains this sampler's steps; measure with a common multistep sampler")
        self._exact, self._sampler, self._map, self._schedule = exact, steps, sampler_map, frozenset(schedule)
        self._start = [tuple(row) for row in start]
        self._corrector = Corrector[Tensor](
            start, schedule, TensorSums(), fills=fills, refine=None if exact is None else self._refined
        )
        #: (R,) every run counts by its error relative to how far the sampler moves its noise.
        self._scale = np.ones(0) if exact is None else _scale(exact[-1] - exact[0])
        #: The noise, and the next states from what was handed over, were nothing more.
        self._noise: Tensor | None = None
        self._ahead: Ahead[Tensor] = Ahead(TensorSums().add)
        #: One a step so far, as a calibration holds them.
        self.rows: list[Row] = []

    def handed(self, step: int, output: Tensor, state: Tensor) -> Tensor:
        """What the sampler takes instead of ``output`` at ``state``, both (R, ...); steps come one after the other."""
        if self._noise is None:
            self._noise = state.detach().cpu().float()
        kept = output.detach().cpu()
        found = self._corrector.handed(step, kept, self._sampler, computed=step in self._schedule)
        if len(self.rows) == step:
            # Nothing was fitted here.
            self.rows.append(self._start[step])
        if self._exact is not None:
            # ``_refined`` looked at what was handed over before this step.
            self._ahead.add(self._sampler.moves[step], found.float())
            if step + 1 < len(self._sampler):
                self._ahead.advance(self._sampler.follows[step + 1])
        return output if found is kept else found.to(output.device)

    def _refined(self, step: int, size: float, wanted: list[float]) -> list[float]:
        """Weights that bring the state after ``step`` nearest to the uncached runs', instead of the plan's; a row that says so."""
        assert self._exact is not None
        reach = len(self._start[step])
        beyond, start = wanted[: len(wanted) - reach], np.asarray(wanted[len(wanted) - reach :])
        total = self._nearest(step, start, beyond)
        own = np.asarray(self._start[step]) + (total - start) / size
        self.rows.append(tuple(float(f"{weight:.8g}") for weight in own))
        return [*beyond, *(float(weight) for weight in total)]

    def _base(self, step: int, beyond: Sequence[float]) -> tuple[int, Tensor]:
        """The state that is put right, and what it is without the outputs that a row of ``step`` reaches.

        Without a memory every state is right once the next one is. With one it is the state that the model sees next that counts, the steps
        up to it predicted by their rows.

        Args:
            step: the step that is corrected.
            beyond: weights of the older outputs at hand, which stay as they are.
        """
        assert self._noise is not None
        steps, outputs = self._sampler, self._corrector.outputs
        state = step + 1 if steps.memory == 1 else self._corrector.next_seen(step, len(steps))
        reaching = steps.reaching(step, state)
        base = self._noise * float(self._map[state, 0])
        for part, sign in ((self._ahead.sum(reaching), 1.0), (self._corrector.moved(reaching), -1.0)):
            base = base if part is None else base + sign * part
        for weight, output in zip(beyond, outputs, strict=False):
            base = base + weight * output
        for reused in range(step + 1, state):
            row = self._start[reused]
            for weight, output in zip(row, outputs[-len(row) :], strict=True):
                base = base + float(self._map[state, reused + 1]) * weight * output
        return state, base

    def _nearest(self, step: int, wanted: Array, beyond: Sequence[float]) -> Array:
        """Weights of the last outputs with which a state comes nearest, for the typical run; ``wanted`` where it does not say.

        Args:
            step: the step that is corrected.
            wanted: weights of the outputs that a row reaches, to start from.
            beyond: weights of the older outputs at hand, which stay as they are.
        """
        assert self._exact is not None
        state, base = self._base(step, beyond)
        outputs, target = self._corrector.outputs[len(beyond) :], self._exact[state]
        grams, inner, squares = [], [], []
        for run, scale in enumerate(self._scale):
            held = torch.stack([output[run].flatten() for output in outputs]).double().numpy() * scale
            missing = (target[run] - base[run]).flatten().double().numpy() * scale - wanted @ held
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
