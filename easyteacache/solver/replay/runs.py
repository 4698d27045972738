"""The runs of one bucket, stacked: what every replay of a plan works on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from easyteacache.errors import InvalidTrace, NotEnoughTraces
from easyteacache.records.trace import Array
from easyteacache.records.trace_set import GUIDED, OUTPUT_PREFIX, Trace

SAME_SIGMA = 1e-6


@dataclass(frozen=True, eq=False)
class Runs:
    """R runs of S steps that share their noise levels.

    Attributes:
        traces: the runs.
        sigmas: (S + 1,) noise levels, falling.
        timesteps: (S,) what the model is given for them.
        residual: (R, S, S) Gram matrices of the guidance-combined residual.
        output: (R, S, S) of the guidance-combined model output, None where the traces lack it.
    """

    traces: tuple[Trace, ...]
    sigmas: Array
    timesteps: Array
    residual: Array
    output: Array | None

    @classmethod
    def stack(cls, traces: Sequence[Trace]) -> Runs:
        """Stack the runs of one setting.

        Raises:
            NotEnoughTraces: none.
            InvalidTrace: the runs differ in their noise levels or Gram matrices.
        """
        if not traces:
            raise NotEnoughTraces(sequence_length=None, runs=0, needed=1)
        first = traces[0]
        for trace in traces:
            if trace.sigmas.shape != first.sigmas.shape or np.max(np.abs(trace.sigmas - first.sigmas)) > SAME_SIGMA:
                raise InvalidTrace(
                    trace.label,
                    f"its noise levels differ from those of the {first.label} though step count and shift agree; "
                    "solve runs of different samplers apart",
                    rule="trace.sigmas",
                )
        has_output = all(_name(trace, OUTPUT_PREFIX) is not None for trace in traces)
        return cls(
            tuple(traces),
            first.sigmas,
            first.timesteps,
            np.stack([trace.grams[_name(trace, "") or ""] for trace in traces]),
            np.stack([trace.grams[_name(trace, OUTPUT_PREFIX) or ""] for trace in traces]) if has_output else None,
        )

    def __len__(self) -> int:
        return len(self.traces)

    @property
    def num_steps(self) -> int:
        """Steps S."""
        return len(self.timesteps)

    @functools.cached_property
    def step_sizes(self) -> Array:
        """σ_{j+1} − σ_j, (S,), negative: what the sampler multiplies the output of step j by."""
        return np.asarray(np.diff(self.sigmas))

    @functools.cached_property
    def displacement(self) -> Array:
        """‖Σ Δσ_j v_j‖, (R,): how far the sampler moved the noise; errors of the final sample are relative to it."""
        gram = self.residual if self.output is None else self.output
        squared = np.einsum("i,rij,j->r", self.step_sizes, gram, self.step_sizes)
        return np.asarray(np.sqrt(np.maximum(squared, np.finfo(float).tiny)))

    @functools.cached_property
    def transfer(self) -> Array:
        """What an error of the residual becomes in the output, per step, (S,): ‖change of output‖ / ‖change of residual‖.

        Geometric mean over runs of the changes from the step before. The norms themselves have a larger ratio, because the head
        passes on the part of the residual that hardly changes better than the part that does: with them, forecasts of the
        residual looked 1.5 to 2 times worse than they measured.
        """
        if self.output is None:
            return np.ones(self.num_steps)
        ratio = change_norms(self.output) / np.maximum(change_norms(self.residual), np.finfo(float).tiny)
        mean = np.exp(np.mean(np.log(np.maximum(ratio, np.finfo(float).tiny)), axis=0))
        return np.asarray(np.concatenate((mean[:1], mean)))

    def gram(self, applied_to: str) -> Array:
        """(R, S, S) Gram matrices of what a forecast is applied to, ``residual`` or ``output``."""
        if applied_to == "residual":
            return self.residual
        if self.output is None:
            raise InvalidTrace(
                self.traces[0].label,
                "holds no Gram matrix of the model's output; record it again with one",
                rule="trace.gram",
            )
        return self.output

    def of_branch(self, branch: str) -> Runs:
        """The same runs with one branch's own Gram matrices instead of those of the guidance-combined streams."""
        output = None
        if all(OUTPUT_PREFIX + branch in trace.grams for trace in self.traces):
            output = np.stack([trace.grams[OUTPUT_PREFIX + branch] for trace in self.traces])
        residual = np.stack([trace.grams[branch] for trace in self.traces])
        return Runs(self.traces, self.sigmas, self.timesteps, residual, output)

    def take(self, indices: Sequence[int]) -> Runs:
        """Some of the runs."""
        chosen = list(indices)
        output = None if self.output is None else self.output[chosen]
        return Runs(tuple(self.traces[i] for i in chosen), self.sigmas, self.timesteps, self.residual[chosen], output)


def change_norms(grams: Array) -> Array:
    """‖r_j − r_{j−1}‖, (R, S − 1)."""
    diagonal = np.diagonal(grams, axis1=1, axis2=2)
    off = np.diagonal(grams, offset=1, axis1=1, axis2=2)
    return np.asarray(np.sqrt(np.maximum(diagonal[:, 1:] + diagonal[:, :-1] - 2.0 * off, 0.0)))


def _name(trace: Trace, prefix: str) -> str | None:
    """The Gram matrix that stands for the whole model: guidance-combined, or the only branch's own."""
    names = [prefix + GUIDED] + ([prefix + trace.header.branches[0]] if len(trace.header.branches) == 1 else [])
    found = next((name for name in names if name in trace.grams), None)
    if found is None and not prefix:
        raise InvalidTrace(
            trace.label,
            f"has {len(trace.header.branches)} branches but no Gram matrix of their combination ({GUIDED!r}): "
            "record it with the guidance scale known",
            rule="trace.gram",
        )
    return found
