"""Plain Python: what was resolved as a module of constants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from easyteacache.export import parsed as files
from easyteacache.export.engine import CachedModels
from easyteacache.export.formats import plain
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import header, python_literal


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """One constant a field, in capitals."""
    lines = [f"{name.upper()} = {python_literal(value)}\n" for name, value in plain.fields_of(numbers).items()]
    return header(numbers, remarks) + "\n" + "".join(lines)


def read(text: str, where: str) -> Iterator[Parsed]:
    """The numbers of one module, read without running it."""
    content = {name.lower(): value for name, value in files.python_values(text, where).items()}
    yield plain.parse(content, where, files.key_in(text))
