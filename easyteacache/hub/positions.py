"""Where in a JSON text a value stands: findings name a place by pointer, people and code review by line."""

from __future__ import annotations

import re

_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def line_of(text: str, pointer: str) -> int:
    """The line, from 1, of the value at a JSON pointer, or of the nearest thing above it; 1 for a text that is no JSON."""
    wanted = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    best_depth, best = 0, 1
    path: list[str | int] = []
    name_expected: list[bool] = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token in "{[":
            name_expected.append(token == "{")
            path.append("" if token == "{" else 0)
        elif token in "}]":
            if path:
                path.pop()
                name_expected.pop()
        elif token == ",":
            if path and isinstance(path[-1], int):
                path[-1] += 1
            elif name_expected:
                name_expected[-1] = True
        elif token.startswith('"') and name_expected and name_expected[-1] and isinstance(path[-1], str):
            path[-1] = token[1:-1]
            name_expected[-1] = False
        here = [str(part) for part in path]
        depth = _shared(here, wanted)
        if depth > best_depth:
            best_depth, best = depth, text.count("\n", 0, match.start()) + 1
    return best


def _shared(path: list[str], wanted: list[str]) -> int:
    count = 0
    for a, b in zip(path, wanted, strict=False):
        if a != b:
            break
        count += 1
    return count
