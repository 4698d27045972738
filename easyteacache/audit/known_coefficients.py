"""The coefficient lists that can be recognised, and how far numbers agree with one: exactly, rounded, but for one, but for signs."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from easyteacache.audit.model_names import ModelName, describe
from easyteacache.records.calibration import Calibration

VARIANTS_FILE = Path(__file__).with_name("known_variants.json")

Origin = Literal["registry", "transcription", "preset"]
Kind = Literal["exact", "rounded", "near", "unsigned"]

# Fewest significant digits that must agree before a rounded or partial agreement is no coincidence.
_DIGITS = 10


@dataclass(frozen=True)
class KnownList:
    """One list of coefficients with an owner.

    Attributes:
        model_key: key of the record; of the original's record for a transcription; of the model for a preset.
        title: the owner's name as people write it.
        coefficients: highest degree first, without leading zeros.
        origin: ``registry`` for a record's own list, ``transcription`` for one printed elsewhere with other digits, ``preset``
            for lists with semantics of their own, which no record holds.
        model: what the owner's names say, to compare with the names near a find.
        note: what to know about it.
    """

    model_key: str
    title: str
    coefficients: tuple[float, ...]
    origin: Origin
    model: ModelName
    note: str | None = None


@dataclass(frozen=True)
class Borrowing:
    """A documented case of one model's numbers published for another: whose they are, for what, and where."""

    model_key: str
    title: str
    repository: str
    model: ModelName


@dataclass(frozen=True)
class Known:
    """All lists that can be recognised.

    Attributes:
        lists: each with its owner.
        borrowings: documented uses for other models.
    """

    lists: tuple[KnownList, ...]
    borrowings: tuple[Borrowing, ...] = ()

    @classmethod
    def from_calibrations(cls, records: Iterable[Calibration], *, variants: Path | None = VARIANTS_FILE) -> Known:
        """The lists of ``records`` and the variants that the package knows about.

        Args:
            records: every calibration to recognise; those without polynomials are passed over.
            variants: the file with variants and borrowings, None for the records alone.
        """
        content: dict[str, Any] = {"variants": [], "borrowings": []}
        if variants is not None:
            content = json.loads(variants.read_text(encoding="utf-8"))
        found = [known for record in records for known in _of_record(record)]
        # A list has one owner, however many models have records with it.
        owned = {(known.model_key, known.coefficients) for known in found}
        owners = {(entry["model_key"], entry["of"]) for entry in content["borrowings"]}
        found = [
            known
            for known in found
            if not any((owner, known.coefficients) in owned for key, owner in owners if key == known.model_key)
        ]
        found += [_of_variant(entry) for entry in content["variants"]]
        borrowings = tuple(
            Borrowing(entry["of"], entry["title"], entry["repository"], describe([entry["model_key"], entry["title"]]))
            for entry in content["borrowings"]
        )
        return cls(tuple(found), borrowings)

    @functools.cached_property
    def _index(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for position, known in enumerate(self.lists):
            for leading in {signature(value) for value in known.coefficients if value}:
                found.setdefault(leading, []).append(position)
        return found

    def candidates(self, numbers: Sequence[float]) -> list[KnownList]:
        """Lists that share the leading digits of enough numbers, in any order, to be worth comparing."""
        votes: Counter[int] = Counter()
        for printed in {signature(value) for value in numbers if value}:
            votes.update(self._index.get(printed, ()))
        return [self.lists[position] for position, count in votes.items() if count >= self._needed(position)]

    def _needed(self, position: int) -> int:
        return max(2, (len(self.lists[position].coefficients) + 1) // 2)


def signature(value: float) -> str:
    """Three leading digits and the power of ten, without the sign."""
    return f"{abs(value):.2e}"


def strip_leading_zeros(coefficients: Sequence[float]) -> tuple[float, ...]:
    """The same polynomial without the powers that do not occur at the high end."""
    first = next((position for position, value in enumerate(coefficients) if value), len(coefficients))
    return tuple(coefficients[first:])


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


def _of_record(record: Calibration) -> Iterable[KnownList]:
    names = [record.model_key, *(alias.value for alias in record.aliases if not alias.borrowed)]
    model = describe(names)
    for coefficients in dict.fromkeys(bucket.coefficients for bucket in record.buckets if bucket.coefficients):
        stripped = strip_leading_zeros(coefficients)
        if len(stripped) >= 2:
            yield KnownList(record.model_key, record.title, stripped, "registry", model)


def _of_variant(entry: dict[str, object]) -> KnownList:
    coefficients = tuple(float(value) for value in entry["coefficients"])  # type: ignore[attr-defined]
    return KnownList(
        model_key=str(entry["model_key"]),
        title=str(entry["title"]),
        coefficients=strip_leading_zeros(coefficients),
        origin=entry["origin"],  # type: ignore[arg-type]
        model=describe([str(entry["model_key"])]),
        note=str(entry["note"]),
    )


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
