"""The published record: every bucket of one model key for one signal, as one JSON file.

A calibration that exists as an object is consistent: each invariant below is checked when it is made, so nothing after
this layer tests for it again. `docs/registry-format.md` is the same text for people who write such files by hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from easyteacache.errors import InvalidCalibration, InvalidModelKey
from easyteacache.files import atomic_write, strict_json
from easyteacache.records import model_key as model_keys
from easyteacache.records import parsing
from easyteacache.records.bucket import (
    Branch,
    BranchRatios,
    Bucket,
    ErrorStatistics,
    FitQuality,
    OperatingPoint,
    SigmaProfileRecord,
)
from easyteacache.records.provenance import (
    Alias,
    Conditions,
    Count,
    LongText,
    ModelKey,
    Provenance,
    Record,
    Retirement,
    ShortText,
)

__all__ = [
    "SCHEMA_VERSION",
    "SUPPORTED_VERSIONS",
    "TIMESTEP_SIGNALS",
    "Branch",
    "BranchRatios",
    "Bucket",
    "Calibration",
    "ErrorStatistics",
    "FitQuality",
    "OperatingPoint",
    "SigmaProfileRecord",
    "Signal",
    "Status",
    "load",
    "save",
    "upgraded",
]

SCHEMA_VERSION = 2
SUPPORTED_VERSIONS = (1, 2)
# First part of every rule identifier about this kind of file.
RULES = "record"
# About the most values a record holds; each costs several hundred bytes when every one of them is wrong.
MAX_ITEMS = 200_000

Signal = Literal[
    "timestep_embedding",
    "timestep_projection",
    "modulated_input",
    "hidden_states",
    "first_block_residual",
    "unknown",
]
TIMESTEP_SIGNALS: frozenset[str] = frozenset({"timestep_embedding", "timestep_projection"})
Status = Literal["draft", "validated", "published", "deprecated", "yanked"]


class Calibration(Record):
    """All buckets of one model key for one signal, with its provenance: one file of the registry."""

    schema_version: Literal[2] = Field(description="Version of this format.")
    model_key: ModelKey = Field(
        description="Hierarchical name of what was calibrated; equals the file's path without `.json`."
    )
    revision: Count = Field(description="Raised by one with every change of the file, from 1.")
    status: Status = Field(
        description="`draft` (not judged), `validated` (passed on held-out traces), `published` (taken from public "
        "sources without traces), `deprecated` (use the replacement) or `yanked` (must not be used)."
    )
    title: ShortText = Field(description="The model's name as people write it.")
    modality: Literal["image", "video", "audio", "video-audio", "multimodal"] = Field(
        description="What the model generates."
    )
    method: Literal["teacache", "magcache"] = Field(description="The caching method these numbers belong to.")
    signal: Signal = Field(
        description="The tensor whose change the polynomial takes: timestep embedding before or after its projection, "
        "block 0's modulated input, the bare block input, or the first block's residual. "
        "`unknown` where the source does not say: such a record can be read but not applied."
    )
    signal_source: LongText | None = Field(default=None, description="What exactly the source measures.")
    fitted_output: Literal["block_output", "block_residual", "model_output", "none", "unknown"] = Field(
        default="unknown",
        description="Whose relative change y the polynomial predicts; `none` when it was searched or set by hand instead of fitted.",
    )
    fitted_output_source: LongText | None = Field(default=None, description="What the source says about it.")
    rescale_post: Literal["none", "abs", "clip"] = Field(
        default="none",
        description="What the source does to p(x) before accumulating it: nothing, |p(x)|, or max(p(x), 0).",
    )
    branches: Annotated[tuple[Branch, ...], Field(min_length=1, max_length=16)] = Field(
        default=("cond", "uncond"), description="Branches the numbers hold for."
    )
    aliases: Annotated[tuple[Alias, ...], Field(max_length=1000)] = Field(
        default=(), description="Other exact names of this record."
    )
    buckets: Annotated[tuple[Bucket, ...], Field(min_length=1, max_length=1000)] = Field(
        description="Ascending by sequence length, then step count, then shift."
    )
    conditions: Conditions = Field(default=Conditions(), description="What held while the numbers were made.")
    provenance: Provenance = Field(description="Where the numbers come from.")
    retirement: Retirement | None = Field(default=None, description="Only for deprecated and yanked records.")
    notes: Annotated[tuple[LongText, ...], Field(max_length=100)] = Field(
        default=(), description="What a user of these numbers should know."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Calibration:
        try:
            model_keys.parse(self.model_key)
        except InvalidModelKey as error:
            raise ValueError(str(error)) from error
        self._check_buckets()
        self._check_method()
        self._check_names()
        self._check_status()
        return self

    def _check_buckets(self) -> None:
        settings = [bucket.setting for bucket in self.buckets]
        if settings != sorted(settings):
            raise ValueError("buckets must ascend by sequence length, then step count, then shift")
        if len(set(settings)) < len(settings):
            raise ValueError("two buckets hold for the same sequence length, step count and shift")

    def _check_method(self) -> None:
        needed, foreign = "coefficients", "magnitude_ratios"
        if self.method == "magcache":
            needed, foreign = foreign, needed
        for position, bucket in enumerate(self.buckets):
            if not getattr(bucket, needed):
                raise ValueError(f"buckets[{position}] has no {needed}; method {self.method} needs them")
            if getattr(bucket, foreign):
                raise ValueError(f"buckets[{position}] has {foreign}; method {self.method} has no use for them")

    def _check_names(self) -> None:
        if len(set(self.branches)) < len(self.branches):
            raise ValueError("branches lists a name twice")
        ratios = {entry.branch for bucket in self.buckets for entry in bucket.magnitude_ratios}
        if not ratios <= set(self.branches):
            raise ValueError(f"magnitude_ratios of {sorted(ratios - set(self.branches))}, which branches does not list")
        if len({(alias.kind, alias.value) for alias in self.aliases}) < len(self.aliases):
            raise ValueError("the same alias is listed twice")
        if self.model_key in {alias.value for alias in self.aliases}:
            raise ValueError("an alias repeats the record's own model_key")

    def _check_status(self) -> None:
        retired = self.status in ("deprecated", "yanked")
        if retired != (self.retirement is not None):
            raise ValueError(f"status is {self.status!r}: retirement must {'say why' if retired else 'be absent'}")
        if self.retirement is not None and self.retirement.replacement == self.model_key:
            raise ValueError("retirement names the record itself as its replacement")
        if self.status == "validated" and not self.provenance.traces:
            raise ValueError("status is 'validated': provenance.traces must name the traces it was judged on")
        if self.status == "published" and not self.provenance.sources:
            raise ValueError("status is 'published': provenance.sources must name where the numbers are printed")

    @classmethod
    def from_json(cls, data: bytes | str, *, where: str = "calibration") -> Calibration:
        """Read a record from JSON text of any supported version; the record is of the newest.

        Args:
            data: the file's bytes or text.
            where: named in errors, usually the path.

        Raises:
            UnsupportedSchemaVersion: written for a version of the format that this release does not read.
            InvalidCalibration: anything else that is wrong, with the field and the reason.
        """
        content = parsing.read_object(
            data, where=where, rules=RULES, max_bytes=strict_json.MAX_BYTES, max_items=MAX_ITEMS
        )
        return parsing.validate(cls, upgraded(content, where=where), where=where, rules=RULES)

    @classmethod
    def from_mapping(cls, content: Any, *, where: str = "calibration") -> Calibration:
        """Read a record from parsed JSON; raises as ``from_json`` does."""
        try:
            text = strict_json.spell(content)
        except strict_json.JSONTextError as error:
            raise InvalidCalibration(where, str(error), rule=f"{RULES}.json") from error
        return cls.from_json(text, where=where)

    def to_json(self) -> str:
        """The canonical spelling: fields in the format's order, absent and empty values left out, final newline."""
        return strict_json.spell(_without_empty(self.model_dump(mode="json")))


def _from_1(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Version 2 adds the optional ``weights`` of an operating point and changes nothing else."""
    for i, bucket in enumerate(_objects(content.get("buckets"))):
        for j, point in enumerate(_objects(bucket.get("operating_points"))):
            if "weights" in point:
                field = f"buckets[{i}].operating_points[{j}].weights"
                raise InvalidCalibration(
                    where, f"{field}: not a field of version 1 of this format", rule=f"{RULES}.schema"
                )
    return content


# By the version they read, each to the next one. What they are given is unchecked; what they leave wrong, the record
# refuses, so a step only has to refuse what its own version does not know and the next one does.
UPGRADES: Mapping[int, Callable[[dict[str, Any], str], dict[str, Any]]] = MappingProxyType({1: _from_1})


def _objects(value: Any) -> list[dict[str, Any]]:
    # Places are kept, so that an error names the right one.
    return [item if isinstance(item, dict) else {} for item in value] if isinstance(value, list) else []


def upgraded(content: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The parsed JSON of any supported version as the newest version spells it; ``content`` itself is not changed.

    Raises:
        UnsupportedSchemaVersion: ``schema_version`` is missing or not one that this release reads.
        InvalidCalibration: rule ``record.schema``, for a field that the file's own version does not have.
    """
    parsing.require_version(content, "schema_version", supported=SUPPORTED_VERSIONS, where=where, rules=RULES)
    for version in range(content["schema_version"], SCHEMA_VERSION):
        content = UPGRADES[version](content, where) | {"schema_version": version + 1}
    return content


def load(path: str | os.PathLike[str]) -> Calibration:
    """Read one calibration file.

    Raises:
        InvalidCalibration: the file is missing, unreadable, half-written or breaks a rule of the format.
    """
    data = parsing.read_file(path, rules=RULES, max_bytes=strict_json.MAX_BYTES)
    return Calibration.from_json(data, where=os.fspath(path))


def save(record: Calibration, path: str | os.PathLike[str]) -> None:
    """Write one calibration file in its canonical spelling, whole or not at all.

    Raises:
        InvalidCalibration: the record was changed past its checks (``model_copy`` does not run them); nothing is written.
        OSError: the file cannot be written.
    """
    where = os.fspath(path)
    try:
        text = record.to_json()
    except ValueError as error:
        raise InvalidCalibration(where, f"cannot be written: {error}", rule=f"{RULES}.json") from error
    Calibration.from_json(text, where=where)
    atomic_write.write_text(path, text)


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_empty(item) for key, item in value.items()}
        # An empty provenance is still a required field; every other empty value means the same as its absence.
        return {key: item for key, item in kept.items() if key == "provenance" or item not in (None, [], {})}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value
