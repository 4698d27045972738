"""From untrusted text to a record: one way in for every kind of file, with messages that name the field.

What the text can cost is bounded before anything is made of it, and nothing in a message can act on a terminal.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from easyteacache.errors import InvalidCalibration, UnsupportedSchemaVersion
from easyteacache.files import regular_files, strict_json
from easyteacache.records.fields import PATTERN_MEANINGS, BrokenRule

# Beyond this many problems, a list of them costs more than it tells.
MAX_LISTED = 1000
_WORDING = {"missing": "missing, but required", "extra_forbidden": "not a field of this format"}

AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a record.

    Attributes:
        path: the field, as names and zero-based positions from the record down.
        message: which rule, and what was found instead.
        kind: ``schema`` when the field alone is wrong, ``invariant`` when fields contradict each other.
        rule: last part of the rule's identifier: the kind, or the name of an invariant that has one.
    """

    path: tuple[str | int, ...]
    message: str
    kind: Literal["schema", "invariant"]
    rule: str

    @property
    def field(self) -> str:
        """The path as people write it: ``buckets[0].domain``."""
        steps = (f"[{part}]" if isinstance(part, int) else f".{_printable(part)}" for part in self.path)
        return "".join(steps).removeprefix(".") or "record"

    @property
    def pointer(self) -> str:
        """The path as a JSON pointer (RFC 6901): ``/buckets/0/domain``; empty for the record itself."""
        return pointer(self.path)


def pointer(path: Sequence[str | int]) -> str:
    """``path`` as a JSON pointer (RFC 6901), with characters a terminal would act on escaped."""
    return "".join("/" + _printable(str(part)).replace("~", "~0").replace("/", "~1") for part in path)


def read_file(path: str | os.PathLike[str], *, rules: str, max_bytes: int) -> bytes:
    """The content of a regular file of at most ``max_bytes``.

    Raises:
        InvalidCalibration: rule ``….unreadable`` or ``….size``.
    """
    where = os.fspath(path)
    try:
        return regular_files.read_bytes(where, max_bytes=max_bytes)
    except regular_files.NotRegular as error:
        raise InvalidCalibration(where, "not a regular file", rule=f"{rules}.unreadable") from error
    except regular_files.TooLarge as error:
        raise InvalidCalibration(where, str(error.strerror), rule=f"{rules}.size") from error
    except OSError as error:
        raise InvalidCalibration(where, f"cannot be read: {error.strerror}", rule=f"{rules}.unreadable") from error
    except ValueError as error:
        raise InvalidCalibration(
            strict_json.shown(where), f"cannot be a file name: {error}", rule=f"{rules}.unreadable"
        ) from error


def read_object(data: bytes | str, *, where: str, rules: str, max_bytes: int, max_items: int) -> dict[str, Any]:
    """Parse the one JSON object that a file of records holds.

    Args:
        data: the file's bytes or text.
        where: named in errors, usually the path.
        rules: first part of the rule identifiers, for example ``record``.
        max_bytes: the largest text that is read.
        max_items: about the most values that are read.

    Raises:
        InvalidCalibration: rule ``….json`` or ``….size``.
    """
    try:
        content = strict_json.parse(data, max_bytes=max_bytes, max_items=max_items)
    except strict_json.JSONTextError as error:
        raise InvalidCalibration(where, str(error), rule=f"{rules}.{error.kind}") from error
    if not isinstance(content, dict):
        raise InvalidCalibration(where, f"expected a JSON object, found {type(content).__name__}", rule=f"{rules}.json")
    return content


def require_version(content: dict[str, Any], field: str, *, supported: Sequence[int], where: str, rules: str) -> None:
    """Refuse a file of another format version before anything else about it is judged.

    Raises:
        UnsupportedSchemaVersion: ``content[field]`` is missing or not one of ``supported``.
    """
    found = content.get(field)
    # 1.0 and True equal 1 in Python, not in this format.
    if type(found) is not int or found not in supported:
        raise UnsupportedSchemaVersion(
            where, found=found, supported=supported, field=field, rule=f"{rules}.schema-version"
        )


def validate(kind: type[AnyRecord], content: Any, *, where: str, rules: str) -> AnyRecord:
    """Make a record of parsed JSON.

    Raises:
        InvalidCalibration: rule ``….schema``, ``….invariant`` or an invariant's own, with the first problem and the number of
            the others.
    """
    with explained(where=where, rules=rules):
        # Spelled again, so that one parser alone decides what the text says; tuples are arrays in this mode only.
        return kind.model_validate_json(strict_json.spell(content))


@contextlib.contextmanager
def explained(*, where: str, rules: str) -> Iterator[None]:
    """Make a record inside the block, with errors as ``validate`` raises them."""
    try:
        yield
    except ValidationError as error:
        found = problems(error)
        more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
        raise InvalidCalibration(
            where, f"{found[0].field}: {found[0].message}{more}", rule=f"{rules}.{found[0].rule}"
        ) from error


def problems(error: ValidationError) -> tuple[Problem, ...]:
    """What pydantic found, wrong fields before contradictions between fields; never empty."""
    count = error.error_count()
    if count > MAX_LISTED:
        return (Problem((), f"{count} fields are wrong: this is no such file", "schema", "schema"),)
    items = error.errors(include_url=False)
    inside = {item["loc"][:depth] for item in items for depth in range(len(item["loc"]))}
    # An array whose items are wrong counts as too short as well; only its items are what is wrong.
    own = [item for item in items if item["type"] != "too_short" or item["loc"] not in inside]
    return tuple(sorted(map(_problem, own), key=lambda problem: problem.kind == "invariant"))


def _problem(item: Any) -> Problem:
    kind: Literal["schema", "invariant"] = "invariant" if item["type"] == "value_error" else "schema"
    message = _WORDING.get(item["type"], item["msg"].removeprefix("Value error, "))
    if item["type"] == "string_pattern_mismatch":
        message = f"expected {PATTERN_MEANINGS.get(item['ctx']['pattern'], item['ctx']['pattern'])}"
    found = item.get("input")
    if item["type"] not in _WORDING and not isinstance(found, (dict, list)) and found is not None:
        message += f" (found {strict_json.shown(found)})"
    broken = item.get("ctx", {}).get("error")
    if isinstance(broken, BrokenRule):
        return Problem((*item["loc"], *broken.path), message, kind, broken.rule)
    return Problem(tuple(item["loc"]), message, kind, kind)


def _printable(text: str) -> str:
    plain = text if text.isprintable() else strict_json.shown(text)
    return plain if len(plain) <= 80 else plain[:80] + "…"
