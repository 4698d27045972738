"""Where in a JSON text a value stands: findings name a place by pointer, people and code review by line."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def line_of(text: str, pointer: str) -> int:
    """The line, from 1, of the value at a JSON pointer, or of the nearest thing above it; 1 for a text that is no JSON."""
    wanted = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    best_depth, best = 0, 1
    for path, offset in _places(text):
        depth = _shared(path, wanted)
        if depth > best_depth:
            best_depth, best = depth, text.count("\n", 0, offset) + 1
    return best


def _places(text: str) -> Iterator[tuple[list[str], int]]:
    """``(path, offset)`` of every name and value, in the text's order."""
    path: list[str | int] = []
    name_expected: list[bool] = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token == ":" or (token in "}],:" and not path):
            continue
        if token in "}]":
            path.pop()
            name_expected.pop()
        elif token == ",":
            path[-1] = path[-1] + 1 if isinstance(path[-1], int) else path[-1]
            name_expected[-1] = isinstance(path[-1], str)
        else:
            if token.startswith('"') and path and name_expected[-1]:
                path[-1], name_expected[-1] = token[1:-1], False
            yield [str(part) for part in path], match.start()
            if token in "{[":
                name_expected.append(token == "{")
                path.append("" if token == "{" else 0)


def _shared(path: list[str], wanted: list[str]) -> int:
    count = 0
    for a, b in zip(path, wanted, strict=False):
        if a != b:
            break
        count += 1
    return count
