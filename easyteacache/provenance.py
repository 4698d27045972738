"""Where a calibration comes from and under which conditions it was made: the record's descriptive parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
IsoDate = Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$")]
ShortText = Annotated[str, Field(min_length=1, max_length=300)]
LongText = Annotated[str, Field(min_length=1, max_length=4000)]


class Record(BaseModel):
    """Base of every record: frozen, no unknown fields, no coercion, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Alias(Record):
    """Another exact name that leads to this record; typed, never guessed from a part of a name."""

    kind: Literal["hub_repository", "transformer_class", "explicit_key", "former_key"] = Field(
        description="What the value is: a Hub repository id; a transformer class with the hash of its configuration "
        "(`Class@sha256`); the record's explicit key where its model key is the recommended short form; "
        "or a key this record had before it was renamed."
    )
    value: ShortText = Field(description="The name itself, matched exactly and case-sensitively.")
    borrowed: bool = Field(
        default=False,
        description="True when the numbers were not fitted to what this name stands for; whoever resolves it is told.",
    )


class Source(Record):
    """One public place where these numbers are printed."""

    repository: ShortText | None = Field(
        default=None,
        description="Public repository, `owner/name`; null only where its name is not known (the note then says more).",
    )
    path: ShortText | None = Field(default=None, description="File inside the repository.")
    commit: ShortText | None = Field(default=None, description="Commit that was read.")
    line: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Line of the first coefficient, from 1.")
    license: ShortText | None = Field(default=None, description="Licence of that repository, SPDX id where it has one.")
    note: LongText | None = Field(default=None, description="How the place was read, when not directly.")

    @model_validator(mode="after")
    def _traceable(self) -> Source:
        if self.repository is None and self.note is None:
            raise ValueError("a source without a repository must say in its note where the numbers were read")
        return self


class TraceReference(Record):
    """One trace file that a calibration was fitted to or judged on."""

    file: ShortText = Field(description="File name, without folders.")
    sha256: Sha256 = Field(description="SHA-256 of the file, lower-case hexadecimal.")
    runs: Annotated[int, Field(ge=1)] = Field(description="Runs in the file, at least 1.")


class Conditions(Record):
    """What held while the calibration was made; None where a source does not say."""

    sampler: ShortText | None = Field(default=None, description="Sampler or scheduler class.")
    guidance_scale: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Guidance scale, 0 or more.")
    dtype: ShortText | None = Field(default=None, description="Number type of the transformer, for example `bfloat16`.")
    quantization: ShortText | None = Field(default=None, description="Quantisation of the weights, if any.")
    note: LongText | None = Field(default=None, description="Anything else that the numbers depend on.")


class ReportedFit(Record):
    """What a published source says about its own fit; a bucket's `quality` is what this project measured."""

    runs: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Runs (prompts) the source fitted on.")
    points: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Pairs of distances it fitted on.")
    r2: Annotated[float, Field(le=1)] | None = Field(default=None, description="R² it reports for the fit, at most 1.")
    heldout_r2: Annotated[float, Field(le=1)] | None = Field(
        default=None, description="R² it reports on runs left out of the fit, at most 1."
    )
    correlation: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None, description="Pearson correlation of the two distances it reports, −1 to 1."
    )
    rmse: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Root mean squared error of y it reports (relative L1), 0 or more."
    )


class Provenance(Record):
    """Who made the calibration, from what, with what, under which licence."""

    license: ShortText | None = Field(default=None, description="Licence of these numbers, SPDX id where it has one.")
    author: ShortText | None = Field(default=None, description="Who fitted them.")
    date: IsoDate | None = Field(default=None, description="Date of the fit, YYYY-MM-DD.")
    tool: ShortText | None = Field(default=None, description="Program that fitted them.")
    tool_version: ShortText | None = Field(default=None, description="Its version.")
    checkpoint: ShortText | None = Field(default=None, description="Checkpoint, as Hub repository id.")
    checkpoint_commit: ShortText | None = Field(default=None, description="Commit or hash of the checkpoint.")
    prompt_set: LongText | None = Field(default=None, description="Prompts the runs were recorded on.")
    prompt_set_sha256: Sha256 | None = Field(default=None, description="SHA-256 of the list of prompts.")
    traces: tuple[TraceReference, ...] = Field(default=(), description="Trace files the fit used, by content hash.")
    sources: tuple[Source, ...] = Field(default=(), description="Public places that print these numbers, first the original.")


class Retirement(Record):
    """Why a record should no longer (deprecated) or must no longer (yanked) be used."""

    date: IsoDate = Field(description="Date of the decision, YYYY-MM-DD.")
    reason: LongText = Field(description="Why, in one or two sentences.")
    replacement: ShortText | None = Field(default=None, description="Model key to use instead.")
