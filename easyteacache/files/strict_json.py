"""Reading JSON that nobody vouches for, and spelling it so that a changed number is a one-line diff.

The standard parser accepts NaN, numbers that overflow to infinity, half surrogate pairs, repeats of a key, and any depth;
a registry file must have none of these.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Literal, NoReturn

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 32
MAX_INTEGER_DIGITS = 19

_STRUCTURE = re.compile(r'[\\"\[\]{}]')
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class JSONTextError(ValueError):
    """The text is not JSON this project accepts; the message says where and why.

    Attributes:
        kind: ``size`` when there is too much of it, ``json`` for everything else; the last part of a rule's identifier.
    """

    def __init__(self, message: str, *, kind: Literal["json", "size"] = "json") -> None:
        self.kind = kind
        super().__init__(message)


def parse(data: bytes | str, *, max_bytes: int = MAX_BYTES, max_items: int | None = None) -> Any:
    """Parse strict JSON.

    Args:
        data: UTF-8 bytes or text, at most ``max_bytes`` long, nested at most 32 deep.
        max_items: most commas there may be, so that what is made of the text stays in proportion; None: no limit.

    Raises:
        JSONTextError: too large, not UTF-8, begins with a byte order mark, not JSON, a number that is not finite, an
            integer of more than 19 digits, half a surrogate pair, a key twice in one object, nested too deep.
    """
    if len(data) > max_bytes:
        raise JSONTextError(f"{len(data)} bytes, at most {max_bytes} are read", kind="size")
    text = _decode(data)
    if max_items is not None and text.count(",") > max_items:
        raise JSONTextError(f"more than {max_items} values; a file of this kind never holds so many", kind="size")
    _check_depth(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_finite,
        )
    except json.JSONDecodeError as error:
        state = "empty" if not text.strip() else "not complete, valid JSON"
        raise JSONTextError(f"{state}: {error.msg} at line {error.lineno}, column {error.colno}") from error
    if _SURROGATE_ESCAPE.search(text):
        _require_unicode(json.dumps(value, ensure_ascii=False))
    return value


def spell(value: Any) -> str:
    """The canonical spelling: two-space indent, one item a line, shortest exact floats, UTF-8, final newline.

    Raises:
        JSONTextError: ``value`` holds something that JSON cannot: NaN, an object of another type, itself, half a
            surrogate pair.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise JSONTextError(f"cannot be written as JSON: {error}") from error
    except RecursionError as error:
        raise JSONTextError(f"nested deeper than {MAX_DEPTH} levels") from error
    _require_unicode(text)
    return text


def shown(value: object, limit: int = 80) -> str:
    """``value`` for an error message: one line, at most about ``limit`` characters, nothing a terminal would act on."""
    if isinstance(value, (dict, list, tuple)):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, (str, bytes)):
        return repr(value[:limit]) + ("…" if len(value) > limit else "")
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)[:limit]


def _decode(data: bytes | str) -> str:
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise JSONTextError(f"not UTF-8 text (byte {error.start})") from error
    if text.startswith("\ufeff"):
        raise JSONTextError("begins with a byte order mark; save it as UTF-8 without one")
    if isinstance(data, str):
        _require_unicode(text)
    return text


def _require_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        raise JSONTextError(f"half a surrogate pair (U+{half:04X}), which no text file can hold") from error


def _check_depth(text: str) -> None:
    # Before the parser recurses. Brackets inside strings do not count, so strings are stepped over.
    depth = 0
    in_string = False
    escaped_at = -1
    for match in _STRUCTURE.finditer(text):
        character, position = match.group(), match.start()
        if in_string:
            if position == escaped_at:
                continue
            if character == "\\":
                escaped_at = position + 1
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
            raise JSONTextError(f"the key {shown(key)} appears twice in one object")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise JSONTextError(f"{name} is not a number JSON has; every number must be finite")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise JSONTextError(f"{digits[:40]} is too large for a double; every number must be finite")
    return value


def _integer(digits: str) -> int:
    # The interpreter refuses to parse very long integers with an error of its own; no field here needs them.
    count = len(digits.lstrip("-"))
    if count > MAX_INTEGER_DIGITS:
        raise JSONTextError(f"an integer of {count} digits; at most {MAX_INTEGER_DIGITS} are read")
    return int(digits)
