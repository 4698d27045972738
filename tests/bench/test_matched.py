"""The matched regime's program records, solves and measures by one command, and keeps how the record was made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from easyteacache.bench import roster
from easyteacache.bench.results import load
from easyteacache.bench.subject import Case
from easyteacache.records import calibration as records


@pytest.fixture
def tool(load_tool: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = load_tool("bench/matched.py")
    monkeypatch.setattr(
        found, "SETTINGS", {"tiny": found.Setting(found.WAN, 0.35, (Case(1, 16, 16, 8),), targets=(1.5, 2.0))}
    )
    monkeypatch.setattr(found, "RUNS", 6)
    return found


@pytest.mark.slow
def test_one_command_records_solves_and_measures_and_goes_on_where_it_stopped(tool: ModuleType, tmp_path: Path) -> None:
    where = ["--folder", str(tmp_path / "work"), "--results", str(tmp_path), "--pairs", "2"]
    names = ["--contender", "EasyTeaCache", "--contender", "uncalibrated", "--contender", "EasyTeaCache, measured"]
    result = CliRunner().invoke(tool.main, [*where, *names[:2]], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    made = (tmp_path / "work" / "tiny.json").read_bytes()
    assert CliRunner().invoke(tool.main, [*where, *names], catch_exceptions=False).exit_code == 0
    assert (tmp_path / "work" / "tiny.json").read_bytes() == made
    found = load(tmp_path / "matched-tiny.json")
    assert found.setup["sampler"] == {"name": "euler", "shift": 0.35}
    assert {cell.contender for cell in found.cells if cell.state == "measured"} == {*names[1::2]}
    assert found.solved["runs"] == 6
    assert len(found.solved["commit"]) == 40
    assert any(len(plan) == 4 for plan in found.solved["plans"]["8"])
    assert found.solved["measured"].keys() == {"commit", "runs", "plans"}
    # Those plans were sampled before they were chosen, and the record says so.
    chosen = records.load(tmp_path / "work" / "tiny-measured.json")
    assert (tmp_path / "work" / "tiny-measured.sampled.json").exists()
    assert chosen != records.load(tmp_path / "work" / "tiny.json")
    # Nothing of the page is timed, so that no uncached run is repeated for it.
    assert all(ratio is None for cell in found.cells for ratio in cell.pairs["ratio"])


def test_the_flux_settings_ask_for_a_trained_transformer(
    load_tool: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    tool = load_tool("bench/matched.py")
    result = CliRunner().invoke(tool.main, ["flux-0.35", "--folder", str(tmp_path)])
    assert result.exit_code == 2
    assert "flux-0.35 needs --flux" in result.output


def test_every_setting_is_on_the_page_and_everybody_takes_part(load_tool: Callable[[str], ModuleType]) -> None:
    tool, page = load_tool("bench/matched.py"), load_tool("docs/benchmarks_page.py")
    measured = {(f"matched-{name}", case.name) for name, setting in tool.SETTINGS.items() for case in setting.cases}
    assert measured == {key for key in page.LABELS if key[0].startswith(page.MATCHED_FILES)}
    asked = {"DPCache", "MeanCache", "Spectrum", "L2P", "EasyCache", "DiCache", "LeMiCa", "uncalibrated", "even"}
    assert asked <= {contender.name for contender in roster.everybody()}
