"""The runs of one bucket, stacked: what every replay of a plan works on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from easyteacache.errors import InvalidTrace, NotEnoughTraces
from easyteacache.records.sampler import EULER, euler_map
from easyteacache.records.trace import CROSS, FEATURE_PREFIX, Array
from easyteacache.records.trace_set import GUIDED, OUTPUT_PREFIX, Trace

SAME_SIGMA = 1e-6
#: What a plan may be applied to → the prefix of its Gram matrices in a trace.
PREFIXES = {"residual": "", "output": OUTPUT_PREFIX, "feature": FEATURE_PREFIX}
# Of the largest weight: maps of one sampler, some of which keep noise levels in single precision.
SAME_MAP = 1e-5


@dataclass(frozen=True, eq=False)
class Runs:
    """R runs of S steps that share their noise levels.

    Attributes:
        traces: the runs.
        sigmas: (S + 1,) noise levels, falling.
        timesteps: (S,) what the model is given for them.
        residual: (R, S, S) Gram matrices of the guidance-combined residual.
        output: (R, S, S) of the guidance-combined model output, None where the traces lack it.
        feature: (R, S, S) of the guidance-combined block stack's output before the head, None where the traces lack it.
    """

    traces: tuple[Trace, ...]
    sigmas: Array
    timesteps: Array
    residual: Array
    output: Array | None
    feature: Array | None = None

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
            if trace.sampler_map is not None and first.sampler_map is not None:
                apart = float(np.max(np.abs(trace.sampler_map - first.sampler_map)))
                if apart > SAME_MAP * float(np.max(np.abs(first.sampler_map))):
                    reason = f"its sampler steps otherwise than that of the {first.label}; solve them apart"
                    raise InvalidTrace(trace.label, reason, rule="traces.sampler")
        found = {
            kind: _stacked(traces, [_name(trace, prefix) for trace in traces]) for kind, prefix in PREFIXES.items()
        }
        assert found["residual"] is not None
        return cls(tuple(traces), first.sigmas, first.timesteps, found["residual"], found["output"], found["feature"])

    def __len__(self) -> int:
        return len(self.traces)

    @property
    def num_steps(self) -> int:
        """Steps S."""
        return len(self.timesteps)

    @functools.cached_property
    def map(self) -> Array:
        """(S + 1, S + 1): what the sampler does (``records.sampler``). Runs that hold no map are taken for Euler's."""
        known = next((trace.sampler_map for trace in self.traces if trace.sampler_map is not None), None)
        return euler_map(self.sigmas) if known is None else known

    @property
    def moves(self) -> Array:
        """(S + 1, S): the weight of every output in the state before each step, and in the sample; Euler's are Δσ_i."""
        return self.map[:, 1:]

    @property
    def mapped(self) -> bool:
        """Whether every run says what its sampler does: by its map, or as Euler's of a velocity."""
        return all(trace.sampler_map is not None or _by_euler(trace) for trace in self.traces)

    @functools.cached_property
    def displacement(self) -> Array:
        """‖Σ_j A[S, j + 1] v_j‖, (R,): what the outputs make up of the sample; errors of the final sample are relative to it.

        For flow matching that is how far the sampler moved the noise.
        """
        gram = self.residual if self.output is None else self.output
        squared = np.einsum("i,rij,j->r", self.moves[-1], gram, self.moves[-1])
        return np.asarray(np.sqrt(np.maximum(squared, np.finfo(float).tiny)))

    def transfer_of(self, applied_to: str) -> Array:
        """What an error of the residual or the feature becomes in the output, per step, (S,): ‖change of output‖ / ‖change of it‖.

        Geometric mean over runs of the changes from the step before. The norms themselves have a larger ratio, because the head
        passes on the part of the residual that hardly changes better than the part that does: with them, forecasts of the
        residual looked 1.5 to 2 times worse than they measured.
        """
        if self.output is None or applied_to == "output":
            return np.ones(self.num_steps)
        tiny = np.finfo(float).tiny
        ratio = change_norms(self.output) / np.maximum(change_norms(self.gram(applied_to)), tiny)
        mean = np.exp(np.mean(np.log(np.maximum(ratio, tiny)), axis=0))
        return np.asarray(np.concatenate((mean[:1], mean)))

    def gram(self, applied_to: str) -> Array:
        """(R, S, S) Gram matrices of what a predictor is applied to, ``residual``, ``feature`` or ``output``.

        Raises:
            InvalidTrace: the runs hold none.
        """
        found: Array | None = getattr(self, applied_to)
        if found is None:
            what = "the model's output" if applied_to == "output" else "what leaves the last block"
            reason = f"holds no Gram matrix of {what}; record it again with one"
            raise InvalidTrace(self.traces[0].label, reason, rule="trace.gram")
        return found

    def joint(self, applied_to: str, branches: Sequence[str]) -> Array:
        """(R, BS, BS) Gram matrices of B branches together, one branch's steps after the other's.

        Where a run holds no inner products of two branches, the symmetric part of theirs follows from the Gram matrix of the guided
        stream; the rest, which only the order of steps decides, is left out. Without a guided stream branches are taken to be at right angles.
        """
        prefix = PREFIXES[applied_to]
        return np.stack(
            [np.block([[_product(trace, prefix, a, b) for b in branches] for a in branches]) for trace in self.traces]
        )

    def by_shares(self, branches: Sequence[str]) -> list[tuple[tuple[float, ...], list[int]]]:
        """How ``branches`` enter the guided output v_uncond + g (v_cond − v_uncond), and the positions of the runs where they do so."""
        found: dict[tuple[float, ...], list[int]] = {}
        for position, trace in enumerate(self.traces):
            found.setdefault(tuple(_share(trace, branch) for branch in branches), []).append(position)
        return list(found.items())

    def of_branch(self, branch: str) -> Runs:
        """The same runs with one branch's own Gram matrices instead of those of the guidance-combined streams."""
        found = {kind: _stacked(self.traces, [prefix + branch] * len(self)) for kind, prefix in PREFIXES.items()}
        assert found["residual"] is not None
        return Runs(self.traces, self.sigmas, self.timesteps, found["residual"], found["output"], found["feature"])

    def take(self, indices: Sequence[int]) -> Runs:
        """Some of the runs."""
        chosen = list(indices)
        output, feature = (None if gram is None else gram[chosen] for gram in (self.output, self.feature))
        traces = tuple(self.traces[i] for i in chosen)
        return Runs(traces, self.sigmas, self.timesteps, self.residual[chosen], output, feature)


def change_norms(grams: Array) -> Array:
    """‖r_j − r_{j−1}‖, (R, S − 1)."""
    diagonal = np.diagonal(grams, axis1=1, axis2=2)
    off = np.diagonal(grams, offset=1, axis1=1, axis2=2)
    return np.asarray(np.sqrt(np.maximum(diagonal[:, 1:] + diagonal[:, :-1] - 2.0 * off, 0.0)))


def _by_euler(trace: Trace) -> bool:
    sampler = trace.header.sampler
    return sampler is not None and sampler.name == EULER and sampler.prediction == "velocity"


def _stacked(traces: Sequence[Trace], names: Sequence[str | None]) -> Array | None:
    """(R, S, S) Gram matrices of these names, one a trace; None where one of the traces lacks its own."""
    found = [None if name is None else trace.grams.get(name) for trace, name in zip(traces, names, strict=True)]
    known = [gram for gram in found if gram is not None]
    return np.stack(known) if len(known) == len(found) else None


def _product(trace: Trace, prefix: str, a: str, b: str) -> Array:
    """⟨a_i, b_j⟩, (S, S), as far as the trace says it."""
    first, second = prefix + a, prefix + b
    if a == b:
        return trace.grams[first]
    for name, turned in ((CROSS.join((first, second)), False), (CROSS.join((second, first)), True)):
        if name in trace.grams:
            return trace.grams[name].T if turned else trace.grams[name]
    shares, guided = [_share(trace, branch) for branch in (a, b)], trace.grams.get(prefix + GUIDED)
    if guided is None or not shares[0] * shares[1] or trace.header.guidance_scale is None:
        return np.zeros_like(trace.grams[first])
    own = shares[0] ** 2 * trace.grams[first] + shares[1] ** 2 * trace.grams[second]
    return np.asarray((guided - own) / (2.0 * shares[0] * shares[1]))


def _share(trace: Trace, branch: str) -> float:
    """How a branch enters the guided output v_uncond + g (v_cond − v_uncond)."""
    scale = trace.header.guidance_scale
    if scale is None or set(trace.header.branches) != {"cond", "uncond"}:
        return 1.0
    return scale if branch == "cond" else 1.0 - scale


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
