"""Check a record nobody vouches for and say everything that is wrong with it, each by a stable rule.

The first two of three gates: well-formed (JSON Schema), then consistent (the record's own invariants). The third,
accurate on held-out runs, is the solver's. Used alike by the command line, by push and by continuous integration.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError as SchemaError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from pydantic import ValidationError

from easyteacache.errors import InvalidCalibration, InvalidModelKey
from easyteacache.files import strict_json
from easyteacache.records import model_key, parsing, version_2
from easyteacache.records.calibration import MAX_ITEMS, RULES, SCHEMA_FIELD, SCHEMA_VERSION, Calibration, upgraded
from easyteacache.records.fields import PATTERN_MEANINGS
from easyteacache.registry import bundled

MAX_FINDINGS = 100

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "record.unreadable": "The file exists, is a regular file and can be read.",
        "record.size": "The file is no larger than 8 MiB and holds no more than 300,000 values.",
        "record.json": "The file is one JSON object in UTF-8, with finite numbers, no key twice, at most 32 levels deep.",
        "record.schema-version": "schema_version is one this release reads.",
        "record.schema": "Every field is known, present where required, of the right type and in its range.",
        "record.invariant": "Fields do not contradict each other.",
        "record.curve-never-computes": "The polynomial predicts a change of 1e-6 or more somewhere in its domain, or for distances of 0 to 1.",
        "record.threshold-never-computes": "A threshold is no larger than what all steps together can add up to.",
        "record.plan-never-computes": "A plan of several steps computes more than the first.",
        "record.path": "The file lies inside the registry folder, under its own model key, without symbolic links.",
        "record.canonical": "The file is spelled canonically for its version, so that a changed number is a one-line diff.",
    }
)


def _pattern(_: Validator, pattern: str, instance: object, __: object) -> Iterator[SchemaError]:
    # Python's `$` also matches before a final line break, the `$` of JSON Schema does not.
    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield SchemaError("does not match")


# JSON Schema counts 2.0 as an integer; a record's steps and lengths are spelled as integers.
_Validator: type[Validator] = extend(
    Draft202012Validator,
    # What stands under allOf are contradictions between fields, which the records themselves name better.
    validators={"pattern": _pattern, "allOf": lambda *_: ()},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a file.

    Attributes:
        rule: the rule's stable identifier, a key of ``MEANINGS``.
        where: the file.
        pointer: the place inside it as a JSON pointer (RFC 6901), empty for the whole file.
        message: what was expected and what was found.
        severity: an ``error`` makes the file unusable; a ``warning`` only unfit for publication.
    """

    rule: str
    where: str
    pointer: str
    message: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = f"{self.where}#{self.pointer}" if self.pointer else self.where
        return f"{place}: {self.message} [{self.rule}]"


def check_record(data: bytes | str | Mapping[str, Any], where: str = "record") -> list[Finding]:
    """Everything that is wrong with one calibration record; empty when it may be used. Never raises.

    Args:
        data: the file's bytes or text, or parsed JSON (its spelling is then not judged).
        where: named in the findings, usually the path.
    """
    return _check(data, where)[0]


def check_file(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> list[Finding]:
    """Everything that is wrong with one file of a registry folder, its place in it included.

    Args:
        path: the file.
        root: the registry folder that it lies in.
    """
    where = os.fspath(path)
    try:
        key = _key(Path(path), Path(root))
        data = parsing.read_file(path, rules=RULES, max_bytes=strict_json.MAX_BYTES)
    except InvalidCalibration as error:
        return [Finding(error.rule, where, "", error.reason)]
    findings, content = _check(data, where)
    found = content.get("model_key", key)
    if found != key:
        message = f"model_key is {strict_json.shown(found)}, the file's path says {key!r}"
        findings.append(Finding("record.path", where, "/model_key", message))
    return findings


def _key(path: Path, root: Path) -> str:
    """The model key that a file's place in the registry folder stands for."""
    try:
        inside = path.absolute().relative_to(root.absolute())
        key = model_key.key_of(PurePosixPath(inside.as_posix()))
    except InvalidModelKey as error:
        raise InvalidCalibration(
            os.fspath(path), f"its path is no model key: {error.reason}", rule="record.path"
        ) from error
    except ValueError as error:
        raise InvalidCalibration(
            os.fspath(path), f"lies outside the registry folder {root}", rule="record.path"
        ) from error
    for part in (inside, *inside.parents):
        if part.parts and (root / part).is_symlink():
            raise InvalidCalibration(os.fspath(path), f"{part.as_posix()} is a symbolic link", rule="record.path")
    return key


def _check(data: bytes | str | Mapping[str, Any], where: str) -> tuple[list[Finding], dict[str, Any]]:
    """The findings, and the parsed content as far as it could be read."""
    content: dict[str, Any] = {}
    try:
        text = _spelled(data, where)
        content = parsing.read_object(
            text, where=where, rules=RULES, max_bytes=strict_json.MAX_BYTES, max_items=MAX_ITEMS
        )
        record = parsing.validate(Calibration, upgraded(content, where=where), where=where, rules=RULES)
    except InvalidCalibration as error:
        if isinstance(error.__cause__, ValidationError):
            return _explained(content, error.__cause__, where), content
        # A field that only a later version has: the schema of the file's own version names its place.
        unknown = _schema_findings(content, where) if error.rule == "record.schema" else []
        return unknown or [Finding(error.rule, where, "", error.reason)], content
    # The records accept nothing that the schema refuses; should they ever differ, the file is refused.
    return _schema_findings(content, where) or _spelling_findings(data, record, content, where), content


def _spelled(data: bytes | str | Mapping[str, Any], where: str) -> bytes | str:
    if isinstance(data, (bytes, str)):
        return data
    try:
        return strict_json.spell(dict(data))
    except strict_json.JSONTextError as error:
        raise InvalidCalibration(where, str(error), rule=f"{RULES}.json") from error


def _explained(content: dict[str, Any], error: ValidationError, where: str) -> list[Finding]:
    """The schema's findings when a field alone is wrong, otherwise the contradictions."""
    problems = parsing.problems(error)
    wrong_fields = any(problem.kind == "schema" for problem in problems)
    # With thousands of wrong fields, explaining each costs more than it tells.
    explain = wrong_fields and error.error_count() <= parsing.MAX_LISTED
    return (_schema_findings(content, where) if explain else []) or [
        Finding(f"{RULES}.{problem.rule}", where, problem.pointer, problem.message)
        for problem in problems[:MAX_FINDINGS]
    ]


@functools.cache
def _validator(name: str) -> Validator:
    return _Validator(strict_json.parse((bundled.schemas() / name).read_bytes()))


def _schema_findings(content: dict[str, Any], where: str) -> list[Finding]:
    name = f"calibration.v{content['schema_version']}.schema.json"
    leaves = (leaf for error in _validator(name).iter_errors(content) for leaf in _leaves(error))
    found = (
        Finding("record.schema", where, parsing.pointer(list(error.absolute_path)), _message(error))
        for error in islice(leaves, MAX_FINDINGS)
    )
    # Two fields missing from one object are two errors of one message.
    return list(dict.fromkeys(found))


def _leaves(error: SchemaError) -> Iterator[SchemaError]:
    """The errors of the one alternative that was meant: nearly every alternative of this format is 'or null'."""
    meant = [option for option in error.context or () if option.schema != {"type": "null"}]
    if len({option.schema_path[0] for option in meant}) != 1:
        yield error
        return
    for option in meant:
        yield from _leaves(option)


def _message(error: SchemaError) -> str:
    """What the schema expected and what was found, short whatever the file holds."""
    keyword, value, found = error.validator, error.validator_value, strict_json.shown(error.instance)
    if keyword == "additionalProperties":
        unknown = [strict_json.shown(name) for name in error.instance if name not in error.schema["properties"]]
        return f"{', '.join(unknown[:3])}{' …' if len(unknown) > 3 else ''}: not a field of this format"
    if keyword == "required":
        missing = [name for name in value if name not in error.instance]
        return f"{', '.join(missing)}: missing, but required"
    if keyword in ("maxItems", "minItems", "maxLength", "minLength"):
        bound = "at most" if keyword.startswith("max") else "at least"
        return f"length {len(error.instance)}; expected {bound} {value}"
    expected = {
        "type": f"expected {value}",
        "enum": f"expected one of {', '.join(map(repr, value))}" if keyword == "enum" else "",
        "const": f"expected {value!r}",
        "anyOf": "expected one of the kinds of value that may stand here",
        "pattern": f"expected {PATTERN_MEANINGS.get(str(value), value)}",
        "minimum": f"expected {value} or more",
        "maximum": f"expected {value} or less",
        "exclusiveMinimum": f"expected more than {value}",
        "exclusiveMaximum": f"expected less than {value}",
    }.get(str(keyword), f"breaks {keyword} = {strict_json.shown(value)}")
    return f"{expected}, found {found}"


def _canonical(record: Calibration, content: Mapping[str, Any], where: str) -> str:
    """How the file is spelled in its own version, an editor's address of the schema first."""
    version = content["schema_version"]
    if version != SCHEMA_VERSION:
        return version_2.canonical(content, version, where=where)
    text = record.to_json()
    if SCHEMA_FIELD not in content:
        return text
    first = strict_json.spell({SCHEMA_FIELD: content[SCHEMA_FIELD]})
    return first.removesuffix("\n}\n") + "," + text.removeprefix("{")


def _spelling_findings(
    data: bytes | str | Mapping[str, Any], record: Calibration, content: Mapping[str, Any], where: str
) -> list[Finding]:
    if not isinstance(data, (bytes, str)):
        return []
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    lines = zip_longest(text.split("\n"), _canonical(record, content, where).split("\n"))
    for number, (found, expected) in enumerate(lines, start=1):
        if found != expected:
            message = (
                f"line {number} is {strict_json.shown(found)}; the canonical spelling has {strict_json.shown(expected)}"
            )
            return [Finding("record.canonical", where, "", message, "warning")]
    return []
