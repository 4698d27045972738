"""The names that a place in a file stands under: keys, variables, conditions, functions, classes, sections.

One pass over the text serves all its places, so that the time grows with the text and not with text times lists.
"""

from __future__ import annotations

import ast
import itertools
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from easyteacache.files import python_source

# Names deeper than this many brackets, or blocks of indented lines, are not looked for further out.
DEEPEST = 256
# Of a condition, a key or the targets of an assignment, so many names count.
_MOST_LABELS = 32
_LONGEST_NAME = 80
# What stands before a bracket and may name it, characters.
_NEAR = 300

_YAML = frozenset({".yaml", ".yml"})
_PYTHON = frozenset({".py", ".pyi"})
# Where the rest of the line is all there is to go by, as in a table of a README.
_PROSE = frozenset({"", ".md", ".txt", ".rst"})
# All of these read backwards. ``=>`` and ``:=`` separate a key from its value, a single colon or equals sign does, ``::`` does not.
_SEPARATOR = re.compile(r">=|=:|=|:(?!:)")
_QUOTED = re.compile(r"""(["'])([^"'\n]{1,80})\1""")
_BARE = re.compile(r"[\w.\-]{0,79}[A-Za-z_]")
_INDEX = re.compile(r"\][ \t]*\w*[ \t]*\[")
_SPACES = re.compile(r"\s*")
# What may stand between the name and the bracket: types, calls and constructors such as np.array( or new float[].
_FILLER = re.compile(r"(?:[\w.<*&>]|::)+|\][ \t]*\w*[ \t]*\[|[({]")
_MOST_FILLERS = 6
_CALL_BEFORE = re.compile(r"([A-Za-z_]\w{0,79})\s*$")
_BRACKET = re.compile(r"[\[\](){}]")
_TOML_SECTION = re.compile(r"(?m)^[ \t]*\[+[ \t]*([^\[\]\n]{1,80}?)[ \t]*\]+[ \t]*(?:#.*)?$")
_PYTHON_PARENT = re.compile(r"^([ \t]*)(?:(?:async )?def|class|if|elif)\b[ \t]*([^\n:(]*)")
_YAML_KEY = re.compile(r"""^(\s*(?:-\s+)*)(?:"([^"\n]+)"|'([^'\n]+)'|([^\s#'"\-][^:#\n]*?))\s*:(?:\s|$)""")

Place = tuple[int, int]


class _Parent(NamedTuple):
    """A line that names what is indented below it."""

    indent: int
    name: str


def names_at(text: str, offsets: Sequence[int], *, suffix: str) -> list[tuple[str, ...]]:
    """Names around the lists that begin at ``offsets``, the nearest first, without repeats.

    Args:
        text: content of a file, valid or not. Python that parses is read by its syntax tree.
        offsets: where lists begin, ascending.
        suffix: the file's ending.
    """
    suffix = suffix.lower()
    tree = _python_names(text) if suffix in _PYTHON else {}
    found: list[Sequence[str] | None] = [None] * len(offsets)
    if tree:
        found = [tree.get(place) for place in _places(text, offsets)]
    missing = [offset for offset, names in zip(offsets, found, strict=True) if names is None]
    lexical = _lexical(text, missing, suffix)
    chosen = (next(lexical) if names is None else names for names in found)
    return [tuple(dict.fromkeys(name.strip()[:_LONGEST_NAME] for name in names if name.strip())) for names in chosen]


def _places(text: str, offsets: Sequence[int]) -> Iterator[Place]:
    """(line, byte column) of each offset, as the syntax tree counts them."""
    line, column, before = 1, 0, 0
    for offset in offsets:
        newlines = text.count("\n", before, offset)
        if newlines:
            line, column, before = line + newlines, 0, text.rfind("\n", before, offset) + 1
        column += len(text[before:offset].encode("utf-8", "surrogatepass"))
        before = offset
        yield line, column


def _lexical(text: str, offsets: Sequence[int], suffix: str) -> Iterator[list[str]]:
    """Names by what stands before each place, for files that are no Python or do not parse."""
    indented = _indented(text, offsets, suffix)
    if suffix in _YAML:
        around: Iterator[list[str]] = itertools.repeat([])
    else:
        around = _enclosing(text, offsets)
    sections = _sections(text, offsets) if suffix == ".toml" else itertools.repeat([])
    start = before = 0
    for offset in offsets:
        start, before = max(start, text.rfind("\n", before, offset) + 1), offset
        own: list[str] = []
        key = _key_before(text, offset)
        if key:
            own = [key]
        elif suffix in _PROSE:
            own = [text[start : min(offset, start + _NEAR)].strip(" \t\"'#/*|>[({:=,-")]
        yield [*own, *next(around), *next(indented), *next(sections)]


def _key_before(text: str, offset: int) -> str | None:
    """The key, or variable, that what begins at ``offset`` is given to: ``"flux": np.array(``, ``flux = new float[] {``.

    Read backwards, token by token: every character is looked at once, whatever the text.
    """
    reverse = text[max(0, offset - _NEAR) : offset][::-1]
    place = _after_spaces(reverse, 0)
    for _ in range(_MOST_FILLERS + 1):
        if reverse.startswith(",", place):
            # Tuples and C++ initialisers put a comma behind a quoted key.
            quoted = _QUOTED.match(reverse, _after_spaces(reverse, place + 1))
            return None if quoted is None else quoted[2][::-1]
        separator = _SEPARATOR.match(reverse, place)
        if separator is not None:
            return _key_ending_at(reverse, separator.end())
        filler = _FILLER.match(reverse, place)
        if filler is None:
            return None
        place = _after_spaces(reverse, filler.end())
    return None


def _key_ending_at(reverse: str, place: int) -> str | None:
    place = _after_spaces(reverse, place)
    index = _INDEX.match(reverse, place)
    if index is not None:
        place = _after_spaces(reverse, index.end())
    quoted = _QUOTED.match(reverse, place)
    if quoted is not None:
        return quoted[2][::-1]
    bare = _BARE.match(reverse, place)
    return None if bare is None else bare.group()[::-1]


def _after_spaces(reverse: str, place: int) -> int:
    match = _SPACES.match(reverse, place)
    return place if match is None else match.end()


def _enclosing(text: str, offsets: Sequence[int]) -> Iterator[list[str]]:
    """Keys of the open brackets around each place, inside out."""
    brackets = _BRACKET.finditer(text)
    pending = next(brackets, None)
    opened: deque[tuple[int, str | None]] = deque(maxlen=DEEPEST)
    for offset in offsets:
        while pending is not None and pending.start() < offset:
            if pending.group() in "[({":
                opened.append((pending.start(), None))
            elif opened:
                opened.pop()
            pending = next(brackets, None)
        # Named when first asked for: most brackets of a file enclose no list.
        for position, (place, name) in enumerate(opened):
            if name is None:
                opened[position] = (place, _name_of_bracket(text, place))
        yield [name for _, name in reversed(opened) if name]


def _name_of_bracket(text: str, place: int) -> str:
    outside = text[max(0, place - _NEAR) : place]
    called = _CALL_BEFORE.search(outside)
    return _key_before(text, place) or (called[1] if called else "")


def _indented(text: str, offsets: Sequence[int], suffix: str) -> Iterator[list[str]]:
    """Names of the less indented lines above each place, inside out: keys of YAML, functions and classes of Python."""
    if suffix not in _YAML | _PYTHON:
        yield from itertools.repeat([], len(offsets))
        return
    yaml = suffix in _YAML
    parents: deque[_Parent] = deque(maxlen=DEEPEST)
    lines = _lines(text)
    start, end = next(lines)
    for offset in offsets:
        while end < offset:
            _take(parents, text[start:end], yaml=yaml)
            start, end = next(lines)
        limit = _limit(text[start : end if yaml else offset], yaml=yaml)
        # Indents fall from the inside out, so that what is indented further stands at the end.
        count = bisect_right([parent.indent for parent in parents], limit - 1)
        yield [parent.name for parent in itertools.islice(parents, count)][::-1]


def _lines(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every line, without its newline."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield start, end
        start = end + 1
    yield start, len(text)


def _take(parents: deque[_Parent], line: str, *, yaml: bool) -> None:
    match = (_YAML_KEY if yaml else _PYTHON_PARENT).match(line)
    if match is None:
        return
    indent = len(match[1])
    while parents and parents[-1].indent >= indent:
        parents.pop()
    parents.append(_Parent(indent, match[2] or match[3] or match[4] if yaml else match[2]))


def _limit(line: str, *, yaml: bool) -> int:
    """How far a line must be indented less than this one to name it."""
    indent = len(line) - len(line.lstrip())
    if not yaml:
        return indent
    own = _YAML_KEY.match(line)
    if own is not None:
        return len(own[1])
    # The items of a block sequence may stand as far left as their own key.
    return indent + 1 if line.lstrip().startswith("- ") else indent


def _sections(text: str, offsets: Sequence[int]) -> Iterator[list[str]]:
    """The TOML table that each place lies in."""
    headings = _TOML_SECTION.finditer(text)
    pending, name = next(headings, None), None
    for offset in offsets:
        while pending is not None and pending.end() <= offset:
            name, pending = pending[1], next(headings, None)
        yield [] if name is None else [name]


def _python_names(text: str) -> dict[Place, tuple[str, ...]]:
    """(line, byte column) of every list and tuple → names around it; empty when the text is not valid Python."""
    try:
        tree = python_source.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    places: dict[Place, tuple[str, ...]] = {}
    # An explicit stack: deeply nested literals must not exhaust the interpreter's.
    pending: list[tuple[ast.AST, tuple[str, ...]]] = [(tree, ())]
    while pending:
        node, names = pending.pop()
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            places[(node.lineno, node.col_offset)] = names
        if isinstance(node, ast.Call):
            # f(1.0, 2.0): the bracket stands behind the called name.
            places.setdefault((node.func.end_lineno or 0, node.func.end_col_offset or 0), (_label(node.func), *names))
        pending.extend(_children(node, names))
    return places


def _children(node: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            yield value, (*(_labels(key) if key is not None else ()), *names)
    elif isinstance(node, (ast.If, ast.IfExp)):
        chosen = node.body if isinstance(node, ast.If) else [node.body]
        otherwise = node.orelse if isinstance(node, ast.If) else [node.orelse]
        inside = (*_labels(node.test), *names)
        yield node.test, names
        yield from ((child, inside) for child in chosen)
        yield from ((child, names) for child in otherwise)
    elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.AugAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if node.value is not None:
            yield (
                node.value,
                (*itertools.islice((label for target in targets for label in _labels(target)), _MOST_LABELS), *names),
            )
    else:
        inside = (*_own_name(node), *names)
        for child in ast.iter_child_nodes(node):
            yield child, inside


def _own_name(node: ast.AST) -> tuple[str, ...]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return (node.name,)
    if isinstance(node, ast.keyword) and node.arg is not None:
        return (node.arg,)
    return ()


def _labels(node: ast.AST) -> tuple[str, ...]:
    """Strings, names and attributes in an expression: what a key, a target or a condition speaks of."""
    found = (
        part
        for part in ast.walk(node)
        if isinstance(part, (ast.Name, ast.Attribute))
        or (isinstance(part, ast.Constant) and isinstance(part.value, str))
    )
    return tuple(_label(part) for part in itertools.islice(found, _MOST_LABELS))


def _label(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)[:_LONGEST_NAME]
    return str(getattr(node, "attr", None) or getattr(node, "id", ""))
