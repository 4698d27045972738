from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from easyteacache.cli.listing import list_records
from easyteacache.records.calibration import Calibration, save
from easyteacache.registry import index

pytestmark = pytest.mark.floors

Run = Callable[..., Result]
ReadJson = Callable[[Result], Any]


def keys(content: Any) -> list[str]:
    return [one["key"] for one in content["records"]]


def test_the_bundled_registry_holds_every_published_record(run_hub: Run, read_json: ReadJson) -> None:
    records = read_json(run_hub("list", "--status", "published", "--json"))["records"]
    assert len(records) >= 60
    assert {one["layer"] for one in records} == {"bundled"}


def test_the_table_of_the_bundled_registry_fits_80_columns(run_hub: Run) -> None:
    result = run_hub("list")
    wide = [line for line in result.stdout.splitlines() if len(line) > 80]
    assert result.exit_code == 0
    assert wide == []


def test_a_narrow_terminal_cuts_signals_and_never_keys(run_hub: Run, registry_folder: Path) -> None:
    result = run_hub("list", "--registry", registry_folder, env={"COLUMNS": "50"})
    line = next(line for line in result.stdout.splitlines() if line.startswith("tiny/video"))
    assert len(line) <= 50
    assert "…" in line


def test_json_has_exactly_the_documented_keys(
    run_hub: Run, read_json: ReadJson, registry_folder: Path, documented_keys: Callable[..., set[str]]
) -> None:
    content = read_json(run_hub("list", "--registry", registry_folder, "--json"))
    found = set(content["records"][1]) | set(content["records"][1]["aliases"][0]) | set(content)
    assert found <= documented_keys(list_records)
    assert set(content["records"][0]) == set(content["records"][1])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["other/image", "tiny/video"]),
        (["VIDEO"], ["tiny/video"]),
        (["another model"], ["other/image"]),
        (["Tiny/Video-Model"], ["tiny/video"]),
        (["*/image"], ["other/image"]),
        (["image*"], []),
        (["--family", "tiny"], ["tiny/video"]),
        (["--family", "tin"], []),
        (["--signal", "modulated_input"], ["other/image"]),
        (["--method", "magcache"], []),
        (["--method", "teacache"], ["other/image", "tiny/video"]),
        (["--status", "validated"], []),
    ],
)
def test_filters_choose(
    arguments: list[str], expected: list[str], run_hub: Run, read_json: ReadJson, registry_folder: Path
) -> None:
    content = read_json(run_hub("list", *arguments, "--registry", registry_folder, "--json"))
    assert keys(content) == expected


def test_no_match_says_so_on_stderr_and_prints_nothing(run_hub: Run, registry_folder: Path) -> None:
    result = run_hub("list", "zzz", "--registry", registry_folder)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No record matches" in result.stderr


def test_source_shows_a_layer_with_its_hidden_records(
    run_hub: Run, read_json: ReadJson, registry_folder: Path, tmp_path: Path, make_record: Callable[..., Calibration]
) -> None:
    save(make_record(revision=7), tmp_path / "home" / "local" / "tiny" / "video.json")
    environment = {"EASYTEACACHE_REGISTRY": str(registry_folder)}
    reached = read_json(run_hub("list", "tiny", "--json", env=environment))["records"]
    local = read_json(run_hub("list", "--source", "local", "--json", env=environment))["records"]
    assert [(one["layer"], one["revision"]) for one in reached] == [(str(registry_folder), 1)]
    assert [(one["layer"], one["revision"]) for one in local] == [("local", 7)]


def test_the_layer_is_shown_where_there_are_several(run_hub: Run, registry_folder: Path) -> None:
    several = run_hub("list", env={"EASYTEACACHE_REGISTRY": str(registry_folder)}).stdout.splitlines()[0]
    assert several.endswith("LAYER")
    assert "LAYER" not in run_hub("list", "--registry", registry_folder).stdout


def test_an_unknown_source_is_wrong_usage_and_names_the_layers(run_hub: Run) -> None:
    result = run_hub("list", "--source", "nowhere")
    assert result.exit_code == 2
    assert "bundled" in result.stderr


@pytest.mark.parametrize("broken", ["{", '{"schema_version": 2}', ""])
def test_a_broken_record_is_named(broken: str, run_hub: Run, registry_folder: Path) -> None:
    path = registry_folder / "tiny" / "video.json"
    path.write_text(broken)
    result = run_hub("list", "--registry", registry_folder)
    assert result.exit_code == 1
    assert str(path) in result.stderr
    assert result.stdout == ""


def test_a_broken_index_is_named(run_hub: Run, registry_folder: Path) -> None:
    (registry_folder / index.FILE_NAME).write_text('{"index_version": 1, "records": {"a": ')
    result = run_hub("list", "--registry", registry_folder)
    assert result.exit_code == 1
    assert index.FILE_NAME in result.stderr


def test_with_an_index_no_record_is_read(run_hub: Run, read_json: ReadJson, registry_folder: Path) -> None:
    index.write(registry_folder, index.build(registry_folder))
    for path in registry_folder.glob("*/*.json"):
        path.write_text("not read")
    assert len(read_json(run_hub("list", "--registry", registry_folder, "--json"))["records"]) == 2


def test_a_missing_registry_folder_is_an_error(run_hub: Run) -> None:
    result = run_hub("list", env={"EASYTEACACHE_REGISTRY": "/no/such/folder"})
    assert result.exit_code == 1
    assert "/no/such/folder" in result.stderr


def test_colour_marks_the_status_on_a_terminal_only(run_hub: Run, registry_folder: Path) -> None:
    assert "\x1b[" in run_hub("list", "--registry", registry_folder, color=True).output
    assert "\x1b[" not in run_hub("list", "--registry", registry_folder).output
    assert "\x1b[" not in run_hub("list", "--registry", registry_folder, color=True, env={"NO_COLOR": "1"}).output


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_malformed_file_is_named_beside_the_list(run_hub: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "broken.json").write_text("{")
    result = run_hub("list", *options, env={"EASYTEACACHE_REGISTRY": str(tmp_path), "COLUMNS": "400"})
    assert result.exit_code == 0
    assert "reference/moving-digits" in result.stdout
    assert "broken.json" in result.stderr


def test_what_is_applied_here_and_what_is_not_is_said_with_speedup_and_evidence(
    run_hub: Run, read_json: ReadJson
) -> None:
    records = {one["key"]: one for one in read_json(run_hub("list", "--json"))["records"]}
    applied = {one["method"] for one in records.values() if one["applied"]}
    assert applied == {"teacache", "magcache", "plan"}
    assert all(one["applied"] == (one["not_applied"] is None) for one in records.values())
    assert {one["not_applied"] for one in records.values() if one["method"] == "preset"} == {"preset"}
    unknown = [one for one in records.values() if one["method"] == "teacache" and one["signal"] == "unknown"]
    assert {one["not_applied"] for one in unknown} == {"no signal"}
    lemica = records["wan2.1/t2v-14b/lemica"]
    assert (lemica["applied"], lemica["speedup"], lemica["evidence"]) == (True, 2.87, "published")
    line = next(line for line in run_hub("list").stdout.splitlines() if line.startswith("wan2.1/t2v-14b/lemica "))
    assert line.split()[-3:] == ["yes", "2.87x", "published"]


def test_a_wide_terminal_shows_status_signal_and_length_a_narrow_one_what_people_ask_for(run_hub: Run) -> None:
    wide = run_hub("list", env={"COLUMNS": "160"}).stdout.splitlines()[0].split()
    assert wide == ["KEY", "STATUS", "SIGNAL", "STEPS", "LENGTH", "HERE", "UP", "TO", "EVIDENCE"]
    narrow = run_hub("list").stdout.splitlines()[0].split()
    assert narrow == ["KEY", "STEPS", "HERE", "UP", "TO", "EVIDENCE"]
