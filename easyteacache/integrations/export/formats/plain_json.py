"""Plain JSON: what was resolved, for programs of your own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from easyteacache import json_text
from easyteacache.integrations.export import parsed as files
from easyteacache.integrations.export.engine import Model
from easyteacache.integrations.export.formats import plain
from easyteacache.integrations.export.numbers import Numbers
from easyteacache.integrations.export.parsed import Parsed
from easyteacache.integrations.export.spelling import ORIGIN, origin


def write(numbers: Numbers, model: Model | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """One JSON object."""
    return json_text.spell({ORIGIN: origin(numbers, remarks)} | plain.fields_of(numbers))


def read(text: str, where: str) -> Iterator[Parsed]:
    """The numbers of one object."""
    content = files.json_object(text, where)
    yield plain.parse(content, where, files.origin_in(content).get("model_key"))
