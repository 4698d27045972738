"""Where in a JSON text a value stands: findings name a place by pointer, people and code review by line.

A scanner of its own, because no parser at hand gives exact lines: the marks of ``yaml.compose`` count U+2028 and U+0085 inside a
string as line ends, and YAML refuses JSON with a long name, a tab or an escaped pair of surrogates.
"""

from __future__ import annotations

import json
import re

_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def line_of(text: str, pointer: str) -> int:
    """The line, from 1, of the value at a JSON pointer, or of the nearest thing above it; 1 for a text that is no JSON."""
    wanted = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    # The open containers: where in each one we are, and how much of the way down to it is the wanted one's.
    path: list[str | int] = []
    agreed: list[int] = []
    name_expected: list[bool] = []
    best_depth, best = 0, 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token == ":" or (token in "}],:" and not path):
            continue
        if token in "}]":
            path.pop()
            agreed.pop()
            name_expected.pop()
        elif token == ",":
            path[-1] = path[-1] + 1 if isinstance(path[-1], int) else path[-1]
            name_expected[-1] = isinstance(path[-1], str)
        else:
            if token.startswith('"') and path and name_expected[-1]:
                path[-1], name_expected[-1] = _name(token), False
            depth = len(path)
            shared = agreed[-1] if path else 0
            if path and shared == depth - 1 and depth <= len(wanted) and str(path[-1]) == wanted[depth - 1]:
                shared = depth
            if shared > best_depth:
                best_depth, best = shared, match.start()
            if token in "{[":
                name_expected.append(token == "{")
                path.append("" if token == "{" else 0)
                agreed.append(shared)
    return text.count("\n", 0, best) + 1


def _name(token: str) -> str:
    """A name without its quotes and escapes."""
    if "\\" not in token:
        return token[1:-1]
    try:
        return str(json.loads(token))
    except ValueError:
        return token[1:-1]
