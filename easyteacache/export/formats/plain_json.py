"""Plain JSON: what was resolved, for programs of your own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from easyteacache.export import parsed as files
from easyteacache.export.engine import CachedModels
from easyteacache.export.formats import plain
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import ORIGIN, origin
from easyteacache.files import strict_json


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """One JSON object."""
    return strict_json.spell({ORIGIN: origin(numbers, remarks)} | plain.fields_of(numbers))


def read(text: str, where: str) -> Iterator[Parsed]:
    """The numbers of one object."""
    content = files.json_object(text, where)
    yield plain.parse(content, where, files.key_of_origin(content))
