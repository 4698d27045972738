"""Recording many runs: chunks, resuming after every way to stop, several processes."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from diffusers import UniPCMultistepScheduler

from easyteacache.errors import EasyTeaCacheWarning, InvalidModelKey, InvalidTrace
from easyteacache.integrations.diffusers.recording import Job, pipeline_runs, plan_jobs, record_pipeline, session
from easyteacache.integrations.diffusers.recording.jobs import identity_of
from easyteacache.records.trace_set import TraceSet

SCRIPT = Path(__file__).with_name("recording_to_kill.py")


@pytest.fixture(scope="module")
def killable():
    specification = importlib.util.spec_from_file_location("recording_to_kill", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pipe(killable):
    return killable.pipeline()


@pytest.fixture(scope="module")
def whole(killable, pipe, tmp_path_factory) -> TraceSet:
    """The recording nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    record_pipeline(pipe, killable.JOBS, folder, killable.SETTINGS, progress=False)
    return TraceSet.load(folder)


def ids(traces) -> list[str]:
    return [run.run_id for run in traces]


@pytest.mark.slow
def test_a_kill_loses_one_chunk_at_most_and_nothing_is_recorded_twice(killable, pipe, whole, tmp_path):
    running = subprocess.Popen([sys.executable, str(SCRIPT), str(tmp_path), "0.4"])
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*.safetensors")) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    running.kill()
    running.wait()
    left = TraceSet.load(tmp_path)
    assert 2 <= len(left) < len(killable.JOBS)
    summary = record_pipeline(pipe, killable.JOBS, tmp_path, killable.SETTINGS, progress=False)
    assert (summary.skipped, summary.recorded) == (len(left), len(killable.JOBS) - len(left))
    assert ids(TraceSet.load(tmp_path)) == ids(whole)


def test_shards_of_several_processes_merge_to_the_single_recording(killable, pipe, whole, tmp_path):
    for rank in range(3):
        record_pipeline(pipe, killable.JOBS, tmp_path, killable.SETTINGS, rank=rank, world_size=3, progress=False)
    assert len(list(tmp_path.iterdir())) == 3
    merged = TraceSet.load(tmp_path)
    assert merged.save(tmp_path / "merged").sha256 == whole.save(tmp_path / "whole").sha256


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_ctrl_c_and_a_run_that_fails_keep_the_finished_runs_of_the_chunk(
    killable, pipe, whole, tmp_path, monkeypatch, stop
):
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            raise stop
        return pipeline_runs.record_run(*args, **kwargs)

    monkeypatch.setattr(session, "record_run", interrupted)
    with pytest.raises(stop):
        record_pipeline(pipe, killable.JOBS, tmp_path, killable.SETTINGS, chunk=2, progress=False)
    assert len(TraceSet.load(tmp_path)) == 3
    monkeypatch.undo()
    assert record_pipeline(pipe, killable.JOBS, tmp_path, killable.SETTINGS, progress=False).recorded == 2
    assert ids(TraceSet.load(tmp_path)) == ids(whole)


def test_recording_again_does_nothing(killable, pipe, tmp_path):
    jobs = killable.JOBS[:2]
    first = record_pipeline(pipe, jobs, tmp_path, killable.SETTINGS, progress=False)
    second = record_pipeline(pipe, jobs, tmp_path, killable.SETTINGS, progress=False)
    assert (first.recorded, second.recorded, second.skipped, second.files) == (2, 0, 2, ())


def test_another_setting_or_model_key_is_another_run(killable, pipe, tmp_path):
    job = killable.JOBS[0]
    record_pipeline(pipe, [job], tmp_path, killable.SETTINGS, progress=False)
    changed = [dataclasses.replace(job, shift=5.0), dataclasses.replace(job, num_steps=4), job]
    summary = record_pipeline(pipe, changed, tmp_path, killable.SETTINGS, progress=False)
    assert (summary.recorded, summary.skipped) == (2, 1)
    assert session.recorded_identities(tmp_path, "test/other") == set()


def test_another_sampler_is_another_run_and_one_folder_holds_both(killable, tmp_path):
    pipe, job = killable.pipeline(), dataclasses.replace(killable.JOBS[0], shift=None)
    euler = pipe.scheduler
    solver = UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction")
    found = []
    for scheduler in (euler, solver, euler, solver):
        pipe.scheduler = scheduler
        found.append(record_pipeline(pipe, [job], tmp_path, killable.SETTINGS, progress=False).recorded)
    assert found == [1, 1, 0, 0]
    names = {run.header.sampler.name for run in TraceSet.load(tmp_path)}
    assert names == {"FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"}


def test_a_damaged_file_in_the_folder_stops_the_recording(killable, pipe, tmp_path):
    (tmp_path / "traces-0.safetensors").write_bytes(b"half a file")
    with pytest.raises(InvalidTrace) as caught:
        record_pipeline(pipe, killable.JOBS, tmp_path, killable.SETTINGS, progress=False)
    assert caught.value.rule.startswith("trace.")


def test_a_name_that_is_no_model_key_is_refused_before_anything_runs(killable, tmp_path):
    settings = dataclasses.replace(killable.SETTINGS, model_key="My Model")
    with pytest.raises(InvalidModelKey, match="My Model"):
        record_pipeline(None, killable.JOBS, tmp_path / "traces", settings, progress=False)
    assert not (tmp_path / "traces").exists()


def test_a_recorded_run_is_recognised_by_its_header(whole, killable):
    assert {identity_of(run.header) for run in whole} == {job.identity() for job in killable.JOBS}


def test_every_combination_is_planned_once_per_prompt():
    jobs = plan_jobs(prompts=["a", "b"], sizes=[(16, 24), None], frames=[1], steps=[4, 8], shifts=[3.0, 5.0, 8.0])
    assert len(jobs) == len(set(jobs)) == 2 * 2 * 2 * 3
    assert {(job.prompt, job.seed) for job in jobs} == {("a", 0), ("b", 1)}
    assert Job("b", 1, 16, 24, 1, 8, 8.0) in jobs


def test_seeds_are_run_for_every_prompt():
    jobs = plan_jobs(prompts=["a", "b"], seeds=[7, 9])
    assert [(job.prompt, job.seed) for job in jobs] == [("a", 7), ("a", 9), ("b", 7), ("b", 9)]
    with pytest.raises(ValueError, match="prompts is empty"):
        plan_jobs(prompts=[])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": ["a", None]}, "prompts holds None; expected texts"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [-1]}, "seeds holds -1; expected whole numbers from 0"),
        ({"sizes": (16, 24)}, r"sizes holds 16; expected pairs \(width, height\)"),
        ({"sizes": [(16, 24, 4)]}, "sizes holds"),
        ({"frames": [0]}, "frames holds 0; expected whole numbers from 1"),
        ({"steps": [1]}, "steps holds 1; expected whole numbers from 2 to 1000"),
        ({"steps": [1001]}, "steps holds 1001"),
        ({"steps": [8.0]}, "steps holds 8.0"),
        ({"shifts": [0.0]}, "shifts holds 0.0; expected numbers above 0"),
        ({"guidance_scales": [-1.0]}, "guidance_scales holds -1.0; expected numbers of 0 and more"),
        ({"guidance_scales": [float("nan")]}, "guidance_scales holds nan"),
    ],
)
def test_what_no_run_can_have_is_refused_before_one_is_sampled(changes, said):
    with pytest.raises(ValueError, match=said):
        plan_jobs(**{"prompts": ["a"], **changes})


def test_one_text_is_one_prompt_and_any_kind_of_number_is_taken():
    jobs = plan_jobs(prompts="a fox", steps=[np.int64(8)], frames=[np.int32(4)], shifts=[np.float32(3.0)])
    assert jobs == (Job("a fox", 0, None, None, 4, 8, 3.0),)
    assert [type(value) for value in (jobs[0].num_steps, jobs[0].frames, jobs[0].shift)] == [int, int, float]


def test_runs_under_a_sampler_that_no_record_is_used_under_are_recorded_with_a_warning(killable, tmp_path):
    pipe = killable.pipeline()
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, stochastic_sampling=True)
    jobs = [dataclasses.replace(killable.JOBS[0], shift=None)]
    said = "no record is used under FlowMatchEulerDiscreteScheduler, because it draws noise"
    with pytest.warns(EasyTeaCacheWarning, match=said):
        record_pipeline(pipe, jobs, tmp_path, killable.SETTINGS, progress=False)
    assert len(TraceSet.load(tmp_path)) == 1
