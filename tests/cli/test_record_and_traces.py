"""The commands `record` and `traces`."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
from click.testing import CliRunner

from easyteacache.cli import record as command
from easyteacache.cli.main import main
from easyteacache.integrations.diffusers.recording import Job
from easyteacache.records.trace_set import TraceSet

REFERENCE = ("record", "reference", "--size", "16x16", "--frames", "1", "--steps", "3")


def run(*arguments: str, code: int = 0, **options):
    result = CliRunner(**options).invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def files(make_trace, tmp_path):
    for name, seeds in (("a", range(3)), ("b", range(3, 5))):
        TraceSet([make_trace(seed) for seed in seeds]).save(tmp_path / f"{name}.safetensors")
    return tmp_path


def test_merge_joins_files_and_drops_repeats(files, tmp_path):
    out = tmp_path / "out" / "all.safetensors"
    found = json.loads(run("traces", "merge", out, files, files / "a.safetensors", "--json").stdout)
    assert found["runs"] == 5
    assert TraceSet.load(out).files[0].sha256 == found["sha256"]
    assert "5 runs" in run("traces", "merge", out, files / "b.safetensors", files / "a.safetensors").stdout


def test_files_that_repeat_a_run_are_named_and_merge_joins_them(files, tmp_path):
    shutil.copy(files / "a.safetensors", files / "copy.safetensors")
    said = run("traces", "show", files, code=1).stderr
    assert "a.safetensors" in said
    assert "copy.safetensors" in said
    assert "traces merge" in said
    out = tmp_path / "out" / "all.safetensors"
    assert json.loads(run("traces", "merge", out, files, "--json").stdout)["runs"] == 5
    assert "3 runs in 1 files" in run("traces", "show", files / "a.safetensors", files / "a.safetensors").stdout


def test_merge_refuses_a_name_that_is_not_found_again(files):
    assert ".safetensors" in run("traces", "merge", files / "all.bin", files, code=2).stderr


def test_show_has_one_line_per_setting(files, make_trace):
    TraceSet([make_trace(9, sequence_length=144, shift=5.0)]).save(files / "c.safetensors")
    shown = run("traces", "show", files).stdout
    assert "6 runs in 3 files" in shown
    settings = json.loads(run("traces", "show", files, "--json").stdout)["settings"]
    assert [(one["sequence_length"], one["shift"], one["runs"]) for one in settings] == [(64, 3.0, 5), (144, 5.0, 1)]


def test_verify_is_silent_about_whole_files_and_names_the_rule_of_a_damaged_one(files):
    assert "whole and unedited" in run("traces", "verify", files).stdout
    data = bytearray((files / "a.safetensors").read_bytes())
    data[8 + int.from_bytes(data[:8], "little")] ^= 1  # the lowest bit of the first number
    (files / "a.safetensors").write_bytes(data)
    report = json.loads(run("traces", "verify", files, "--json", code=1).stdout)
    assert report["ok"] is False
    assert [finding["rule"] for finding in report["findings"]] == ["trace.hash"]


def test_names_of_files_act_on_no_terminal(files):
    (files / "a.safetensors").rename(files / "a\x1b[2J\u202e.safetensors")
    for name in ("verify", "show"):
        said = run("traces", name, files, code=1).stderr
        assert "rename it" in said
        assert all(one.isprintable() or one == "\n" for one in said)


def test_verify_reports_runs_that_are_too_alike(files, make_trace, tmp_path):
    trace = make_trace(0)
    residuals = {branch: values * (1 + 1e-6) for branch, values in trace.residual_distances.items()}
    TraceSet([dataclasses.replace(trace, residual_distances=residuals)]).save(files / "copy.safetensors")
    report = json.loads(run("traces", "verify", files, "--json", code=1).stdout)
    assert [finding["rule"] for finding in report["findings"]] == ["trace.near-duplicate"]


def test_a_recording_of_the_reference_model_goes_on_where_it_stopped(tmp_path):
    first = json.loads(run(*REFERENCE, "--num-prompts", "2", "--out", tmp_path, "--json").stdout)
    assert (first["recorded"], first["skipped"], len(first["files"])) == (2, 0, 1)
    second = run(*REFERENCE, "--num-prompts", "3", "--shift", "3", "--out", tmp_path, "--hide-prompts")
    assert "Recorded 1 runs" in second.stdout
    assert "2 were there already" in second.stdout
    traces = TraceSet.load(tmp_path)
    assert {run.header.model_key for run in traces} == {"reference/moving-digits"}
    assert {run.header.shift for run in traces} == {3.0}
    assert [run.header.prompt for run in traces].count(None) == 1
    assert traces[0].header.model.checkpoint.startswith("reference/moving-digits@sha256:")


def test_every_process_of_a_group_records_its_share(tmp_path):
    for rank in ("0", "1"):
        environment = {"RANK": rank, "WORLD_SIZE": "2"}
        run(*REFERENCE, "--num-prompts", "3", "--out", tmp_path, env=environment)
    assert sorted(run.header.seed for run in TraceSet.load(tmp_path)) == [0, 1, 2]


def test_prompts_come_from_a_file_one_a_line(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("3 left\n\n  7 up \n", encoding="utf-8")
    run(*REFERENCE, "--prompts", file, "--out", tmp_path / "traces")
    assert [run.header.prompt for run in TraceSet.load(tmp_path / "traces")] == ["3 left", "7 up"]
    assert "has 2" in run(*REFERENCE, "--prompts", file, "--num-prompts", "3", "--out", tmp_path, code=2).stderr
    file.write_text("\n", encoding="utf-8")
    assert "found none" in run(*REFERENCE, "--prompts", file, "--out", tmp_path, code=2).stderr


def test_options_become_jobs():
    options = dict.fromkeys(("prompts", "seeds", "guidance_scales"))
    chosen = {"num_prompts": 2, "sizes": ((32, 16),), "frames": (1, 4), "steps": (20, 50), "shifts": (5.0,)}
    jobs = command._jobs("reference", {**options, **chosen})
    assert len(jobs) == 8
    assert jobs[0] == Job("0 right", 0, width=32, height=16, frames=1, num_steps=20, shift=5.0)


@pytest.mark.parametrize(("text", "seeds"), [("5", (5,)), ("0,2,4", (0, 2, 4)), ("0-3,9", (0, 1, 2, 3, 9))])
def test_seeds_are_lists_and_ranges(text, seeds):
    assert command._Seeds().convert(text, None, None) == seeds


def test_wrong_usage_is_explained(tmp_path):
    assert "--model-key" in run("record", "some/model", "--out", tmp_path, code=2).stderr
    assert "0-15" in run(*REFERENCE, "--seeds", "a", "--out", tmp_path, code=2).stderr
    assert "even" in run("record", "reference", "--size", "15x15", "--out", tmp_path, code=1).stderr
    unknown = run(*REFERENCE, "--signals", "vibes", "--out", tmp_path, code=1).stderr
    assert "timestep_projection" in unknown


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch):
    from easyteacache.integrations.diffusers import recording

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(recording, "record_pipeline", interrupted)
    result = run(*REFERENCE, "--out", tmp_path, code=130)
    assert "the same command records the rest" in result.stderr
    assert "Traceback" not in result.output
