"""Reading JSON that nobody vouches for, and spelling it so that a changed number is a one-line diff.

The standard parser accepts NaN, repeats of a key, and any depth; a registry file must have none of these.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 32


class JSONTextError(ValueError):
    """The text is not JSON this project accepts; the message says where and why."""


def parse(data: bytes | str, *, max_bytes: int = MAX_BYTES) -> Any:
    """Parse strict JSON.

    Args:
        data: UTF-8 bytes or text, at most ``max_bytes`` long, nested at most 32 deep.

    Raises:
        JSONTextError: too large, not UTF-8, not JSON, NaN or Infinity, a key twice in one object, nested too deep.
    """
    if len(data) > max_bytes:
        raise JSONTextError(f"{len(data)} bytes, at most {max_bytes} are read")
    if isinstance(data, bytes):
        try:
            data = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise JSONTextError(f"not UTF-8 text (byte {error.start})") from error
    _check_depth(data)
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_integer)
    except json.JSONDecodeError as error:
        state = "empty" if not data.strip() else "not complete, valid JSON"
        raise JSONTextError(f"{state}: {error.msg} at line {error.lineno}, column {error.colno}") from error


def spell(value: Any) -> str:
    """The canonical spelling: two-space indent, one item a line, shortest exact floats, UTF-8, final newline."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _check_depth(text: str) -> None:
    # Before the parser recurses: brackets inside strings may not count, so strings are stepped over.
    depth = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise JSONTextError(f"nested deeper than {MAX_DEPTH} levels")
        elif character in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise JSONTextError(f"the key {key!r} appears twice in one object")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise JSONTextError(f"{name} is not a number JSON has; every number must be finite")


def _integer(digits: str) -> int:
    # The interpreter refuses to parse very long integers with an error of its own; no field here needs them.
    if len(digits) > 19:
        raise JSONTextError(f"an integer of {len(digits)} digits; at most 19 are read")
    return int(digits)
