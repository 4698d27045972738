from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from easyteacache.cli.identify import identify
from easyteacache.records.calibration import Calibration, save
from easyteacache.registry import lock_file

Run = Callable[..., Result]
ReadJson = Callable[[Result], Any]

FLUX = "498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861"
BORROWED = "COEFFICIENTS = {'flux': [2.57151496e05, -3.54229917e04, 1.40286849e03, -1.35890334e01, 1.32517977e-01]}\n"


def test_numbers_are_named(run_hub: Run, read_json: ReadJson) -> None:
    matches = read_json(run_hub("identify", FLUX, "--json"))["matches"]
    assert [(one["model_key"], one["kind"]) for one in matches] == [("flux.1/dev", "exact")]


def test_numbers_that_begin_with_a_minus_follow_two_dashes(run_hub: Run) -> None:
    assert (
        "wan2.1/t2v-14b" in run_hub("identify", "--", "-303318.725, 49053.7029, -2655.30556, 58.7365, -0.3156").stdout
    )


def test_flux_with_wans_numbers_is_told(run_hub: Run, tmp_path: Path) -> None:
    (tmp_path / "cache.py").write_text(BORROWED)
    page = " ".join(run_hub("identify", tmp_path).stdout.split())
    assert "cache.py:1: this is wan2.1/i2v-14b-480p" in page
    assert "filed under 'flux', a different model" in page


def test_only_misfiled_lists_on_request(run_hub: Run, read_json: ReadJson, tmp_path: Path) -> None:
    (tmp_path / "engine.py").write_text(f"{BORROWED}FLUX = [{FLUX}]\n")
    every = read_json(run_hub("identify", tmp_path, "--json"))["matches"]
    misfiled = read_json(run_hub("identify", "--misfiled", tmp_path, "--json"))["matches"]
    assert [one["line"] for one in every] == [1, 2]
    assert [one["line"] for one in misfiled] == [1]


def test_json_has_the_documented_keys(
    run_hub: Run, read_json: ReadJson, tmp_path: Path, documented_keys: Callable[..., set[str]]
) -> None:
    (tmp_path / "engine.py").write_text(BORROWED)
    (tmp_path / "binary.py").write_bytes(b"\0\1\2")
    content = read_json(run_hub("identify", tmp_path, "--json"))
    keys = set(content) | set(content["matches"][0]) | set(content["skipped"][0])
    assert keys <= documented_keys(identify)
    assert content["skipped"][0]["file"].endswith("binary.py")


def test_standard_input_is_read(run_hub: Run) -> None:
    assert "flux.1/dev" in run_hub("identify", "-", input=f"coefficients: [{FLUX}]\n").stdout


def test_records_of_ones_own_registry_are_recognised(
    run_hub: Run, registry_folder: Path, make_record: Callable[..., Calibration]
) -> None:
    bucket = {"coefficients": [12.345678, -2.3456789, 0.98765432]}
    save(make_record("tiny/own", buckets=[bucket]), registry_folder / "tiny" / "own.json")
    numbers = "12.345678, -2.3456789, 0.98765432"
    assert "tiny/own" in run_hub("identify", numbers, "--registry", registry_folder).stdout
    assert run_hub("identify", numbers).stdout == ""


def test_a_lock_does_not_limit_what_is_recognised(
    run_hub: Run, read_json: ReadJson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_file.write(tmp_path / lock_file.FILE_NAME, lock_file.LockFile(lock_version=1, records={}))
    monkeypatch.chdir(tmp_path)
    assert read_json(run_hub("identify", FLUX, "--json"))["matches"][0]["model_key"] == "flux.1/dev"


def test_unknown_numbers_are_no_error(run_hub: Run) -> None:
    result = run_hub("identify", "1.25, 2.5, 3.75, 5.5, 6.5")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No known list" in result.stderr


@pytest.mark.parametrize("target", ["no/such/file.py", "42", "words only", "\0"])
def test_what_is_neither_file_nor_numbers_is_wrong_usage(target: str, run_hub: Run) -> None:
    result = run_hub("identify", target)
    assert result.exit_code == 2, result.output


def test_a_file_that_is_no_text_is_an_error(run_hub: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"\0" * 100)
    result = run_hub("identify", path)
    assert (result.exit_code, result.stderr) == (1, f"Error: {path}: not a text file\n")
