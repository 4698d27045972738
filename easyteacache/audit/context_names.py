"""The names that a place in a file stands under: keys, variables, conditions, functions, classes, sections."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

# How far back the lexical search for enclosing names goes, characters.
REACH = 200_000
_LONGEST_NAME = 80

_YAML = frozenset({".yaml", ".yml"})
_PYTHON = frozenset({".py", ".pyi"})
# Where the rest of the line is all there is to go by, as in a table of a README.
_PROSE = frozenset({"", ".md", ".txt", ".rst"})
_KEY_BEFORE = re.compile(
    r"""(?:(?P<quote>["'])(?P<quoted>[^"'\n]{1,80})(?P=quote)|(?P<bare>[A-Za-z_][\w.\-]{0,79}))"""
    # Tuples and C++ initialisers put a comma behind a quoted key.
    r"""(?:\s*\[\s*\w*\s*\])?\s*(?:[:=]|=>|:=|(?<=["'])\s*,)\s*"""
    # What may stand between the name and the bracket: calls and constructors such as np.array( or new float[].
    r"""(?:(?:(?:[\w.<>*&]|::)+[ \t]+){0,2}(?:[\w.<>*&]|::)*(?:\[\s*\w*\s*\])?\s*[({]?\s*){0,3}$"""
)
_CALL_BEFORE = re.compile(r"([A-Za-z_]\w{0,79})\s*$")
_BRACKET = re.compile(r"[\[\](){}]")
_TOML_SECTION = re.compile(r"(?m)^\s*\[+\s*([^\[\]\n]{1,80}?)\s*\]+\s*(?:#.*)?$")
_PYTHON_PARENT = re.compile(r"^([ \t]*)(?:(?:async )?def|class|if|elif)\b[ \t]*([^\n:(]*)")
_YAML_KEY = re.compile(r"""^(\s*(?:-\s+)*)(?:"([^"\n]+)"|'([^'\n]+)'|([^\s#'"\-][^:#\n]*?))\s*:(?:\s|$)""")

Place = tuple[int, int]


class Names:
    """Looks up the names at places of one text; a Python file that parses is read by its syntax tree."""

    def __init__(self, text: str, *, suffix: str, line_starts: Sequence[int]) -> None:
        self._text, self._suffix, self._starts = text, suffix.lower(), line_starts
        self._tree = _python_names(text) if self._suffix in _PYTHON else {}

    def at(self, offset: int) -> tuple[str, ...]:
        """Names around the list that begins at ``offset``, the nearest first, without repeats."""
        found = self._from_tree(offset)
        if found is None:
            found = [*self._lexical(offset)]
        return tuple(dict.fromkeys(name.strip()[:_LONGEST_NAME] for name in found if name.strip()))

    def _from_tree(self, offset: int) -> list[str] | None:
        if not self._tree:
            return None
        start = self._line_start(offset)
        line = self._text.count("\n", 0, offset) + 1
        column = len(self._text[start:offset].encode("utf-8"))
        return self._tree.get((line, column))

    def _line_start(self, offset: int) -> int:
        return self._text.rfind("\n", 0, offset) + 1

    def _lexical(self, offset: int) -> Iterator[str]:
        before = self._text[max(0, offset - REACH) : offset]
        key = _key_before(before)
        if key:
            yield key
        elif self._suffix in _PROSE:
            yield self._text[self._line_start(offset) : offset].strip(" \t\"'#/*|>[({:=,-")
        if self._suffix in _YAML:
            yield from _yaml_parents(self._text[: self._line_end(offset)])
            return
        yield from _enclosing(before)
        if self._suffix in _PYTHON:
            yield from _python_parents(before)
        if self._suffix == ".toml":
            sections = _TOML_SECTION.findall(before)
            yield from sections[-1:]

    def _line_end(self, offset: int) -> int:
        end = self._text.find("\n", offset)
        return len(self._text) if end < 0 else end


def _key_before(before: str) -> str | None:
    match = _KEY_BEFORE.search(before[-300:])
    return None if match is None else match["quoted"] or match["bare"]


def _enclosing(before: str) -> Iterator[str]:
    """Keys of the open brackets around the end of ``before``, inside out."""
    depth = 0
    for match in reversed(list(_BRACKET.finditer(before))):
        if match.group() in "])}":
            depth += 1
        elif depth:
            depth -= 1
        else:
            outside = before[max(0, match.start() - 300) : match.start()]
            name = _key_before(outside)
            called = _CALL_BEFORE.search(outside)
            if name or called:
                yield name or called[1]  # type: ignore[index]


def _python_parents(before: str) -> Iterator[str]:
    """Functions, classes and conditions above, by indentation: for comments, and for files that do not parse."""
    lines = before.split("\n")
    limit = len(lines[-1]) - len(lines[-1].lstrip())
    for line in reversed(lines[:-1]):
        match = _PYTHON_PARENT.match(line)
        if match is not None and len(match[1]) < limit:
            limit = len(match[1])
            yield match[2]


def _yaml_parents(text: str) -> Iterator[str]:
    """Keys of less indented lines above the last one, inside out."""
    lines = text[-REACH:].split("\n")
    indent = len(lines[-1]) - len(lines[-1].lstrip())
    # The items of a block sequence may stand as far left as their own key.
    limit = indent + 1 if lines[-1].lstrip().startswith("- ") else indent
    own = _YAML_KEY.match(lines[-1])
    if own is not None:
        limit = len(own[1])
    for line in reversed(lines[:-1]):
        match = _YAML_KEY.match(line)
        if match is not None and len(match[1]) < limit:
            limit = len(match[1])
            yield match[2] or match[3] or match[4]


def _python_names(text: str) -> dict[Place, list[str]]:
    """(line, byte column) of every list and tuple → names around it; empty when the text is not valid Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    places: dict[Place, list[str]] = {}
    # An explicit stack: deeply nested literals must not exhaust the interpreter's.
    pending: list[tuple[ast.AST, tuple[str, ...]]] = [(tree, ())]
    while pending:
        node, names = pending.pop()
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            places[(node.lineno, node.col_offset)] = list(names)
        if isinstance(node, ast.Call):
            # f(1.0, 2.0): the bracket stands behind the called name.
            places.setdefault((node.func.end_lineno or 0, node.func.end_col_offset or 0), [_label(node.func), *names])
        pending.extend(_children(node, names))
    return places


def _children(node: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            yield value, (*(_labels(key) if key is not None else ()), *names)
    elif isinstance(node, (ast.If, ast.IfExp)):
        chosen = node.body if isinstance(node, ast.If) else [node.body]
        otherwise = node.orelse if isinstance(node, ast.If) else [node.orelse]
        yield node.test, names
        yield from ((child, (*_labels(node.test), *names)) for child in chosen)
        yield from ((child, names) for child in otherwise)
    elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.AugAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        labels = tuple(label for target in targets for label in _labels(target))
        if node.value is not None:
            yield node.value, (*labels, *names)
    else:
        own = _own_name(node)
        for child in ast.iter_child_nodes(node):
            yield child, (*own, *names)


def _own_name(node: ast.AST) -> tuple[str, ...]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return (node.name,)
    if isinstance(node, ast.keyword) and node.arg is not None:
        return (node.arg,)
    return ()


def _labels(node: ast.AST) -> tuple[str, ...]:
    """Strings, names and attributes in an expression: what a key, a target or a condition speaks of."""
    found = [
        part
        for part in ast.walk(node)
        if isinstance(part, (ast.Name, ast.Attribute))
        or (isinstance(part, ast.Constant) and isinstance(part.value, str))
    ]
    return tuple(_label(part) for part in found)


def _label(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return str(getattr(node, "attr", None) or getattr(node, "id", ""))
