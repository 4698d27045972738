"""The published record: every bucket of one model key for one signal, as one JSON file.

A calibration that exists as an object is consistent: each invariant below is checked when it is made, so nothing after
this layer tests for it again. `docs/registry-format.md` is the same text for people who write such files by hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from easyteacache.errors import InvalidCalibration
from easyteacache.files import atomic_write, strict_json
from easyteacache.records import parsing, version_2
from easyteacache.records.bucket import (
    BranchRatios,
    Bucket,
    ErrorStatistics,
    FitQuality,
    OperatingPoint,
    SigmaProfileRecord,
)
from easyteacache.records.evidence import Evidence
from easyteacache.records.fields import (
    Branch,
    Count,
    LongText,
    ModelKey,
    Record,
    ShortText,
    Status,
    absent,
    given,
    told_by_schema,
)
from easyteacache.records.model_identity import ModelIdentity
from easyteacache.records.plan import Plan
from easyteacache.records.preset import Preset
from easyteacache.records.provenance import Alias, Conditions, Provenance, Retirement
from easyteacache.records.reach import check_reach
from easyteacache.records.whole_record import (
    check_aliases,
    check_branches,
    check_key,
    check_order,
    check_status,
    spelled,
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
    "Evidence",
    "FitQuality",
    "Method",
    "ModelIdentity",
    "OperatingPoint",
    "Plan",
    "Preset",
    "SigmaProfileRecord",
    "Signal",
    "Status",
    "load",
    "save",
    "upgraded",
]

SCHEMA_VERSION: Final = 3
SUPPORTED_VERSIONS = (1, 2, 3)
# First part of every rule identifier about this kind of file.
RULES = "record"
# About the most values a record holds; each costs several hundred bytes when every one of them is wrong.
MAX_ITEMS = 300_000
# Of them, the most weights of plans.
MAX_WEIGHTS = 200_000
# An editor finds the format's description by it; it says nothing about the record.
SCHEMA_FIELD = "$schema"
MAX_SCHEMA_FIELD = 300
FIRST_WITH_SCHEMA = 3

Signal = Literal[
    "timestep_embedding",
    "timestep_projection",
    "modulated_input",
    "hidden_states",
    "first_block_residual",
    "none",
    "unknown",
]
TIMESTEP_SIGNALS: frozenset[str] = frozenset({"timestep_embedding", "timestep_projection"})
Method = Literal["teacache", "magcache", "plan", "preset"]

# What every bucket of a method has, and what none has.
_NUMBERS: Mapping[str, str | None] = {
    "teacache": "coefficients",
    "magcache": "magnitude_ratios",
    "plan": None,
    "preset": None,
}
_RETIRED = {"properties": {"status": {"enum": ["deprecated", "yanked"]}}}


def _of_method(method: str, *bucket: Mapping[str, Any]) -> dict[str, Any]:
    items = {"properties": {"buckets": {"items": {"allOf": list(bucket)}}}}
    return {"if": {"properties": {"method": {"const": method}}}, "then": items}


def _points_of(kind: str) -> dict[str, Any]:
    points = {"minItems": 1, "items": given(kind), "type": "array"}
    return {"properties": {"operating_points": points}, "required": ["operating_points"]}


_NO_PRESET = {"properties": {"operating_points": {"items": {"properties": {"preset": {"type": "null"}}}}}}
_CONDITIONAL: tuple[dict[str, Any], ...] = (
    {"properties": {"branches": {"uniqueItems": True}}},
    _of_method("teacache", given("coefficients"), absent("magnitude_ratios"), _NO_PRESET),
    _of_method("magcache", given("magnitude_ratios", several=True), absent("coefficients"), _NO_PRESET),
    _of_method("plan", absent("coefficients"), absent("magnitude_ratios"), _points_of("plan")),
    _of_method("preset", absent("coefficients"), absent("magnitude_ratios"), _points_of("preset")),
    {
        "if": {"properties": {"method": {"const": "teacache"}}},
        "then": {"properties": {"signal": {"not": {"const": "none"}}}},
    },
    {"if": _RETIRED, "then": given("retirement"), "else": absent("retirement")},
    {
        "if": {"properties": {"status": {"const": "validated"}}},
        "then": {"properties": {"provenance": given("traces", several=True)}},
    },
    {
        "if": {"properties": {"status": {"const": "published"}}},
        "then": {"properties": {"provenance": given("sources", several=True)}},
    },
)


class Calibration(Record):
    """All buckets of one model key for one signal, with its provenance: one file of the registry."""

    model_config = told_by_schema(*_CONDITIONAL)

    schema_version: Literal[3] = Field(description="Version of this format.")
    model_key: ModelKey = Field(
        description="Hierarchical name of what was calibrated; equals the file's path without `.json`.",
        examples=["wan2.1/t2v-14b"],
    )
    revision: Count = Field(description="Raised by one with every change of the file, from 1.")
    status: Status = Field(
        description="`draft` (not judged), `validated` (passed on held-out traces), `published` (taken from public "
        "sources without traces), `deprecated` (use the replacement) or `yanked` (must not be used)."
    )
    title: ShortText = Field(description="The model's name as people write it.", examples=["Wan2.1 T2V 14B"])
    modality: Literal["image", "video", "audio", "video-audio", "multimodal"] = Field(
        description="What the model generates."
    )
    model: ModelIdentity | None = Field(
        default=None, description="The model that the numbers were made with; absent where the source does not say."
    )
    method: Method = Field(
        description="What the numbers are: `teacache`, a rescale polynomial; `magcache`, magnitude ratios; `plan`, computed "
        "steps alone; `preset`, settings of another engine's method, which this project never applies."
    )
    signal: Signal = Field(
        description="The tensor whose change the polynomial takes: timestep embedding before or after its projection, "
        "block 0's modulated input, the bare block input, or the first block's residual. "
        "`unknown` where the source does not say: such a polynomial can be read but not applied; `none` where no tensor decides.",
        examples=["timestep_projection"],
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
        check_key(self)
        check_order(self)
        self._check_buckets()
        self._check_method()
        self._check_size()
        check_branches(self)
        check_aliases(self)
        check_status(self)
        check_reach(self)
        return self

    def _check_buckets(self) -> None:
        last: dict[tuple[int, int, float], list[Bucket]] = {}
        for bucket in self.buckets:
            others = last.setdefault(bucket.setting, [])
            if any(not _told_apart(bucket, other) for other in others):
                raise ValueError(
                    "two buckets hold for the same sequence length, step count and shift, and for no two samplers "
                    "that their signatures tell apart"
                )
            others.append(bucket)

    def _check_method(self) -> None:
        if self.method == "teacache" and self.signal == "none":
            raise ValueError("signal is 'none'; a polynomial takes one, 'unknown' where the source does not say which")
        needed = _NUMBERS[self.method]
        for position, bucket in enumerate(self.buckets):
            if needed is not None and not getattr(bucket, needed):
                raise ValueError(f"buckets[{position}] has no {needed}; method {self.method} needs them")
            for foreign in filter(None, _NUMBERS.values()):
                if foreign != needed and getattr(bucket, foreign):
                    raise ValueError(f"buckets[{position}] has {foreign}; method {self.method} has no use for them")
            self._check_points(position, bucket)

    def _check_points(self, position: int, bucket: Bucket) -> None:
        kind = self.method if self.method in ("plan", "preset") else None
        if kind is not None and not bucket.operating_points:
            raise ValueError(f"buckets[{position}] has no operating_points; a record of method {kind} consists of them")
        for place, point in enumerate(bucket.operating_points):
            where = f"buckets[{position}].operating_points[{place}]"
            if kind is not None and getattr(point, kind) is None:
                raise ValueError(f"{where} is no {kind}; method {kind} has nothing else")
            if kind != "preset" and point.preset is not None:
                raise ValueError(
                    f"{where} is a preset; expected it in a record of method 'preset', found {self.method!r}"
                )

    def _check_size(self) -> None:
        weights = sum(
            point.plan.num_weights for bucket in self.buckets for point in bucket.operating_points if point.plan
        )
        if weights > MAX_WEIGHTS:
            raise ValueError(f"{weights} weights of plans; a record holds at most {MAX_WEIGHTS}")

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
        return spelled(self)


def _told_apart(a: Bucket, b: Bucket) -> bool:
    return a.sampler is not None and b.sampler is not None and a.sampler.agrees(b.sampler) is False


# By the version they read, each to the next one. What they are given is unchecked; what they leave wrong, the record
# refuses, so a step only has to refuse what its own version does not know and the next one does.
UPGRADES: Mapping[int, Callable[[dict[str, Any], str], dict[str, Any]]] = MappingProxyType(
    {1: version_2.from_1, 2: version_2.from_2}
)


def upgraded(content: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The parsed JSON of any supported version as the newest version spells it; ``content`` itself is not changed.

    The address of a schema, which an editor may keep in the file, is left out.

    Raises:
        UnsupportedSchemaVersion: ``schema_version`` is missing or not one that this release reads.
        InvalidCalibration: the file breaks a rule of its own, older version.
    """
    parsing.require_version(content, "schema_version", supported=SUPPORTED_VERSIONS, where=where, rules=RULES)
    if content["schema_version"] >= FIRST_WITH_SCHEMA:
        content = _without_schema(content, where)
    for version in range(content["schema_version"], SCHEMA_VERSION):
        content = UPGRADES[version](content, where) | {"schema_version": version + 1}
    return content


def _without_schema(content: dict[str, Any], where: str) -> dict[str, Any]:
    if SCHEMA_FIELD not in content:
        return content
    found = content[SCHEMA_FIELD]
    if not isinstance(found, str) or len(found) > MAX_SCHEMA_FIELD:
        reason = (
            f"{SCHEMA_FIELD}: expected text of at most {MAX_SCHEMA_FIELD} characters, found {strict_json.shown(found)}"
        )
        raise InvalidCalibration(where, reason, rule=f"{RULES}.schema")
    return {name: value for name, value in content.items() if name != SCHEMA_FIELD}


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
