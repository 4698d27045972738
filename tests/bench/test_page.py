"""docs/benchmarks.md says what the raw results beside it say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from easyteacache.bench import roster
from easyteacache.bench.curves import Interval, Standing
from easyteacache.bench.results import FAILED, MEASURED, Cell


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("docs/benchmarks_page.py")


def test_every_table_is_what_the_raw_results_give(tool: ModuleType) -> None:
    cases, page = tool.read(), tool.PAGE.read_text(encoding="utf-8")
    # What is not measured yet has no file.
    assert set(tool.SHIFT_3_LABELS) <= set(cases) <= set(tool.LABELS)
    assert any(key in cases for key in tool.MATCHED_LABELS)
    assert tool.with_tables(page, cases) == page, "run python tools/docs/benchmarks_page.py"
    for file, case in tool.LABELS:
        assert f"<!-- generated: {file} {case} -->" in page
    assert page.count("<!-- generated: ") == page.count("<!-- end of generated -->") == 4 + 7 + 5 + 1 + len(tool.LABELS)


def standing(kind: str, mean: float, worst: float, family: str = "test") -> Standing:
    cell = Cell("a@8", "x", kind, family, "blocks", "", MEASURED)
    return Standing(cell, Interval(mean, mean, mean), worst, 1.0, None, None)


def test_who_is_ahead_in_the_mean_or_in_the_worst_tenth_is_named_first(tool: ModuleType) -> None:
    (key, label), *_ = tool.MATCHED_LABELS.items()
    own, ahead = standing("own", 50.0, 40.0), standing("forecast", 49.0, 41.5)
    targets = [
        {"target": 1.5, "standings": {"EasyTeaCache": own, "other": standing("hold", 49.9, 40.0)}, "differences": []},
        {"target": 2.0, "standings": {"EasyTeaCache": own, "other": ahead}, "differences": []},
    ]
    page = "<!-- generated: matched, ahead of us -->\nold\n<!-- end of generated -->"
    found = tool.with_tables(page, {key: {"targets": targets}})
    assert f"* **other** at 2× ({label}): −1.0 dB in the mean, +1.5 dB in the worst tenth" in found
    assert "at 1.5×" not in found
    alone = tool.with_tables(page, {key: {"targets": targets[:1]}})
    assert "Nowhere: no contender is ahead" in alone


def test_choices_stand_beside_the_best_candidate_and_their_losses_are_added_up(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(*psnr: float) -> dict[str, Any]:
        return {"computed": [0], "filled_by": "linear", "psnr": list(psnr)}

    ways = {"6 runs": row(50.0, 40.0), "16 runs": row(52.0, 44.0), "6 runs, measured": row(53.0, 47.0)}
    contested = {**ways, "candidates": [row(52.0, 44.0), row(55.0, 49.0)]}
    file = tmp_path / "choice.json"
    file.write_text(json.dumps({"settings": {"wan-3": {"25": contested, "12": ways}}}))
    monkeypatch.setattr(tool, "CHOICE", file)
    found = tool.with_tables("<!-- generated: choice -->\n<!-- end of generated -->", {})
    assert "| Wan-class, Euler, shift 3 | 6 runs | 45.0 (40.0) | 45.0 (40.0) |" in found
    assert "| best of all candidates | 52.0 (49.0) of 2 | – |" in found
    assert "in the mean of 2 cells: 6 runs −3.0 dB, 6 runs, measured +2.0 dB" in found
    assert "4.0 dB below the best candidate in the mean of 1 cells, more than 1 dB in 1 of 1, 4.0 dB at most" in found
    assert "the choice from 6 runs loses more than 1 dB in 2 of 2, 3.0 dB at most" in found


def test_the_plan_without_a_record_is_compared_with_others_code_alone(tool: ModuleType) -> None:
    key = next(iter(tool.MATCHED_LABELS))
    standings = {
        "EasyTeaCache": standing("own", 60.0, 50.0),
        "uncalibrated": standing("forecast", 50.0, 40.0, family=tool.RUNTIME),
        "even": standing("forecast", 55.0, 45.0, family=tool.RUNTIME),
        "other": standing("hold", 48.5, 41.0),
    }
    page = "<!-- generated: matched, plan without a record -->\n<!-- end of generated -->"
    found = tool.with_tables(page, {key: {"targets": [{"target": 2.0, "standings": standings, "differences": []}]}})
    assert "| +1.5 (−1.0) |" in found


def test_plans_chosen_by_sampling_are_ours_and_have_an_aim_of_their_own(tool: ModuleType) -> None:
    first, second = list(tool.MATCHED_LABELS)[:2]
    standings = {
        "EasyTeaCache": standing("own", 60.0, 50.0),
        "EasyTeaCache, measured": standing("own, measured", 63.0, 54.0),
        "other": standing("hold", 56.5, 48.0),
    }
    without = {name: one for name, one in standings.items() if name != "EasyTeaCache, measured"}
    cases = {
        key: {"targets": [{"target": 2.0, "standings": each, "differences": []}]}
        for key, each in ((first, standings), (second, without))
    }

    def shown(what: str) -> str:
        return tool.with_tables(f"<!-- generated: matched, {what} -->\n<!-- end of generated -->", cases)

    assert "Nowhere: no contender is ahead" in shown("ahead of us")
    assert shown("lead over everything else").count("| +3.5 (+2.0) |") == 2
    led = shown("measured, lead over other projects")
    assert f"| {tool.MATCHED_LABELS[first]} | +6.5 (+6.0) |" in led
    assert tool.MATCHED_LABELS[second] not in led
    assert f"1 of 1 cells: {tool.MATCHED_LABELS[first]}, 2× (+6.5, +6.0)." in shown("measured, short of the aim")
    cases = {second: cases[second]}
    assert "Not measured yet." in shown("measured, lead over other projects")


def test_a_changed_figure_is_put_right_and_an_unknown_table_is_named(tool: ModuleType) -> None:
    cases, page = tool.read(), tool.PAGE.read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| **EasyTeaCache**"))
    edited = page.replace(row, row.replace("**", "**9", 3))
    assert edited != page
    assert tool.with_tables(edited, cases) == page
    with pytest.raises(click.ClickException, match="no results for the table 'digits-50 9x9x9@50'"):
        tool.with_tables(page.replace("digits-50 4x16x16@50", "digits-50 9x9x9@50"), cases)


def test_who_was_not_measured_is_named_under_the_table_with_the_command(tool: ModuleType) -> None:
    (file, case), *_ = tool.MATCHED_LABELS
    page = f"<!-- generated: {file} {case} -->\n<!-- end of generated -->"
    assert "Not measured yet: `python tools/bench/matched.py digits-0.35 --folder runs/matched`." in tool.with_tables(
        page, {}
    )
    at = {"target": 2.0, "standings": {"EasyTeaCache": standing("own", 60.0, 50.0)}, "differences": []}
    everybody = [contender.name for contender in roster.everybody()]
    failed = Cell(case, everybody[1], "hold", "test", "blocks", "", FAILED)
    found = {"targets": [at, at], "short": [(everybody[2], 0.9, 40.0)], "missing": [failed]}
    shown = tool.with_tables(page, {(file, case): found})
    assert f"--folder runs/matched`): {', '.join(f'*{name}*' for name in everybody[3:])}." in shown
    complete = {**found, "missing": [Cell(case, name, "hold", "test", "blocks", "", FAILED) for name in everybody[1:]]}
    assert "Not measured yet" not in tool.with_tables(page, {(file, case): complete})
