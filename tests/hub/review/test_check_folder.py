"""`easyteacache-hub verify`: one finding, with its rule, for each way in which a folder can be wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from easyteacache.records.calibration import load, save
from easyteacache.registry import index

from ...older_records import written_by_version
from ..conftest import Program, build_folder, build_record

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build_folder(tmp_path / "registry", build_record(), build_record("other/image"))


def rules(result: object) -> list[str]:
    (one,) = json.loads(result.output)["folders"]  # type: ignore[attr-defined]
    assert one["passed"] is not any(finding["severity"] == "error" for finding in one["findings"])
    return [finding["rule"] for finding in one["findings"]]


def test_a_good_folder_passes(folder: Path, run_hub: Program) -> None:
    result = run_hub("verify", folder, "--strict")
    assert result.exit_code == 0
    assert "passed (2 records, 0 errors, 0 warnings)" in result.output


def test_records_of_an_older_version_pass(folder: Path, run_hub: Program) -> None:
    for version, path in ((1, folder / "tiny" / "video.json"), (2, folder / "other" / "image.json")):
        path.write_text(written_by_version(load(path), version))
    index.write(folder, index.build(folder))
    result = run_hub("verify", folder, "--strict")
    assert result.exit_code == 0, result.output
    assert "passed (2 records, 0 errors, 0 warnings)" in result.output


def test_the_registry_of_this_project_passes(run_hub: Program) -> None:
    assert run_hub("verify", ROOT / "registry", "--strict").exit_code == 0


def test_without_a_path_every_layer_is_checked(run_hub: Program) -> None:
    result = run_hub("verify", "--json")
    assert result.exit_code == 0
    assert [Path(one["path"]).name for one in json.loads(result.output)["folders"]] == ["registry"]


def edit(path: Path, old: str, new: str) -> None:
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))


def stale(folder: Path) -> None:
    content = json.loads((folder / index.FILE_NAME).read_text())
    content["records"]["tiny/video"]["title"] = "Another title"
    (folder / index.FILE_NAME).write_text(json.dumps(content))


def alias(folder: Path, key: str, value: str) -> None:
    record = build_record(key, aliases=[{"kind": "former_key", "value": value}])
    save(record, folder / f"{key}.json")
    index.write(folder, index.build(folder))


PLANTED: dict[str, Callable[[Path], object]] = {
    "index.gone": lambda f: (f / "tiny" / "video.json").unlink(),
    "index.unlisted": lambda f: save(build_record("tiny/new"), f / "tiny" / "new.json"),
    "index.sha256": lambda f: save(build_record(revision=2), f / "tiny" / "video.json"),
    "index.stale": stale,
    "index.missing": lambda f: (f / index.FILE_NAME).unlink(),
    "index.json": lambda f: (f / index.FILE_NAME).write_text("{"),
    "index.schema": lambda f: edit(f / index.FILE_NAME, '"title"', '"titel"'),
    "index.schema-version": lambda f: edit(
        f / index.FILE_NAME, f'"index_version": {index.INDEX_VERSION}', '"index_version": 9'
    ),
    "registry.alias": lambda f: alias(f, "other/image", "tiny/video"),
    "registry.name": lambda f: (f / "tiny" / "Video.json").write_text("{}"),
    "record.path": lambda f: save(build_record("tiny/elsewhere"), f / "tiny" / "video.json"),
    "record.schema": lambda f: edit(f / "tiny" / "video.json", '"draft"', '"drafty"'),
    "record.canonical": lambda f: edit(f / "tiny" / "video.json", "2.0", "2.00"),
}


@pytest.mark.parametrize("rule", PLANTED)
def test_what_is_wrong_is_found_under_its_rule(rule: str, folder: Path, run_hub: Program) -> None:
    PLANTED[rule](folder)
    result = run_hub("verify", folder, "--strict", "--json")
    assert result.exit_code == 1
    assert rule in [finding["rule"] for finding in json.loads(result.output)["folders"][0]["findings"]]


def test_two_records_with_one_alias_are_named_both(folder: Path, run_hub: Program) -> None:
    alias(folder, "other/image", "old/name")
    alias(folder, "tiny/video", "old/name")
    result = run_hub("verify", folder, "--json")
    (finding,) = json.loads(result.output)["folders"][0]["findings"]
    assert finding["rule"] == "registry.alias"
    assert "'other/image'" in finding["message"]


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there")
def test_a_symbolic_link_is_refused_and_not_followed(folder: Path, run_hub: Program, tmp_path: Path) -> None:
    save(build_record("tiny/linked"), tmp_path / "outside.json")
    (folder / "tiny" / "linked.json").symlink_to(tmp_path / "outside.json")
    assert rules(run_hub("verify", folder, "--json")) == ["registry.name"]


def test_one_file_can_be_checked_by_itself(tmp_path: Path, run_hub: Program) -> None:
    save(build_record(), tmp_path / "anything.json")
    assert run_hub("verify", tmp_path / "anything.json").exit_code == 0
    (tmp_path / "anything.json").write_text("[]")
    assert rules(run_hub("verify", tmp_path / "anything.json", "--json")) == ["record.json"]
