from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from easyteacache.records.calibration import Calibration, save
from easyteacache.registry import index

ROOT = Path(__file__).resolve().parents[2]
Tool = Callable[..., Result]


@pytest.fixture
def tool(run_hub: Tool, registry_folder: Path) -> Tool:
    return lambda *arguments: run_hub("index", "--registry", registry_folder, *arguments)


def test_the_bundled_index_is_fresh(run_hub: Tool) -> None:
    result = run_hub("index", "--registry", ROOT / "registry", "--check")
    assert result.exit_code == 0, "run python tools/index_registry.py\n" + result.output


def test_it_writes_once_and_is_then_fresh(tool: Tool, registry_folder: Path) -> None:
    assert tool("--check").exit_code == 1
    assert "wrote" in tool().output
    assert "is fresh: 2 records" in tool().output
    assert tool("--check").exit_code == 0
    assert index.read(registry_folder) == index.build(registry_folder)


def test_check_names_what_changed_and_writes_nothing(
    tool: Tool, registry_folder: Path, make_record: Callable[..., Calibration]
) -> None:
    tool()
    before = (registry_folder / index.FILE_NAME).read_bytes()
    save(make_record(revision=2), registry_folder / "tiny" / "video.json")
    save(make_record("tiny/new"), registry_folder / "tiny" / "new.json")
    (registry_folder / "other" / "image.json").unlink()
    lines = tool("--check").stderr.splitlines()
    assert lines[:3] == [
        "other/image: listed, but its file is gone",
        "tiny/new: not listed",
        "tiny/video: changed since it was listed",
    ]
    assert (registry_folder / index.FILE_NAME).read_bytes() == before


def test_another_spelling_of_the_same_index_is_stale(tool: Tool, registry_folder: Path) -> None:
    tool()
    path = registry_folder / index.FILE_NAME
    path.write_text(path.read_text().replace("  ", "    "))
    assert "canonical spelling" in tool("--check").stderr


def test_a_broken_index_is_replaced_and_a_broken_record_is_an_error(tool: Tool, registry_folder: Path) -> None:
    (registry_folder / index.FILE_NAME).write_text("{")
    assert tool("--check").exit_code == 1
    assert tool().exit_code == 0
    (registry_folder / "tiny" / "video.json").write_text("{}")
    result = tool()
    assert result.exit_code == 1
    assert "video.json" in result.stderr


def test_a_stale_index_says_which_command_mends_it(tool: Tool, registry_folder: Path) -> None:
    assert f"run easyteacache-hub index --registry {registry_folder}" in " ".join(tool("--check").stderr.split())
