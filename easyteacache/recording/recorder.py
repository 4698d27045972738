"""Record one full, uncached run as a trace while a model samples.

The recorder only reads: it never changes a tensor. Without a sketch it keeps every residual (small models) and its numbers
are exact. With one it keeps, for each step and branch, a short linear sketch of the residual and of the output, and for
mean absolute changes a fixed sample of elements, so that memory does not grow with the model:

    50 steps × 2 branches × 2 sketches × 65,536 float32 = 52 MB, plus 10 MB of samples, for tokens [1, 32760, 5120] bfloat16.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from easyteacache._version import __version__
from easyteacache.errors import InvalidSignal, InvalidTrace, StepOrderError
from easyteacache.recording.gram import inner_products, of_branches
from easyteacache.recording.sketch import CountSketch, Sample, Shard, Sketch, TokenSketch
from easyteacache.records.calibration import TIMESTEP_SIGNALS, Signal
from easyteacache.records.model_identity import ModelIdentity
from easyteacache.records.sampler import SamplerRecord
from easyteacache.records.trace import CROSS, FEATURE_PREFIX, OUTPUT_PREFIX, Array, SketchInfo, Trace, TraceHeader
from easyteacache.runtime.tensor_math import Reduce, relative_l1

SketchChoice = Literal["auto", "count", "tokens"] | None
DIMENSION = 65_536
# Up to here ``auto`` keeps residuals whole: 50 steps of two branches are then at most 210 MB.
LONGEST_KEPT = 262_144
SAMPLE_SIZE = 524_288


@dataclass(slots=True)
class _Series:
    """One quantity along the run: the last value (or a sample of it) and the distances so far."""

    last: Tensor | None = None
    distances: list[float] = field(default_factory=list)

    def add(self, value: Tensor, reduce: Reduce | None) -> None:
        if self.last is not None:
            self.distances.append(relative_l1(value, self.last, reduce=reduce))
        self.last = value


@dataclass(slots=True)
class _Branch:
    """Everything recorded of one branch; rows hold one flat vector per step."""

    timesteps: list[float] = field(default_factory=list)
    signals: dict[str, _Series] = field(default_factory=dict)
    output: _Series = field(default_factory=_Series)
    residual: _Series = field(default_factory=_Series)
    residual_rows: list[Tensor] = field(default_factory=list)
    feature_rows: list[Tensor] = field(default_factory=list)
    output_rows: list[Tensor] = field(default_factory=list)
    pending: tuple[Tensor, Tensor] | None = None


class Recorder:
    """Collects one run, step by step and branch by branch; ``finish`` turns it into a ``Trace``.

    Args:
        signals: names of the signals that will be handed in, each at every step.
        features: keep the block stack's outputs, too, what enters the model's head: half as much memory again, for plans that
            forecast them.
        sketch: None keeps every residual and is exact; ``count`` and ``tokens`` keep a sketch of each (see ``sketch``);
            ``auto`` keeps residuals of up to 262,144 numbers and sketches longer ones by ``count``.
        dimension: numbers kept of each residual and output by a sketch.
        sample: elements that mean absolute changes are taken over when there is a sketch.
        seed: of the sketch and the sample.
        reduce: adds a tensor up over the sequence-parallel group, where every process holds some of the tokens.
        shard: which tokens this process holds, or how that follows from their number; goes with ``reduce``.
        order: branches that come first in the trace, in this order, whichever of them ran first.

    Raises:
        ValueError: only one of ``reduce`` and ``shard``, or a size below 1.
    """

    def __init__(
        self,
        *,
        signals: Sequence[Signal] = (),
        features: bool = False,
        sketch: SketchChoice = None,
        dimension: int = DIMENSION,
        sample: int = SAMPLE_SIZE,
        seed: int = 0,
        reduce: Reduce | None = None,
        shard: Shard | Callable[[int], Shard] | None = None,
        order: Sequence[str] = (),
    ) -> None:
        if min(dimension, sample) < 1:
            raise ValueError(f"dimension and sample are {dimension} and {sample}; expected 1 or more")
        if (reduce is None) != (shard is None):
            raise ValueError("recording over several processes needs both reduce and shard")
        self.signals = tuple(signals)
        self._features = features
        self._dimension, self._size, self._seed = dimension, sample, seed
        self._choice: SketchChoice = sketch
        self._sketch: Sketch | None = None
        self._sample: Sample | None = None
        self._reduce, self._find_shard = reduce, shard
        self._shard: Shard | None = None
        self._branches: dict[str, _Branch] = {}
        self._order = tuple(order)
        self._shape: tuple[int, int, int] = (0, 0, 0)
        self._output_shape: torch.Size | None = None
        self._local_length = self._sequence_length = 0
        self._dtype = torch.float32

    @property
    def nbytes(self) -> int:
        """Bytes of tensors held at this moment."""
        held: dict[int, int] = {}
        for branch in self._branches.values():
            tensors = [*branch.residual_rows, *branch.feature_rows, *branch.output_rows, *(branch.pending or ())]
            series = (*branch.signals.values(), branch.output, branch.residual)
            tensors += [one.last for one in series if one.last is not None]
            held |= {tensor.data_ptr(): tensor.nbytes for tensor in tensors}
        return sum(held.values())

    def steps(self, branch: str) -> int:
        """Steps begun so far in ``branch``."""
        return len(self._branches[branch].timesteps) if branch in self._branches else 0

    def begin(
        self,
        step: int,
        *,
        branch: str = "cond",
        timestep: float,
        block_input: Tensor,
        sequence_length: int | None = None,
    ) -> None:
        """A step's blocks are about to run.

        Args:
            step: zero-based position in this branch, each exactly once and in order.
            branch: ``cond``, ``uncond``, …
            timestep: noise level handed to the model.
            block_input: ``(B, L, D)`` what enters the first block.
            sequence_length: tokens of the generated stream on all processes, where that is not L.

        Raises:
            StepOrderError: the step is not the next one, or the last one never ended.
            InvalidSignal: ``block_input`` is not three-dimensional, or of another shape than before, in this branch or another one: what
                stands at different places cannot be compared.
        """
        state = self._branches.setdefault(branch, _Branch())
        if step != len(state.timesteps) or len(state.residual_rows) != step:
            raise StepOrderError(
                f"step {step} of branch {branch!r} begins after {len(state.timesteps)} begun and "
                f"{len(state.residual_rows)} ended ones; record every step of an uncached run once, in order"
            )
        if block_input.dim() != 3:
            raise InvalidSignal(
                "block_input", f"has shape {tuple(block_input.shape)}; expected (batch, tokens, channels)"
            )
        if not self._local_length:
            self._prepare(block_input)
            self._sequence_length = sequence_length or self._shape[1]
        shape = (self._shape[0], self._local_length, self._shape[2])
        if tuple(block_input.shape) != shape:
            raise InvalidSignal(
                "block_input",
                f"has shape {tuple(block_input.shape)}; {shape} was seen before, and only runs of one shape can be recorded",
            )
        state.timesteps.append(float(timestep))
        state.pending = self._project(block_input)

    def observe_signal(self, name: Signal, value: Tensor, *, branch: str = "cond") -> None:
        """A signal of the step that has begun.

        Args:
            name: one of ``signals``.
            value: ``(B, …)`` the signal.
            branch: as in ``begin``.

        Raises:
            InvalidSignal: the recorder was not told of this signal, or its shape changed during the run.
        """
        if name not in self.signals:
            raise InvalidSignal(name, f"is not one of the signals being recorded ({', '.join(self.signals) or 'none'})")
        series = self._begun(branch).signals.setdefault(name, _Series())
        # Signals that follow from the timestep are whole on every process, the others hold its share of the tokens.
        shard = None if name in TIMESTEP_SIGNALS else self._shard
        sampled = value.detach().clone() if self._sample is None else self._sample(value, shard)
        series.add(sampled, self._reduce)

    def end(self, block_output: Tensor, *, branch: str = "cond") -> None:
        """The step's blocks have run and gave ``block_output`` ``(B, L, D)``.

        Raises:
            StepOrderError: no step has begun in this branch.
        """
        state = self._begun(branch)
        assert state.pending is not None
        row_before, sample_before = state.pending
        row, sample = self._project(block_output)
        state.output.add(sample, self._reduce)
        residual = row - row_before
        state.residual_rows.append(residual)
        if self._features:
            state.feature_rows.append(row)
        state.residual.add(residual if sample is row else sample - sample_before, self._reduce)
        state.pending = None

    def observe(
        self,
        step: int,
        *,
        branch: str = "cond",
        timestep: float,
        signals: Mapping[Signal, Tensor],
        block_input: Tensor,
        block_output: Tensor,
    ) -> None:
        """``begin``, ``observe_signal`` for each signal, and ``end`` at once."""
        self.begin(step, branch=branch, timestep=timestep, block_input=block_input)
        for name, value in signals.items():
            self.observe_signal(name, value, branch=branch)
        self.end(block_output, branch=branch)

    def observe_output(self, step: int, *, branch: str = "cond", output: Tensor) -> None:
        """The model's final output at ``step``: ``(B, C, …)`` or ``(B, L, D)``, whole on every process.

        Raises:
            StepOrderError: ``step`` is not the last step that ended in this branch, or was observed before.
            InvalidSignal: the output is of another shape than before, in this branch or another one.
        """
        state = self._branches.get(branch, _Branch())
        if not len(state.residual_rows) == step + 1 == len(state.output_rows) + 1:
            raise StepOrderError(f"the output of step {step} of branch {branch!r} does not follow the end of that step")
        self._output_shape = self._output_shape or output.shape
        if output.shape != self._output_shape:
            shapes = f"has shape {tuple(output.shape)}; {tuple(self._output_shape)} was seen before"
            raise InvalidSignal("output", f"{shapes}, and only runs of one shape can be recorded")
        state.output_rows.append(output.detach().flatten().clone() if self._sketch is None else self._sketch(output))

    def finish(
        self,
        *,
        model_key: str,
        sigmas: Sequence[float],
        guidance_scale: float | None = None,
        prompt: str | None = None,
        publish_prompt: bool = True,
        model: ModelIdentity | None = None,
        sampler: SamplerRecord | None = None,
        sampler_map: Array | None = None,
        **fields: Any,
    ) -> Trace:
        """The trace of everything observed.

        Args:
            model_key: ``family/variant[/part]``.
            sigmas: ``(S + 1,)`` noise levels from first to last, strictly falling.
            guidance_scale: g of v_uncond + g (v_cond − v_uncond); with both branches it adds the guided Grams.
            prompt: text of the run; its hash is always stored.
            publish_prompt: store the text, too.
            model: which model ran; its number type is added where it is not said.
            sampler: the sampler of the run.
            sampler_map: ``(S + 1, S + 1)`` what that sampler does; None where nobody measured it.
            **fields: any other field of ``TraceHeader`` that the recorder cannot know itself.

        Raises:
            StepOrderError: the branches did not run the same steps, or a step never ended.
            InvalidSignal: a signal was not observed at every step.
            InvalidTrace: the numbers or the header break a rule, for example a residual with NaN.
        """
        steps = self._check_complete()
        first = [name for name in self._order if name in self._branches]
        self._branches = {name: self._branches[name] for name in dict.fromkeys((*first, *self._branches))}
        rows = self._complete([row for branch in self._branches.values() for row in branch.residual_rows])
        # Outputs are whole on every process, what the blocks see is not.
        reduce = self._reduce if self._sketch is None else None
        grams = self._grams(rows, guidance_scale, reduce)
        if self._features:
            features = self._complete([row for branch in self._branches.values() for row in branch.feature_rows])
            of_feature = self._grams(features, guidance_scale, reduce)
            grams |= {_prefixed(FEATURE_PREFIX, name): gram for name, gram in of_feature.items()}
        if all(branch.output_rows for branch in self._branches.values()):
            outputs = [row for branch in self._branches.values() for row in branch.output_rows]
            of_output = self._grams(outputs, guidance_scale, None)
            grams |= {_prefixed(OUTPUT_PREFIX, name): gram for name, gram in of_output.items()}
        dtype = str(self._dtype).removeprefix("torch.")
        model = ModelIdentity(dtype=dtype) if model is None else model
        known = {
            "model_key": model_key,
            "signals": self.signals,
            "branches": tuple(self._branches),
            "num_steps": steps,
            "batch_size": self._shape[0],
            "sequence_length": self._sequence_length,
            "guidance_scale": guidance_scale,
            "model": model if model.dtype else model.model_copy(update={"dtype": dtype}),
            "sampler": sampler,
            "prompt": prompt if publish_prompt else None,
            "prompt_sha256": None if prompt is None else hashlib.sha256(prompt.encode()).hexdigest(),
            "sketch": self._sketch_info(torch.stack(rows[:steps])),
            "tool_version": __version__,
            "recorded_at": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        }
        return self._trace(_header({**known, **fields}), sigmas, grams, sampler_map)

    def _grams(self, rows: Sequence[Tensor], guidance_scale: float | None, reduce: Reduce | None) -> dict[str, Array]:
        products = inner_products(rows, reduce=reduce)
        return of_branches(products, tuple(self._branches), guidance_scale=guidance_scale)

    def _prepare(self, block_input: Tensor) -> None:
        batch, self._local_length, channels = block_input.shape
        self._shard = self._find_shard(self._local_length) if callable(self._find_shard) else self._find_shard
        self._shape = (batch, self._shard.total if self._shard else self._local_length, channels)
        self._dtype = block_input.dtype
        if self._choice == "auto":
            self._choice = "count" if math.prod(self._shape) > LONGEST_KEPT else None
        if self._choice is not None:
            self._sketch = (CountSketch if self._choice == "count" else TokenSketch)(self._dimension, seed=self._seed)
            self._sample = Sample(self._size, seed=self._seed)

    def _begun(self, branch: str) -> _Branch:
        state = self._branches.get(branch)
        if state is None or state.pending is None:
            raise StepOrderError(f"no step of branch {branch!r} has begun; call begin first")
        return state

    def _project(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """(row for the Gram, sample for distances); without a sketch one copy of the tensor serves as both."""
        if self._sketch is None or self._sample is None:
            copy = tensor.detach().flatten().clone()
            return copy, copy
        return self._sketch(tensor, self._shard), self._sample(tensor, self._shard)

    def _check_complete(self) -> int:
        if not self._branches:
            raise StepOrderError("nothing was recorded: no step of any branch was observed")
        counts = {name: len(branch.residual_rows) for name, branch in self._branches.items()}
        steps = max(counts.values())
        if min(counts.values()) < steps or any(self.steps(name) != steps for name in counts):
            raise StepOrderError(f"the branches ended different numbers of steps: {counts}; was the run interrupted?")
        for name, branch in self._branches.items():
            if len(branch.output_rows) not in (0, steps):
                raise StepOrderError(f"{len(branch.output_rows)} outputs but {steps} steps of branch {name!r}")
            for signal in self.signals:
                seen = len(branch.signals[signal].distances) + 1 if signal in branch.signals else 0
                if seen != steps:
                    raise InvalidSignal(signal, f"was observed at {seen} of {steps} steps of branch {name!r}")
        return steps

    def _complete(self, rows: list[Tensor]) -> list[Tensor]:
        """Sketches of what the blocks see, added up over the processes; whole rows stay apart."""
        if self._sketch is not None and self._reduce is not None:
            return list(self._reduce(torch.stack(rows)))
        return rows

    def _sketch_info(self, rows: Tensor) -> SketchInfo | None:
        if self._sketch is None or self._choice not in ("count", "tokens"):
            return None
        error = self._sketch.relative_error(rows, shape=self._shape)
        return SketchInfo(kind=self._choice, dimension=self._dimension, seed=self._seed, relative_error=error)

    def _trace(
        self, header: TraceHeader, sigmas: Sequence[float], grams: dict[str, Array], sampler_map: Array | None
    ) -> Trace:
        branches = self._branches
        return Trace(
            header=header,
            timesteps=np.array(next(iter(branches.values())).timesteps),
            sigmas=np.asarray(sigmas, dtype=np.float64),
            signal_distances={
                signal: {name: np.array(branch.signals[signal].distances) for name, branch in branches.items()}
                for signal in self.signals
            },
            output_distances={name: np.array(branch.output.distances) for name, branch in branches.items()},
            residual_distances={name: np.array(branch.residual.distances) for name, branch in branches.items()},
            grams=grams,
            sampler_map=sampler_map,
        )


def _prefixed(prefix: str, name: str) -> str:
    """``cond*uncond`` → ``output:cond*output:uncond``: both names of a pair are of the same kind."""
    return CROSS.join(prefix + one for one in name.split(CROSS))


def _header(fields: dict[str, Any]) -> TraceHeader:
    try:
        return TraceHeader(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "header"
        raise InvalidTrace("header", f"{where}: {first['msg']}", rule="trace.header") from error
