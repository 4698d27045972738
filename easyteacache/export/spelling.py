"""How exported files are spelled: the same numbers always give the same bytes, with their origin in the file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from easyteacache._version import __version__
from easyteacache.export.numbers import Numbers

# Key of the origin in JSON formats that pass over keys they do not know.
ORIGIN = "_easyteacache"
WIDTH = 100
_MARK = "easyteacache"


def origin(numbers: Numbers, remarks: Sequence[str] = ()) -> dict[str, Any]:
    """Where an exported file comes from: record, revision, version, first source, and what the engine does otherwise."""
    record = numbers.record
    content: dict[str, Any] = {
        "generator": f"{_MARK} {__version__}",
        "model_key": record.model_key,
        "revision": record.revision,
        "status": record.status,
        "signal": record.signal,
    }
    if record.provenance.sources:
        source = record.provenance.sources[0]
        parts = (source.repository, source.path, source.commit)
        content["source"] = " ".join(part for part in parts if part)
    if remarks:
        content["remarks"] = list(remarks)
    return content


def header(numbers: Numbers, remarks: Sequence[str] = ()) -> str:
    """The origin as comment lines, for formats that have comments and no room for unknown keys."""
    content = origin(numbers, remarks)
    lines = [
        f"{key}: {content[key]}"
        for key in ("generator", "model_key", "revision", "status", "signal", "source")
        if key in content
    ]
    lines += [f"remark: {remark}" for remark in remarks]
    wrapped = [part for line in lines for part in textwrap.wrap(line, WIDTH, subsequent_indent="    ")]
    return "".join(f"# {line}\n" for line in wrapped)


def origin_of_comments(text: str) -> dict[str, str]:
    """The origin that ``header`` wrote, as far as a text has it."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            break
        key, colon, value = line[2:].partition(": ")
        if colon and key in ("generator", "model_key", "revision", "signal"):
            found[key] = value.strip()
    return found if found.get("generator", "").startswith(_MARK) else {}


def yaml_scalar(value: bool | int | float | str | None) -> str:
    """One value as every YAML parser reads it: YAML 1.1 takes ``1e-05`` for text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _with_point(repr(value))
    return str(value)


def yaml_list(values: Iterable[float]) -> str:
    """A list of numbers in one line."""
    return "[" + ", ".join(yaml_scalar(value) for value in values) + "]"


def yaml_mapping(content: Mapping[str, Any], *, indent: int = 0) -> str:
    """A mapping of scalars, lists of numbers and mappings, in the order given."""
    lines = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            lines.append(f"{' ' * indent}{key}:\n{yaml_mapping(value, indent=indent + 2)}")
        elif isinstance(value, (list, tuple)):
            lines.append(f"{' ' * indent}{key}: {yaml_list(value)}\n")
        else:
            lines.append(f"{' ' * indent}{key}: {yaml_scalar(value)}\n")
    return "".join(lines)


def python_call(name: str, arguments: Mapping[str, Any]) -> str:
    """``name(key=value, …)`` over several lines."""
    body = "".join(f"    {key}={python_literal(value, indent=4)},\n" for key, value in arguments.items())
    return f"{name}(\n{body})"


def python_literal(value: Any, *, indent: int = 0) -> str:
    """``repr``, with long lists of numbers over several lines."""
    if isinstance(value, Mapping):
        inside = " " * (indent + 4)
        rows = "".join(f"{inside}{key!r}: {python_literal(item, indent=indent + 4)},\n" for key, item in value.items())
        return "{\n" + rows + " " * indent + "}"
    if not isinstance(value, (list, tuple)):
        return repr(value)
    flat = repr(list(value))
    if indent + len(flat) <= WIDTH:
        return flat
    margin = " " * (indent + 4)
    wrapped = textwrap.wrap(flat[1:-1] + ",", WIDTH - len(margin), break_long_words=False, break_on_hyphens=False)
    return "[\n" + "".join(f"{margin}{row}\n" for row in wrapped) + " " * indent + "]"


def _with_point(digits: str) -> str:
    mantissa, exponent, power = digits.partition("e")
    if not exponent:
        return digits
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{power if power[0] in '+-' else '+' + power}"
