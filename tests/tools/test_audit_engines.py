"""The page of what released engines ship: fresh, unpacked without harm, and changed only when something changed."""

from __future__ import annotations

import datetime
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

# easyteacache-audit: ignore
BORROWED = "flux = [2.57151496e+05, -3.54229917e+04, 1.40286849e+03, -1.35890334e+01, 1.32517977e-01]\n"


@pytest.fixture
def tool(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("audit_engines.py")


@pytest.fixture
def wheel(tmp_path: Path) -> Callable[..., Path]:
    """``wheel({"a/b.py": "text"})`` writes ``engine-1.0-py3-none-any.whl`` and gives its folder."""

    def write(files: dict[str, str], name: str = "engine-1.0-py3-none-any.whl") -> Path:
        folder = tmp_path / "wheels"
        folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(folder / name, "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
        return folder

    return write


def test_the_page_is_what_its_data_says(tool: ModuleType) -> None:
    assert CliRunner().invoke(tool.main, ["--check"]).exit_code == 0


def test_every_finding_on_the_page_was_checked_by_hand(tool: ModuleType) -> None:
    content = json.loads(tool.DATA.read_text("utf-8"))
    findings = [finding for package in content["packages"] for finding in package["findings"]]
    assert len(findings) >= 6
    assert {finding["fingerprint"] for finding in findings} == set(tool.Facts.load().checked)
    assert "Not yet checked" not in tool.PAGE.read_text("utf-8")
    datetime.date.fromisoformat(content["date"])


def test_a_wheel_at_hand_is_audited_by_its_own_paths(tool: ModuleType, wheel: Callable[..., Path]) -> None:
    folder = wheel({"engine/table.py": BORROWED, "engine/data.bin": "x" * 100})
    result = CliRunner().invoke(tool.main, ["engine==1.0", "--wheels", str(folder)])
    assert result.exit_code == 0, result.output
    (package,) = json.loads(result.stdout)
    assert (package["package"], package["version"]) == ("engine", "1.0")
    (finding,) = package["findings"]
    assert (finding["rule"], finding["file"], finding["line"]) == ("borrowed", "engine/table.py", 1)
    assert [one["model_key"] for one in package["lists"]] == ["wan2.1/i2v-14b-480p"]


def test_names_that_lead_out_of_the_archive_stay_inside(
    tool: ModuleType, wheel: Callable[..., Path], tmp_path: Path
) -> None:
    folder = wheel({"../../out.py": BORROWED, "/abs/out.py": BORROWED, "a/../../b.py": BORROWED})
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    tool.unpack(folder / "engine-1.0-py3-none-any.whl", inside)
    assert len(list(inside.rglob("*.py"))) == 3
    assert not list(tmp_path.glob("*.py"))
    assert not list(inside.parent.glob("*.py"))


def test_an_archive_that_unfolds_without_end_is_passed_over(
    tool: ModuleType, wheel: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = wheel({"a.py": "#" * 5000})
    monkeypatch.setattr(tool, "MAX_UNPACKED", 4999)
    with pytest.raises(tool.NoWheel, match="more than is looked at"):
        tool.unpack(folder / "engine-1.0-py3-none-any.whl", tmp_path / "x")
    result = CliRunner().invoke(tool.main, ["engine==1.0", "--wheels", str(folder)])
    assert (result.exit_code, json.loads(result.stdout)[0]["version"]) == (0, None)


def test_the_date_moves_only_when_something_changed(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "DATA", tmp_path / "a.json")
    monkeypatch.setattr(tool, "PAGE", tmp_path / "a.md")
    facts = tool.Facts({"engine": "Engine"}, {}, {})
    package: dict[str, Any] = {"package": "engine", "title": "Engine", "version": "1.0", "lists": [], "findings": []}
    assert tool._update([package], facts)
    content = json.loads(tool.DATA.read_text()) | {"date": "2020-01-02"}
    tool.DATA.write_text(tool.strict_json.spell(content))
    tool.PAGE.write_text(tool.page(content, facts))
    assert not tool._update([package], facts)
    assert json.loads(tool.DATA.read_text())["date"] == "2020-01-02"
    assert tool._update([package | {"version": "1.1"}], facts)
    assert json.loads(tool.DATA.read_text())["date"] != "2020-01-02"


def test_text_of_others_is_no_markup_of_the_page(tool: ModuleType) -> None:
    hostile = "a|b`<script>[x](y)\n::error::z"
    finding = {"rule": "borrowed", "level": "error", "file": hostile, "line": 1, "message": hostile, "fingerprint": "f"}
    one = {"file": hostile, "line": 1, "stands_under": hostile, "model_key": "a/b", "title": "x", "kind": "exact"}
    package = {"package": "engine", "title": "Engine", "version": "1", "lists": [one], "findings": [finding]}
    page = tool.page({"date": "2026-01-01", "packages": [package]}, tool.Facts({}, {}, {}))
    assert "<script>" not in page
    assert "\n::" not in page
    (row,) = (line for line in page.splitlines() if line.startswith("| `a"))
    assert row.replace("\\|", "").count("|") == 5


def test_the_workflow_pins_its_actions_and_asks_for_little(tool: ModuleType) -> None:
    import yaml

    text = (tool.ROOT / ".github" / "workflows" / "engines.yml").read_text("utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    jobs = workflow["jobs"]
    assert jobs["audit"]["permissions"] == {"contents": "read"}
    assert jobs["propose"]["permissions"] == {"contents": "write", "pull-requests": "write"}
    for job in jobs.values():
        for step in job["steps"]:
            if "uses" in step:
                assert len(step["uses"].partition("@")[2]) == 40, step["uses"]
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
    # Text of packages and of the index never becomes part of a command.
    assert "${{ steps" not in text
