"""docs/benchmarks.md says what the raw results beside it say."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import click
import pytest


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("docs/benchmarks_page.py")


def test_every_table_is_what_the_raw_results_give(tool: ModuleType) -> None:
    cases, page = tool.read(), tool.PAGE.read_text(encoding="utf-8")
    assert set(cases) == set(tool.LABELS)
    assert tool.with_tables(page, cases) == page, "run python tools/docs/benchmarks_page.py"
    for file, case in cases:
        assert f"<!-- generated: {file} {case} -->" in page
    assert page.count("<!-- generated: ") == page.count("<!-- end of generated -->") == 2 + len(cases)


def test_a_changed_figure_is_put_right_and_an_unknown_table_is_named(tool: ModuleType) -> None:
    cases, page = tool.read(), tool.PAGE.read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| **EasyTeaCache**"))
    edited = page.replace(row, row.replace("**", "**9", 3))
    assert edited != page
    assert tool.with_tables(edited, cases) == page
    with pytest.raises(click.ClickException, match="no results for the table 'digits-50 9x9x9@50'"):
        tool.with_tables(page.replace("digits-50 4x16x16@50", "digits-50 9x9x9@50"), cases)
