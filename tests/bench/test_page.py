"""docs/benchmarks.md says what the raw results beside it say."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import click
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_page", ROOT / "tools" / "benchmarks_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_is_what_the_raw_results_give(tool: ModuleType) -> None:
    cases, page = tool.read(), tool.PAGE.read_text(encoding="utf-8")
    assert set(cases) == set(tool.LABELS)
    assert tool.with_tables(page, cases) == page, "run python tools/benchmarks_page.py"
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
