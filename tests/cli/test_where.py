from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from easyteacache.cli.where import where
from easyteacache.records.calibration import Calibration, save
from easyteacache.registry import index

Run = Callable[..., Result]
ReadJson = Callable[[Result], Any]


def test_layers_stand_in_the_order_of_the_lookup(
    run_hub: Run, read_json: ReadJson, registry_folder: Path, tmp_path: Path, make_record: Callable[..., Calibration]
) -> None:
    for name in ("local", "pulled"):
        save(make_record(), tmp_path / "home" / name / "tiny" / "video.json")
    content = read_json(run_hub("where", "--json", env={"EASYTEACACHE_REGISTRY": str(registry_folder)}))
    names = [layer["name"] for layer in content["layers"]]
    assert names == [str(registry_folder), "local", "pulled", "bundled"]
    assert [layer["records"] for layer in content["layers"][:3]] == [2, 1, 1]
    assert content["home"] == str(tmp_path / "home")


def test_a_broken_layer_is_reported_beside_the_good_ones(
    run_hub: Run, read_json: ReadJson, registry_folder: Path, documented_keys: Callable[..., set[str]]
) -> None:
    (registry_folder / index.FILE_NAME).write_text("[]")
    content = read_json(run_hub("where", "--json", env={"EASYTEACACHE_REGISTRY": str(registry_folder)}))
    broken, bundled = content["layers"]
    # The records are read around the index that cannot be.
    assert (broken["records"], broken["indexed"]) == (2, True)
    assert index.FILE_NAME in broken["problem"]
    assert bundled["problem"] is None
    assert set(content) | set(broken) <= documented_keys(where)


def test_the_page_names_folders_and_problems(run_hub: Run, registry_folder: Path) -> None:
    (registry_folder / "tiny" / "video.json").write_text("{}")
    page = run_hub("where", "--registry", registry_folder).stdout
    assert str(registry_folder) in page
    assert "problem: " in page


@pytest.mark.parametrize("length", [5, 60, 70, 100, 200])
def test_the_page_fits_80_columns_and_shows_folders_whole(
    run_hub: Run, tmp_path: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / ("a" * length) / "registry"
    folder.mkdir(parents=True)
    monkeypatch.setenv("EASYTEACACHE_HOME", str(folder))
    monkeypatch.setenv("EASYTEACACHE_REGISTRY", str(folder))
    result = run_hub("where")
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if len(line) > 80] == []
    assert str(folder) in result.stdout.replace("\n   ", "")


def test_without_any_home_folder_the_bundled_layer_is_shown_with_a_note(
    run_hub: Run, read_json: ReadJson, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    homeless = dict.fromkeys(("HOME", "EASYTEACACHE_HOME", "XDG_DATA_HOME"))
    result = run_hub("where", env=homeless)
    assert result.exit_code == 0
    assert "note: " in result.stdout
    assert "set EASYTEACACHE_HOME" in " ".join(result.stdout.split())
    assert "belong in" not in result.stdout
    content = read_json(run_hub("where", "--json", env=homeless))
    assert content["home"] is None
    assert [layer["name"] for layer in content["layers"]] == ["bundled"]
    assert len(content["notes"]) == 1
