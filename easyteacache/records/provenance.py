"""Where a calibration comes from and under which conditions it was made: the record's descriptive parts."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from easyteacache.errors import InvalidModelKey
from easyteacache.records import model_key
from easyteacache.records.fields import (
    Count,
    FileName,
    IsoDate,
    LongText,
    Record,
    Sha256,
    ShortText,
    anything_of,
    told_by_schema,
)

_ALIAS_FORMS = {
    "hub_repository": (r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*", "'owner/name'"),
    "transformer_class": (r"[A-Za-z_][A-Za-z0-9_]*@[0-9a-f]{64}", "'Class@' and 64 hexadecimal digits"),
}
_FIT = ("runs", "points", "r2", "heldout_r2", "correlation", "rmse")


def _alias_form(kind: str) -> dict[str, Any]:
    pattern = {"pattern": rf"^{_ALIAS_FORMS[kind][0]}$", "not": {"pattern": r"\.\."}}
    return {"if": {"properties": {"kind": {"const": kind}}}, "then": {"properties": {"value": pattern}}}


class Alias(Record):
    """Another exact name that leads to this record; typed, never guessed from a part of a name."""

    model_config = told_by_schema(*(_alias_form(kind) for kind in _ALIAS_FORMS))

    kind: Literal["hub_repository", "transformer_class", "explicit_key", "former_key"] = Field(
        description="What the value is: a Hub repository id (`owner/name`); a transformer class with the hash of its "
        "configuration (`Class@sha256`); the record's explicit key where its model key is the recommended short form; "
        "or a key this record had before it was renamed."
    )
    value: Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[A-Za-z0-9_][A-Za-z0-9@._/-]*$")] = Field(
        description="The name itself, matched exactly and case-sensitively; ASCII.",
        examples=["Wan-AI/Wan2.1-T2V-14B-Diffusers"],
    )
    borrowed: bool = Field(
        default=False,
        description="True when the numbers were not fitted to what this name stands for; whoever resolves it is told.",
    )

    @model_validator(mode="after")
    def _spelled_as_its_kind(self) -> Alias:
        if self.kind in _ALIAS_FORMS:
            form, expected = _ALIAS_FORMS[self.kind]
            if not re.fullmatch(form, self.value) or ".." in self.value:
                raise ValueError(f"{self.value!r} is no {self.kind}; expected {expected}")
        else:
            _require_key(self.value, self.kind)
        return self


class Source(Record):
    """One public place where these numbers are printed."""

    model_config = told_by_schema(anything_of("repository", "note"))

    repository: ShortText | None = Field(
        default=None,
        description="Public repository, `owner/name`; null only where its name is not known (the note then says more).",
    )
    path: ShortText | None = Field(default=None, description="File inside the repository.")
    commit: ShortText | None = Field(default=None, description="Commit that was read.")
    line: Count | None = Field(default=None, description="Line of the first coefficient, from 1.")
    license: ShortText | None = Field(default=None, description="Licence of that repository, SPDX id where it has one.")
    note: LongText | None = Field(default=None, description="How the place was read, when not directly.")

    @model_validator(mode="after")
    def _traceable(self) -> Source:
        if self.repository is None and self.note is None:
            raise ValueError("a source without a repository must say in its note where the numbers were read")
        return self


class TraceReference(Record):
    """One trace file that a calibration was fitted to or judged on."""

    file: FileName = Field(description="File name, without folders: letters, digits, '.', '_' and '-'.")
    sha256: Sha256 = Field(description="SHA-256 of the file, lower-case hexadecimal.")
    runs: Count = Field(description="Runs in the file, at least 1.")

    @model_validator(mode="after")
    def _usable_everywhere(self) -> TraceReference:
        if model_key.is_reserved(self.file):
            raise ValueError(f"{self.file!r} is a reserved file name on Windows")
        return self


class Conditions(Record):
    """What held while the calibration was made; absent where a source does not say."""

    sampler: ShortText | None = Field(default=None, description="Sampler or scheduler class.")
    guidance_scale: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Guidance scale, dimensionless, 0 or more."
    )
    note: LongText | None = Field(default=None, description="Anything else that the numbers depend on.")


class ReportedFit(Record):
    """What a published source says about its own fit; a bucket's `quality` is what this project measured."""

    model_config = told_by_schema(anything_of(*_FIT))

    runs: Count | None = Field(default=None, description="Runs (prompts) the source fitted on, at least 1.")
    points: Count | None = Field(default=None, description="Pairs of distances it fitted on, at least 1.")
    r2: Annotated[float, Field(le=1)] | None = Field(
        default=None, description="R² it reports for the fit, dimensionless, at most 1."
    )
    heldout_r2: Annotated[float, Field(le=1)] | None = Field(
        default=None, description="R² it reports on runs left out of the fit, dimensionless, at most 1."
    )
    correlation: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None, description="Pearson correlation of the two distances it reports, dimensionless, −1 to 1."
    )
    rmse: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Root mean squared error of y it reports (relative L1), dimensionless, 0 or more."
    )

    @model_validator(mode="after")
    def _says_something(self) -> ReportedFit:
        # Absent fields are not written, so that an empty one would not survive a round trip.
        if all(value is None for value in self.__dict__.values()):
            raise ValueError("reported_fit says nothing: leave it out")
        return self


class Provenance(Record):
    """Who made the calibration, from what, with what, under which licence."""

    license: ShortText | None = Field(
        default=None, description="Licence of these numbers, SPDX id where it has one.", examples=["Apache-2.0"]
    )
    author: ShortText | None = Field(default=None, description="Who fitted them.")
    date: IsoDate | None = Field(default=None, description="Date of the fit, YYYY-MM-DD.")
    tool: ShortText | None = Field(default=None, description="Program that fitted them.")
    tool_version: ShortText | None = Field(default=None, description="Its version.")
    tool_options: ShortText | None = Field(
        default=None, description="Options the numbers depend on, as its command line takes them; absent: its defaults."
    )
    prompt_set: LongText | None = Field(default=None, description="Prompts the runs were recorded on.")
    prompt_set_sha256: Sha256 | None = Field(default=None, description="SHA-256 of the list of prompts.")
    traces: Annotated[tuple[TraceReference, ...], Field(max_length=10_000)] = Field(
        default=(), description="Trace files the fit used, by content hash; required once the status is `validated`."
    )
    sources: Annotated[tuple[Source, ...], Field(max_length=1000)] = Field(
        default=(),
        description="Public places that print these numbers, first the original; required where the status is `published`.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Provenance:
        check_traces(self.traces)
        return self


def check_traces(traces: tuple[TraceReference, ...]) -> None:
    """Refuse one trace file named twice; raises ``ValueError``."""
    for name in ("file", "sha256"):
        if len({getattr(trace, name) for trace in traces}) < len(traces):
            raise ValueError(f"two traces have the same {name}")


class Retirement(Record):
    """Why a record should no longer (deprecated) or must no longer (yanked) be used."""

    date: IsoDate = Field(description="Date of the decision, YYYY-MM-DD.")
    reason: LongText = Field(description="Why, in one or two sentences.")
    replacement: ShortText | None = Field(default=None, description="Model key to use instead.")

    @model_validator(mode="after")
    def _replacement_is_a_key(self) -> Retirement:
        if self.replacement is not None:
            _require_key(self.replacement, "replacement")
        return self


def _require_key(value: str, name: str) -> None:
    try:
        model_key.parse(value)
    except InvalidModelKey as error:
        raise ValueError(f"{name}: {error}") from error
