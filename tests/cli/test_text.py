from __future__ import annotations

from collections.abc import Sequence

import click
import pytest

from easyteacache.cli import text
from easyteacache.cli.text import Column


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def table(columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a table as they stand where there are no colours."""
    return click.unstyle(text.table(columns, rows)).splitlines()


@pytest.mark.parametrize(
    ("word", "width"), [("plain", 5), ("万象", 4), ("e\u0301", 1), ("", 0), ("ｆｕｌｌ", 8), ("█·…", 3)]
)
def test_display_width_counts_terminal_columns(word: str, width: int) -> None:
    assert text.display_width(word) == width


@pytest.mark.parametrize(
    ("word", "width", "expected"),
    [("short", 5, "short"), ("longer", 5, "long…"), ("万万万", 5, "万万…"), ("万万万", 4, "万…"), ("a b c", 3, "a…")],
)
def test_shorten_never_exceeds_its_width(word: str, width: int, expected: str) -> None:
    assert text.shorten(word, width) == expected
    assert text.display_width(text.shorten(word, width)) <= width


def test_a_table_cuts_the_widest_of_the_columns_that_may_be_cut() -> None:
    columns = [Column("KEY"), Column("LONG", cut=True), Column("SHORT", cut=True)]
    lines = table(columns, [("k" * 30, "l" * 60, "s" * 10)])
    assert [len(line) for line in lines][1] == 80
    assert "k" * 30 in lines[1]
    assert "s" * 10 in lines[1]
    assert lines[1].count("…") == 1


def test_numbers_stand_right_and_words_left() -> None:
    lines = table([Column("N", "right"), Column("W")], [(1, "a"), (100, "bb")])
    assert lines == ["  N  W", "  1  a", "100  bb"]


def test_a_column_without_values_is_left_out_and_a_missing_value_is_a_dash() -> None:
    lines = table([Column("A"), Column("B"), Column("C")], [("x", None, None), ("y", None, 1)])
    assert lines == ["A  C", "x  –", "y  1"]


def test_a_table_without_rows_is_its_heading() -> None:
    assert table([Column("A"), Column("B")], []) == ["A  B"]


def test_a_paragraph_hangs_below_its_bullet() -> None:
    lines = text.paragraph("word " * 40, indent="  ", bullet="- ").splitlines()
    assert lines[0].startswith("  - word")
    assert all(line.startswith("    word") for line in lines[1:])
    assert max(map(len, lines)) <= 80


def test_nothing_that_a_terminal_acts_on_is_printed() -> None:
    assert "\x1b" not in text.paragraph("a\x1b[2Jb\x07")
    assert "\x9b" not in text.plain("\x9b2J")
