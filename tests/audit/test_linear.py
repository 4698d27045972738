"""The work of an audit grows with the text, not with text times lists."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable

import pytest

from easyteacache.audit import context_names, scan, sign_rule
from easyteacache.audit.scan import Standard, audit_text
from easyteacache.files import python_source

LIST = "[-303318.725, 49053.7029, -2655.30556, 58.7365115, -0.315583525]"


def python(count: int) -> str:
    rows = "".join(f"    'wan2.1_t2v_14B_{i}': {LIST},\n" for i in range(count))
    return f"TABLE = {{\n{rows}}}\ndef decide(acc, x):\n    acc += abs(poly1d(x))\n"


def one_line(count: int) -> str:
    return "TABLE = {" + ", ".join(f"'wan{i}': {LIST}" for i in range(count)) + "}\n"


def unfinished(count: int) -> str:
    return "TABLE = {(\n" + "".join(f"    'wan_{i}': {LIST},\n" for i in range(count))


def functions(count: int) -> str:
    return "".join(f"def f{i}(acc, x):\n    c = {LIST}\n    acc += abs(poly1d(x))\n" for i in range(count))


def condition(count: int) -> str:
    tests = " or ".join(f"name == 'wan{i}'" for i in range(count))
    return f"if {tests}:\n" + "".join(f"    x{i} = {LIST}\n" for i in range(count))


def targets(count: int) -> str:
    return " = ".join(f"a{i}" for i in range(count)) + f" = [{', '.join([LIST] * count)}]\n"


def commented(count: int) -> str:
    return "".join(f"# wan = {LIST}\n" for _ in range(count)) + "x = 1\n"


def json(count: int) -> str:
    return "{" + ",".join(f'"wan{i}": {LIST}' for i in range(count)) + "}"


def nested(count: int) -> str:
    return "{" * count + json(count)


def yaml(count: int) -> str:
    return "flux:\n" + "".join(f"  k{i}:\n    c: {LIST}\n" for i in range(count))


def sequences(count: int) -> str:
    items = "".join(f"    - {number}\n" for number in LIST.strip("[]").split(", "))
    return "wan:\n" + "".join(f"  k{i}:\n{items}" for i in range(count))


def toml(count: int) -> str:
    return "\n" * (20 * count) + "".join(f"[wan.k{i}]\nc = {LIST}\n" for i in range(count))


def prose(count: int) -> str:
    return "".join(f"| wan{i} | {LIST.strip('[]')} |\n" for i in range(count))


def brackets(count: int) -> str:
    """Before each list what a search for a name could try in very many ways."""
    return "".join(f"a = {'( ' * 40}{'b' * 60}! {LIST}\n" for _ in range(count))


TEXTS: list[tuple[Callable[[int], str], str]] = [
    *((make, ".py") for make in (python, one_line, unfinished, functions, condition, targets, commented)),
    *((make, ".json") for make in (json, nested)),
    *((make, ".yaml") for make in (yaml, sequences)),
    (toml, ".toml"),
    (prose, ".md"),
    (prose, ""),
    *((make, ".cpp") for make in (json, brackets)),
]


def work(text: str, suffix: str, standard: Standard) -> tuple[int, int]:
    """Calls of Python and built-in functions that one audit makes, and the lists it recognised."""
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        matches, _ = audit_text(text, standard, filename=f"folder/file{suffix}")
    finally:
        sys.setprofile(None)
    return calls, len(matches)


@pytest.mark.parametrize(("make", "suffix"), TEXTS, ids=lambda value: getattr(value, "__name__", value))
def test_ten_times_the_lists_are_ten_times_the_work(
    make: Callable[[int], str], suffix: str, standard: Standard
) -> None:
    audit_text(make(1), standard, filename=f"x{suffix}")  # What is looked up once for all is not counted.
    few, found = work(make(40), suffix, standard)
    many, more = work(make(400), suffix, standard)
    assert (found, more) == (40, 400)
    assert many < 11 * few


@pytest.mark.parametrize("count", [1, 300])
def test_a_python_file_is_parsed_as_often_whatever_it_holds(
    count: int, standard: Standard, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse, times = ast.parse, []

    def counted(text: str) -> ast.Module:
        times.append(text)
        return parse(text)

    monkeypatch.setattr(ast, "parse", counted)
    audit_text(python(count), standard, filename="a.py")
    assert len(times) == 2  # Once for the names, once for the treatment of p(x).
    assert context_names.ast is sign_rule.ast is ast


def test_a_name_before_a_bracket_is_looked_for_over_a_bounded_distance() -> None:
    for text in ("a=" + "b" * 5000 + "!", "a = " + "( " * 5000, "'k'," + " " * 5000):
        (names,) = context_names.names_at(text + "[1, 2]", [len(text)], suffix=".cpp")
        assert names == ()


def test_names_of_lists_on_one_line_of_wide_characters_are_told_apart(standard: Standard) -> None:
    """The syntax tree counts columns in bytes."""
    text = "{'ключ': [1.5, 2], '流': [2.5, 3], 'flux': [4, 5]}"
    offsets = [text.index("[1.5"), text.index("[2.5"), text.index("[4")]
    assert context_names.names_at(text, offsets, suffix=".py") == [("ключ",), ("流",), ("flux",)]


def test_comments_beside_the_lists_of_one_line_are_looked_for_once(
    standard: Standard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minified file is one line: looking through it for every list would take list times line."""
    asked: list[int] = []

    def counted(lines: list[str], line: int) -> frozenset[str]:
        asked.append(line)
        return frozenset()

    monkeypatch.setattr(scan, "ignored_rules", counted)
    audit_text(json(200), standard, filename="a.json")
    assert asked == [1]


def test_a_python_file_too_long_for_a_tree_is_audited_without_one(
    standard: Standard, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded = f"flux = {LIST}\nx = [" + "1," * python_source.MAX_CHARACTERS + "]\n"
    parse, lengths = ast.parse, []

    def counted(text: str) -> ast.Module:
        lengths.append(len(text))
        return parse(text)

    monkeypatch.setattr(ast, "parse", counted)
    _, findings = audit_text(padded, standard, filename="a.py")
    monkeypatch.undo()
    assert [finding.rule for finding in findings] == ["borrowed"]
    # A tree of so much text takes gigabytes.
    assert not [length for length in lengths if length > python_source.MAX_CHARACTERS]
