"""The field types that every stored record is made of: bounded texts, dates, hashes, counts, step numbers."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from easyteacache.records import model_key

MAX_STEPS = 100_000


def _on_the_calendar(text: str) -> str:
    try:
        datetime.date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"no such date: {error}") from error
    return text


# A record's texts are printed on terminals and web pages: no control characters, nothing that reverses the direction
# of what follows. Classes are spelled for ECMAScript, Python and Rust alike, `\d` and `\s` are not the same in them.
_CONTROL = r"\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_SHORT = rf"^[^\t\n {_CONTROL}](?:[^\t\n{_CONTROL}]*[^\t\n {_CONTROL}])?$"
_LONG = rf"^[^{_CONTROL}]*$"

_SHA256 = r"^[0-9a-f]{64}$"
_DATE = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"
_CLASS = r"^[A-Za-z_][A-Za-z0-9_]*$"
_FILE = r"^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$"

# What each pattern wants, for messages: the patterns themselves explain little.
PATTERN_MEANINGS = {
    _SHORT: "one line without control characters, not beginning or ending with a space",
    _LONG: "text without control characters",
    _SHA256: "64 lower-case hexadecimal digits",
    _DATE: "a date YYYY-MM-DD",
    _CLASS: "the name of a class, letters, digits and '_'",
    _FILE: "a file name of letters, digits, '.', '_' and '-', without folders",
    model_key.PATTERN: "a model key such as 'wan2.1/t2v-14b'",
}

Sha256 = Annotated[str, Field(pattern=_SHA256)]
IsoDate = Annotated[str, Field(pattern=_DATE), AfterValidator(_on_the_calendar)]
ShortText = Annotated[str, Field(min_length=1, max_length=300, pattern=_SHORT)]
LongText = Annotated[str, Field(min_length=1, max_length=4000, pattern=_LONG)]
ModelKey = Annotated[str, Field(pattern=model_key.PATTERN, max_length=model_key.MAX_LENGTH)]
FileName = Annotated[str, Field(max_length=200, pattern=_FILE)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
ClassName = Annotated[str, Field(pattern=_CLASS, min_length=1, max_length=200)]
Branch = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
PredictorName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
StepIndex = Annotated[int, Field(ge=0, lt=MAX_STEPS)]
StepCount = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Status = Literal["draft", "validated", "published", "deprecated", "yanked"]


class Record(BaseModel):
    """Base of every record: frozen, no unknown fields, no coercion, finite numbers only."""

    # Before pydantic 2.10, every field beginning with "model_" (such as model_key) warns unless no name is protected.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class BrokenRule(ValueError):
    """An invariant with a rule identifier of its own, at a field below the record that checks it.

    Args:
        rule: last part of the identifier, for example ``curve-never-computes``.
        path: the field, from that record down.
        message: what was expected and what was found.
    """

    def __init__(self, rule: str, path: Sequence[str | int], message: str) -> None:
        self.rule, self.path = rule, tuple(path)
        super().__init__(message)


def told_by_schema(*rules: dict[str, Any]) -> ConfigDict:
    """The configuration of a record whose JSON Schema says these contradictions, too, as far as a schema can.

    They stand under ``allOf``, so that a check that names contradictions better can leave them out.
    """
    return ConfigDict(json_schema_extra={"allOf": list(rules)})


def given(name: str, *, several: bool = False) -> dict[str, Any]:
    """JSON Schema of an object in which ``name`` stands and is not null; with ``several`` an array that is not empty."""
    value: dict[str, Any] = {"minItems": 1, "type": "array"} if several else {"not": {"type": "null"}}
    return {"properties": {name: value}, "required": [name]}


def anything_of(*names: str) -> dict[str, Any]:
    """JSON Schema of an object in which one of ``names`` stands and is not null."""
    return {"anyOf": [given(name) for name in names]}


def absent(name: str) -> dict[str, Any]:
    """JSON Schema of an object in which ``name`` does not stand, or is null or empty, which means the same."""
    return {"properties": {name: {"anyOf": [{"type": "null"}, {"maxItems": 0, "type": "array"}]}}}
