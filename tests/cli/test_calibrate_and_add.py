"""`easyteacache calibrate` and `easyteacache add`: make a record in one command, and file one by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from easyteacache.calibrating import one_call
from easyteacache.calibrating.filing import path_in_local
from easyteacache.cli.main import main
from easyteacache.records import calibration as records

SMALL = ("--steps", "6", "--frames", "1", "--model-key", "test/digits")


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    for name in ("EASYTEACACHE_REGISTRY", "EASYTEACACHE_LOCK"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def made(shared):
    """What `easyteacache calibrate reference` printed and left behind."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EASYTEACACHE_HOME", str(folder / "home"))
            (folder / "prompts.txt").write_text("3 down\n\n7 up\n")
            ran = run(
                "calibrate", "reference", *SMALL, "--prompts", folder / "prompts.txt", "--license", "CC0-1.0", "--json"
            )
            assert ran.exit_code == 0, ran.output
            (folder / "printed.json").write_text(ran.stdout)

    return shared("calibrated-by-command", make)


@pytest.fixture
def record_file(made):
    return made / "home" / "local" / "test" / "digits.json"


def test_one_command_makes_the_record_of_the_reference_model(made, record_file):
    printed = json.loads((made / "printed.json").read_text())
    assert printed["passed"] is True
    assert (printed["model_key"], printed["revision"], printed["status"]) == ("test/digits", 1, "validated")
    assert Path(printed["filed"]).name == "digits.json"
    assert all(point["steps"] == 6 and point["p90"] >= 0 for point in printed["points"])
    record = records.load(record_file)
    assert record.provenance.license == "CC0-1.0"
    assert record.status == "validated"


def test_the_same_command_again_runs_nothing(made, tmp_path):
    shutil.copytree(made / "home", tmp_path / "home")
    ran = run("calibrate", "reference", *SMALL, "--prompts", made / "prompts.txt", "--license", "CC0-1.0")
    assert ran.exit_code == 0, ran.output
    assert "All 6 runs are recorded already." in ran.output
    assert "Nothing new" in ran.output
    assert 'TeaCache.from_registry("test/digits", speedup=2.0)' in ran.output


def test_a_stopped_command_says_where_it_stands(monkeypatch):
    monkeypatch.setattr(one_call, "record_pipeline", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(one_call, "seconds_of_a_step", lambda *_: 0.1)
    ran = run("calibrate", "reference", *SMALL)
    assert ran.exit_code == 130
    assert "Stopped: 0 of 12 runs" in ran.output


def test_an_empty_list_of_prompts_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    ran = run("calibrate", "reference", *SMALL, "--prompts", tmp_path / "empty.txt")
    assert ran.exit_code == 2
    assert "expected a prompt on every line" in ran.output


def test_a_file_is_added_under_its_own_key_and_found(record_file, made):
    traces = next((made / "home" / "traces" / "calibrated").iterdir())
    ran = run("add", record_file, "--traces", traces, "--json")
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["model_key"] == "test/digits"
    assert path_in_local("test/digits").read_bytes() == record_file.read_bytes()
    assert run("show", "test/digits").exit_code == 0
    assert run("add", record_file).exit_code == 0


def test_another_record_of_the_key_takes_force(record_file, tmp_path):
    run("add", record_file)
    other = tmp_path / "other.json"
    records.save(records.load(record_file).model_copy(update={"title": "Another"}), other)
    ran = run("add", other)
    assert ran.exit_code == 1
    assert "--force" in ran.output
    assert records.load(path_in_local("test/digits")).title != "Another"
    assert run("add", other, "--force").exit_code == 0
    assert records.load(path_in_local("test/digits")).title == "Another"


def test_a_file_that_breaks_the_format_is_not_added(record_file, tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text(record_file.read_text().replace('"revision": 1', '"revision": 0'))
    ran = run("add", broken)
    assert ran.exit_code == 1
    assert "record.schema" in ran.output
    assert not path_in_local("test/digits").exists()


def test_a_record_that_its_traces_do_not_bear_out_is_not_added(record_file, made, tmp_path):
    content = json.loads(record_file.read_text())
    content["buckets"][0]["operating_points"][0]["evidence"][0]["value"] *= 0.5
    better = tmp_path / "better.json"
    better.write_text(json.dumps(content))
    traces = next((made / "home" / "traces" / "calibrated").iterdir())
    ran = run("add", better, "--traces", traces)
    assert ran.exit_code == 1
    assert "point.misstated" in ran.output
    assert not path_in_local("test/digits").exists()


@pytest.mark.parametrize("command", ["resolve", "export", "demo"])
def test_quality_is_taken_wherever_a_speed_up_is(command):
    assert "--quality LEVEL" in run(command, "--help").output
    target = ["wan2.1/t2v-14b"] if command != "demo" else []
    target += ["--to", "json"] if command == "export" else []
    ran = run(command, *target, "--quality", "high", "--speedup", "2")
    assert ran.exit_code == 2
    assert "exclude each other" in ran.output
    assert "expected one of exact, high" in run(command, *target, "--quality", "best").output.replace("\n", " ")


def test_resolve_takes_a_quality():
    ran = run("resolve", "reference/moving-digits", "--quality", "lossless", "--steps", 50, "--json")
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["schedule"] is None
    ran = run("resolve", "wan2.1/t2v-14b/retention", "--quality", "high")
    assert ran.exit_code == 1
    assert "no errors of runs held out" in ran.output.replace("\n", " ")
