"""What produced one run: the header of a trace, and what every version of it checks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from easyteacache.errors import InvalidModelKey
from easyteacache.records import model_key as model_keys
from easyteacache.records.calibration import Signal
from easyteacache.records.fields import Branch, Count, IsoDate, LongText, ModelKey, Record, Sha256, ShortText
from easyteacache.records.model_identity import ModelIdentity
from easyteacache.records.sampler import Prediction, SamplerRecord

TRACE_VERSION = 2
MAX_STEPS = 1000
GUIDED = "guided"


class SketchInfo(Record):
    """How residuals too large to keep were reduced before their inner products were taken."""

    kind: Literal["count", "tokens"] = Field(
        description="`count`: seeded linear count-sketch; `tokens`: a seeded sample of the tokens."
    )
    dimension: Count = Field(description="Numbers kept of each residual, at least 1.")
    seed: Annotated[int, Field(ge=0)] = Field(description="Seed of the random signs and positions, 0 or more.")
    relative_error: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Expected relative error (one standard deviation) of an error norm, 0 or more; 0.01 = 1 %.",
    )


class TraceHeader(Record):
    """What produced one run; together with the numbers it is what the run's hash is taken over."""

    trace_version: Literal[2] = Field(default=2, description="Version of the trace format.")
    model_key: ModelKey = Field(description="Hierarchical name of the model, `family/variant[/part]`.")
    model: ModelIdentity | None = Field(default=None, description="The model that ran; absent where nobody says.")
    signals: tuple[Signal, ...] = Field(description="Signals whose distances were recorded.")
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
    sampler: SamplerRecord | None = Field(
        default=None, description="The sampler of the run, or of the whole run where `part` ran some of it."
    )
    shift: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Flow-matching time shift, dimensionless, above 0; null where the sampler has none."
    )
    guidance_scale: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Guidance the run was sampled with, dimensionless, 0 or more: g of v_uncond + g (v_cond − v_uncond) "
        "where both branches ran, else what the model itself was told; null without guidance.",
    )
    prompt: LongText | None = Field(default=None, description="Prompt of the run, where it may be published.")
    prompt_sha256: Sha256 | None = Field(default=None, description="SHA-256 of the prompt's UTF-8 text.")
    seed: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Seed of the initial noise, 0 or more.")
    sketch: SketchInfo | None = Field(default=None, description="Null where the inner products are exact.")
    tool_version: ShortText | None = Field(default=None, description="Release of this package that recorded the run.")
    recorded_at: IsoDate | None = Field(default=None, description="Date of the recording, YYYY-MM-DD.")

    @model_validator(mode="after")
    def _consistent(self) -> TraceHeader:
        check_names(self.model_key, self.signals, self.branches)
        calls = None if self.sampler is None else self.sampler.calls
        if calls not in (None, self.num_steps, self.total_steps):
            steps = " or ".join(str(count) for count in (self.num_steps, self.total_steps) if count is not None)
            raise ValueError(
                f"the sampler calls the model {calls} times; expected as often as there are steps, {steps}"
            )
        return self

    @property
    def moves(self) -> bool:
        """Whether it sampled a video, and not an image."""
        return (self.frames or 1) > 1

    @property
    def prediction(self) -> Prediction:
        """What the model's output is to the sampler."""
        return "unknown" if self.sampler is None else self.sampler.prediction

    def identity(self) -> str:
        """What the run's hash covers, as JSON: every field but the release and the date that recorded it."""
        return identity_of(self)


def check_names(key: str, signals: Sequence[str], branches: Sequence[str]) -> None:
    """Refuse a name that is no model key, and names that are listed twice or taken; raises ``ValueError``."""
    try:
        model_keys.parse(key)
    except InvalidModelKey as error:
        raise ValueError(str(error)) from error
    for name, values in (("signals", signals), ("branches", branches)):
        if len(set(values)) < len(values):
            raise ValueError(f"{name} lists a name twice")
    if GUIDED in branches:
        raise ValueError(f"a branch may not be called {GUIDED!r}: that is the combination of the branches")


def identity_of(header: BaseModel) -> str:
    """A header of any version as its run's hash covers it."""
    # Absent fields are left out, so that a field added to the format later does not change old runs' ids.
    content = header.model_dump(mode="json", exclude={"tool_version", "recorded_at"}, exclude_none=True)
    return json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
