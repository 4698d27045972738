"""The line of a JSON pointer: exact, whatever the text, and in time that grows with the text alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from easyteacache.hub.review.json_lines import line_of

REGISTRY = Path(__file__).resolve().parents[2] / "registry"


@pytest.mark.parametrize(
    ("text", "pointer", "line"),
    [
        ('{\n"a": 1,\n"b": 2}', "/b", 3),
        ('{\n"a": {\n"c": 1},\n"b": 2}', "/a/c", 3),
        ('{\n"a": [\n1,\n[\n5, 6\n]]}', "/a/1/1", 5),
        ('{\n"a": 1}', "/absent", 1),
        ('{\n"a": {\n"b": 1}}', "/a/absent/deeper", 2),
        ('{\n"a/b": 1,\n"c~d": 2}', "/a~1b", 2),
        ('{\n"a/b": 1,\n"c~d": 2}', "/c~0d", 3),
        ('{\n"\\u0061b": 1}', "/ab", 2),
        ('{\n"a\\"b": 1}', '/a"b', 2),
        ('{\n"x": "} ] , : {",\n"a": 1}', "/a", 3),
        ('{\n"x": "\u2028\u0085\\n",\n"a": 1}', "/a", 3),
        ('{\n\t"a":\t"\\ud83d\\ude00",\n\t"b": 1}', "/b", 3),
        ('{\n"' + "x" * 3000 + '": 1,\n"b": 1}', "/b", 3),
        ('{\n"x": {"a": 1},\n"a": 2}', "/a", 3),
        ('{\n"x": [{"a": 1}, {\n"a": 2}]}', "/x/1/a", 3),
        ("", "/a", 1),
        ("}}}]]]", "/a", 1),
        ('{"a"\n', "/a", 1),
        ('{\n"a": 1}', "", 1),
        ('{\n"": 1}', "/", 2),
    ],
)
def test_the_line_is_that_of_the_value_or_of_the_nearest_thing_above(text: str, pointer: str, line: int) -> None:
    assert line_of(text, pointer) == line


def marks(node: Any, pointer: str = "") -> Iterator[tuple[str, int]]:
    """``(pointer, line)`` of every name and item, by another parser."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{pointer}/{key.value.replace('~', '~0').replace('/', '~1')}"
            yield below, key.start_mark.line + 1
            yield from marks(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield f"{pointer}/{number}", item.start_mark.line + 1
            yield from marks(item, f"{pointer}/{number}")


def test_every_place_of_published_records_is_where_another_parser_finds_it() -> None:
    paths = sorted(REGISTRY.glob("*/*.json"))[:6]
    assert len(paths) == 6
    for path in paths:
        text = path.read_text(encoding="utf-8")
        found = list(marks(yaml.compose(text, Loader=yaml.SafeLoader)))
        for pointer, line in found[:: max(1, len(found) // 40)]:
            assert line_of(text, pointer) == line, f"{path}: {pointer}"
        assert json.loads(text)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000, '["a",' * 50_000])
def test_a_text_of_many_levels_costs_no_more_than_its_length(text: str) -> None:
    """Squared, this would be hours."""
    assert line_of(text, "/a/b") == 1
