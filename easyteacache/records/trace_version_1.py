"""Version 1 of a trace's header, as it was released, and how this release reads it.

A run keeps the version it was recorded in: its id is the hash of what the recorder wrote, so reading it, merging it and
saving it again changes neither the id nor what the file says of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from easyteacache.records.fields import Branch, Count, IsoDate, LongText, ModelKey, Record, Sha256, ShortText
from easyteacache.records.model_identity import ModelIdentity
from easyteacache.records.sampler import EULER, SamplerRecord
from easyteacache.records.trace_header import MAX_STEPS, SketchInfo, TraceHeader, check_names, identity_of
from easyteacache.records.version_2 import Signal2

_MOVED = {"trace_version", "checkpoint", "sampler", "prediction", "dtype"}


class TraceHeader1(Record):
    """What produced one run; together with the numbers it is what the run's hash is taken over."""

    trace_version: Literal[1] = Field(default=1, description="Version of the trace format.")
    model_key: ModelKey = Field(description="Hierarchical name of the model, `family/variant[/part]`.")
    checkpoint: ShortText | None = Field(default=None, description="Checkpoint that ran, as Hub repository id or hash.")
    signals: tuple[Signal2, ...] = Field(description="Signals whose distances were recorded.")
    branches: Annotated[tuple[Branch, ...], Field(min_length=1, max_length=8)] = Field(
        description="Streams of forwards recorded separately, for example `cond` and `uncond`."
    )
    part: Branch | None = Field(default=None, description="Expert that ran these steps, for example `high-noise`.")
    num_steps: Annotated[int, Field(ge=2, le=MAX_STEPS)] = Field(description="Steps S of the run, 2 to 1000.")
    total_steps: Annotated[int, Field(ge=2, le=MAX_STEPS)] | None = Field(
        default=None, description="Steps of the whole run where `part` ran some of them, 2 to 1000; null: `num_steps`."
    )
    sequence_length: Annotated[int, Field(ge=1, le=100_000_000)] = Field(
        description="Tokens of the generated stream entering the blocks, at least 1."
    )
    frames: Count | None = Field(default=None, description="Generated frames, at least 1; 1 for images.")
    height: Count | None = Field(default=None, description="Generated height, pixels, at least 1.")
    width: Count | None = Field(default=None, description="Generated width, pixels, at least 1.")
    batch_size: Count = Field(default=1, description="Samples that ran together, at least 1.")
    sampler: ShortText | None = Field(default=None, description="Sampler or scheduler class.")
    shift: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Flow-matching time shift, dimensionless, above 0; null where the sampler has none."
    )
    guidance_scale: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Guidance the run was sampled with, dimensionless, 0 or more: g of v_uncond + g (v_cond − v_uncond) "
        "where both branches ran, else what the model itself was told; null without guidance.",
    )
    prediction: Literal["velocity", "epsilon", "x0", "unknown"] = Field(
        default="unknown", description="What the model's output is."
    )
    dtype: ShortText = Field(default="float32", description="Number type the model ran in, for example `bfloat16`.")
    prompt: LongText | None = Field(default=None, description="Prompt of the run, where it may be published.")
    prompt_sha256: Sha256 | None = Field(default=None, description="SHA-256 of the prompt's UTF-8 text.")
    seed: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Seed of the initial noise, 0 or more.")
    sketch: SketchInfo | None = Field(default=None, description="Null where the inner products are exact.")
    tool_version: ShortText | None = Field(default=None, description="Release of this package that recorded the run.")
    recorded_at: IsoDate | None = Field(default=None, description="Date of the recording, YYYY-MM-DD.")

    @model_validator(mode="after")
    def _consistent(self) -> TraceHeader1:
        check_names(self.model_key, self.signals, self.branches)
        return self

    def identity(self) -> str:
        """What the run's hash covers, as JSON."""
        return identity_of(self)


def upgraded(header: TraceHeader1, sigmas: Sequence[float]) -> TraceHeader:
    """What version 1 says, as version 2 says it.

    Args:
        header: of the run.
        sigmas: (S + 1,) its noise levels, which say what Euler's sampler does.
    """
    kept = {name: value for name, value in header if name not in _MOVED}
    model = ModelIdentity(checkpoint=header.checkpoint, dtype=header.dtype)
    return TraceHeader(**kept, model=model, sampler=_sampler(header, sigmas))


def relabelled(recorded: TraceHeader1, header: TraceHeader) -> TraceHeader1:
    """``recorded`` with what ``header`` says in the fields that both versions have."""
    common = {name: value for name, value in header if name in TraceHeader1.model_fields and name not in _MOVED}
    return recorded.model_copy(update=common)


def _sampler(header: TraceHeader1, sigmas: Sequence[float]) -> SamplerRecord | None:
    if header.sampler == EULER:
        return SamplerRecord.euler(sigmas)
    if header.sampler is None and header.prediction == "unknown":
        return None
    return SamplerRecord(name=header.sampler or "unknown", calls=header.num_steps, prediction=header.prediction)
