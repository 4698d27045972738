"""Find lists of numbers in source and configuration files of any language, with the names that stand near them.

Brackets, braces and parentheses holding nothing but numbers, separators and comments are lists, whatever the language, in
commented-out code too; YAML block sequences as well, and in plain text comma-separated numbers on one line. Reading is lexical
and needs no valid file; names come from the syntax tree where a Python file parses.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass

from easyteacache.audit import context_names

MAX_NUMBERS = 256

# Every repetition is bounded and no two of them can share a character, so that no text makes the search slow.
_NUMBER = r"[-+]?(?:\d[\d_]{0,39}(?:\.[\d_]{0,39})?|\.\d[\d_]{0,39})(?:[eE][-+]?\d{1,3})?"
# C, C++, CUDA and Rust write the type behind the digits.
_TYPED = _NUMBER + r"(?:_?f(?:32|64)|[fFdDlL])?"
_COMMENT = r"#[^\n]{0,200}\n|//[^\n]{0,200}\n|/\*(?:[^*]|\*(?!/)){0,200}\*/"
_BETWEEN = rf"(?:[\s,;]|{_COMMENT})"
_BRACKETED = re.compile(
    rf"[\[({{]{_BETWEEN}{{0,400}}{_TYPED}(?:{_BETWEEN}{{1,400}}{_TYPED}){{1,{MAX_NUMBERS - 1}}}{_BETWEEN}{{0,400}}[\])}}]"
)
_BLOCK_SEQUENCE = re.compile(
    rf"(?:^[ \t]{{0,80}}-[ \t]{{1,8}}{_NUMBER}[ \t]{{0,80}}(?:#[^\n]{{0,200}})?(?:\r?\n|\Z)){{2,{MAX_NUMBERS}}}",
    re.MULTILINE,
)
_ONE_LINE = re.compile(
    rf"(?<![\w.]){_NUMBER}(?:[ \t]{{0,40}}[,;][ \t]{{0,40}}{_NUMBER}){{1,{MAX_NUMBERS - 1}}}(?![\w.])"
)
_SPACED = re.compile(rf"(?<![\w.]){_NUMBER}(?:[\s,;]{{1,80}}{_NUMBER}){{1,{MAX_NUMBERS - 1}}}(?![\w.])")
_ONE = re.compile(rf"({_NUMBER})(?:_?f(?:32|64)|[fFdDlL])?")
_ANY_COMMENT = re.compile(_COMMENT)

_COMMENT_BLOCK = re.compile(r"(?:^[ \t]{0,80}(?:#|//)[^\n]*\n){2,}", re.MULTILINE)
_COMMENT_MARK = re.compile(r"^[ \t]{0,80}(?:#|//)+", re.MULTILINE)

YAML = frozenset({".yaml", ".yml"})
# Where every list stands in brackets, so that numbers between commas without them mean something else.
_BRACKETS_ONLY = frozenset({".py", ".pyi", ".json", ".toml", ".ipynb", *YAML})


@dataclass(frozen=True)
class NumberList:
    """One list of numbers in a text.

    Attributes:
        numbers: in the order they are printed.
        line: where it begins, from 1.
        names: what it is filed under, the nearest name first: dictionary keys, variables, conditions, functions, classes.
    """

    numbers: tuple[float, ...]
    line: int
    names: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Plain data for ``--json``."""
        return {"numbers": list(self.numbers), "line": self.line, "names": list(self.names)}


@dataclass(frozen=True)
class Span:
    """A list's numbers and its place in the text: offsets of its first character and behind its last."""

    numbers: tuple[float, ...]
    start: int
    end: int


def find_literals(text: str, *, suffix: str = "") -> list[NumberList]:
    """Every list of 2 to 256 numbers in ``text``, with names.

    Args:
        text: content of a file, valid or not.
        suffix: its ending, ``".py"`` …; empty for text from elsewhere, where spaces may separate numbers.
    """
    return with_names(text, spans(text, suffix=suffix), suffix=suffix)


def with_names(text: str, found: list[Span], *, suffix: str) -> list[NumberList]:
    """The lists at ``found``, in ascending order, with line numbers and names."""
    if not found:
        return []
    names = context_names.names_at(text, [span.start for span in found], suffix=suffix)
    lists, line, before = [], 1, 0
    for span, own in zip(found, names, strict=True):
        line, before = line + text.count("\n", before, span.start), span.start
        lists.append(NumberList(span.numbers, line, own))
    return lists


def spans(text: str, *, suffix: str = "") -> list[Span]:
    """Every list of numbers without its names: the fast half of ``find_literals``."""
    suffix = suffix.lower()
    found = list(_matches(_BRACKETED, text))
    found += _outside(found, _commented_out(text))
    if suffix in YAML:
        found += _outside(found, _matches(_BLOCK_SEQUENCE, text))
    if suffix not in _BRACKETS_ONLY:
        found += _outside(found, _matches(_ONE_LINE if suffix else _SPACED, text))
    return sorted(found, key=lambda span: span.start)


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    for match in pattern.finditer(text):
        printed = match.group()
        if "#" in printed or "/" in printed:
            printed = _ANY_COMMENT.sub(" ", printed)
        if pattern is _BLOCK_SEQUENCE:
            printed = re.sub(r"(?m)^[ \t]*-[ \t]+", " ", printed)
        numbers = tuple(float(digits.replace("_", "")) for digits in _ONE.findall(printed))
        yield Span(numbers, match.start(), match.end())


def _commented_out(text: str) -> Iterator[Span]:
    """Lists that span several lines of a comment."""
    for block in _COMMENT_BLOCK.finditer(text):
        plain = _COMMENT_MARK.sub(lambda mark: " " * len(mark.group()), block.group())
        for span in _matches(_BRACKETED, plain):
            yield Span(span.numbers, block.start() + span.start, block.start() + span.end)


def _outside(taken: list[Span], candidates: Iterator[Span]) -> list[Span]:
    """Those candidates that do not lie inside a list in brackets."""
    starts = sorted(span.start for span in taken)
    ends = {span.start: span.end for span in taken}
    kept = []
    for span in candidates:
        before = bisect.bisect_right(starts, span.start) - 1
        if before < 0 or ends[starts[before]] <= span.start:
            kept.append(span)
    return kept
