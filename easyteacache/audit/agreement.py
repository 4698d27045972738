"""How far two lists of coefficients agree: exactly, rounded, but for one coefficient, or but for signs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

Kind = Literal["exact", "rounded", "near", "unsigned"]

# Fewest significant digits that must agree before a rounded or partial agreement is no coincidence.
_DIGITS = 10


def agree(numbers: Sequence[float], wanted: Sequence[float]) -> tuple[Kind, str | None] | None:
    """How ``numbers`` agree with ``wanted``, both highest degree first without leading zeros.

    Returns:
        The kind of agreement and, for ``near`` and ``unsigned``, the difference in words; None when they do not agree.
    """
    if len(numbers) != len(wanted):
        return None
    if tuple(numbers) == tuple(wanted) and (len(wanted) > 2 or _digits(wanted) >= _DIGITS):
        return "exact", None
    same = [_same_to_printed_digits(a, b) for a, b in zip(numbers, wanted, strict=True)]
    agreed = sum(min(_significant(a), _significant(b)) for a, b, ok in zip(numbers, wanted, same, strict=True) if ok)
    if all(same):
        return ("rounded", None) if agreed >= _DIGITS else None
    if same.count(False) == 1 and len(wanted) > 2 and agreed >= _DIGITS:
        place = same.index(False)
        return "near", _difference(numbers[place], wanted[place], len(wanted) - 1 - place)
    unsigned = [_same_to_printed_digits(abs(a), abs(b)) for a, b in zip(numbers, wanted, strict=True)]
    if all(unsigned) and sum(map(_significant, numbers)) >= _DIGITS:
        return "unsigned", f"{same.count(False)} of {len(wanted)} signs differ"
    return None


def _printed(value: float) -> str:
    """Significant digits of the shortest decimal that reads back as ``value``; none for 0."""
    return repr(abs(value)).partition("e")[0].replace(".", "").strip("0")


def _significant(value: float) -> int:
    return len(_printed(value))


def _digits(values: Iterable[float]) -> int:
    return sum(map(_significant, values))


def _same_to_printed_digits(a: float, b: float) -> bool:
    """Equal, or one is the other rounded (or cut) to as many digits as it prints, at least three."""
    if a == b:
        return True
    if a == 0 or b == 0 or (a < 0) != (b < 0):
        return False
    digits = min(_significant(a), _significant(b))
    if digits < 3 or _significant(a) == _significant(b):
        return False
    return abs(a - b) < 10.0 ** (math.floor(math.log10(min(abs(a), abs(b)))) - digits + 1)


def _difference(found: float, wanted: float, power: int) -> str:
    what = "another value"
    if found == -wanted:
        what = "the sign differs"
    else:
        a, b = _printed(found), _printed(wanted)
        if len(a) == len(b) and sum(x != y for x, y in zip(a, b, strict=True)) == 1:
            what = "one digit differs"
        elif a == b:
            what = "another power of ten"
        elif _inside(a, b) or _inside(b, a):
            what = "digits are missing" if len(a) < len(b) else "there are digits too many"
    return f"the coefficient of x^{power} is {found!r} instead of {wanted!r} ({what})"


def _inside(short: str, long: str) -> bool:
    """True when ``long`` without some of its digits, at most half, reads ``short``."""
    rest = iter(long)
    return len(long) // 2 <= len(short) < len(long) and all(digit in rest for digit in short)
