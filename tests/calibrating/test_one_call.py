"""``calibrate``: from a pipeline and prompts to a filed record in one call, which can be stopped, shared out and repeated."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import easyteacache
from easyteacache import EasyTeaCacheWarning, TeaCache
from easyteacache.calibrating import one_call
from easyteacache.calibrating.filing import local_layer, path_in_local
from easyteacache.calibrating.step_time import in_words, seconds_of_a_step
from easyteacache.calibrating.trace_store import traces_home
from easyteacache.errors import AttachError, InvalidCalibration, InvalidModelKey
from easyteacache.integrations.diffusers.recording import Job
from easyteacache.records import calibration as records
from easyteacache.records.trace_set import TraceSet
from easyteacache.reference import load_pipeline

from .conftest import STEPS

KEY = "test/digits"
PROMPTS = ("3 down", "7 up-left")
SMALL: dict[str, Any] = {"steps": STEPS, "frames": 1, "model_key": KEY, "progress": False}


@pytest.fixture(scope="session")
def calibrated_home(shared):
    """A home in which ``calibrate`` was called once."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EASYTEACACHE_HOME", str(folder))
            easyteacache.calibrate(load_pipeline(), PROMPTS, **SMALL)

    return shared("calibrated", make)


@pytest.fixture
def calibrated(calibrated_home, home):
    """The record of that call, in a home of one's own."""
    shutil.copytree(calibrated_home, home)
    return records.load(path_in_local(KEY))


def test_one_call_records_solves_judges_and_files(calibrated, pipe, generate):
    assert calibrated.status == "validated"
    assert calibrated.model_key == KEY
    traces = TraceSet.load(*traces_home().rglob("*.safetensors"))
    assert len(traces) == 6
    assert {run.header.seed for run in traces} == set(range(6))
    assert {run.header.prompt for run in traces} == {None}
    assert len({run.header.prompt_sha256 for run in traces}) == len(PROMPTS)
    with TeaCache.from_calibration(calibrated, speedup=2.0).attached(pipe) as cache:
        generate(9)
    assert cache.current_speedup_rate() == 2.0
    assert TeaCache.from_registry(KEY, speedup=2.0, num_steps=STEPS).policy.layer == "local"


def test_the_same_call_again_runs_nothing_and_gives_the_same_record(calibrated, pipe, monkeypatch):
    said: list[str] = []
    pipe.transformer.register_forward_pre_hook(lambda *_: pytest.fail("something was run"))
    again = easyteacache.calibrate(pipe, PROMPTS, **SMALL, tell=said.append)
    assert again == calibrated
    assert any("All 6 runs are recorded already" in text for text in said)


def test_more_steps_grow_the_same_record(calibrated, pipe):
    grown = easyteacache.calibrate(pipe, PROMPTS, **SMALL | {"steps": [STEPS, STEPS - 2]})
    assert grown.revision == calibrated.revision + 1
    assert [bucket.num_steps for bucket in grown.buckets] == [STEPS - 2, STEPS]


def test_it_says_beforehand_how_long_it_will_take(pipe, monkeypatch):
    monkeypatch.setattr(one_call, "seconds_of_a_step", lambda *_: 2.5)
    monkeypatch.setattr(one_call, "record_pipeline", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        easyteacache.calibrate(pipe, PROMPTS, **SMALL, tell=said.append)
    assert said[0] == f"One step takes 2.5 s: recording 6 runs will take about {in_words(6 * STEPS * 2.5)}."
    assert re.match(r"Stopped: 0 of 6 runs are in .*; the same call records the rest", said[1])


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (80, "80 s"), (100, "2 min"), (5000, "83 min"), (12600, "3.5 h")]
)
def test_durations_are_said_as_people_do(seconds, said):
    assert in_words(seconds) == said


def test_a_step_is_timed_and_leaves_nothing_on_the_model(pipe, generate):
    before = generate(4)
    pipe.transformer.register_forward_hook(lambda *_: time.sleep(0.02))
    found = seconds_of_a_step(pipe, Job("3 down", width=16, height=16, frames=1, num_steps=STEPS))
    # Two branches a step.
    assert found is not None
    assert found >= 0.04
    pipe.transformer._forward_hooks.clear()
    assert torch.equal(generate(4), before)


def test_what_was_stopped_goes_on_where_it_stood(pipe, monkeypatch):
    forwards: list[int] = []

    def stop(*_: Any) -> None:
        forwards.append(1)
        # In the middle of the fourth run.
        if len(forwards) == 3 * 2 * STEPS + 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(one_call, "seconds_of_a_step", lambda *_: None)
    pipe.transformer.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        easyteacache.calibrate(pipe, PROMPTS, **SMALL)
    assert len(list(traces_home().rglob("*.safetensors"))) == 3
    record = easyteacache.calibrate(pipe, PROMPTS, **SMALL)
    assert len(forwards) == 3 * 2 * STEPS + 5 + 3 * 2 * STEPS
    assert record.status == "validated"


def test_another_record_of_the_key_is_refused_before_anything_runs(calibrated, pipe, monkeypatch):
    with torch.no_grad():
        pipe.transformer.blocks[0].attn1.to_q.weight.add_(1e-3)
    monkeypatch.setattr(one_call, "_record", lambda *_, **__: pytest.fail("something was run"))
    with pytest.raises(InvalidCalibration, match=r"model_key=.*replace=True"):
        easyteacache.calibrate(pipe, PROMPTS, **SMALL)


def test_a_draft_that_does_not_pass_is_returned_and_not_filed(calibrated, pipe, monkeypatch):
    path_in_local(KEY).unlink()
    real = one_call.solved_and_judged

    def empty(*args: Any, **kwargs: Any) -> Any:
        judged = real(*args, **kwargs)
        buckets = tuple(one.model_copy(update={"operating_points": ()}) for one in judged.record.buckets)
        draft = judged.record.model_copy(update={"buckets": buckets, "status": "draft"})
        return type(judged)(draft, judged.report)

    monkeypatch.setattr(one_call, "solved_and_judged", empty)
    with pytest.warns(EasyTeaCacheWarning, match="draft and was not filed"):
        found = easyteacache.calibrate(pipe, PROMPTS, **SMALL)
    assert found.status == "draft"
    assert not path_in_local(KEY).exists()


def test_the_key_comes_from_the_checkpoint(pipe):
    from easyteacache.integrations.diffusers.record_lookup import key_for_new
    from easyteacache.registry.registry import Registry

    layers = Registry.default()
    assert re.fullmatch(r"local/wantransformer3dmodel-[0-9a-f]{8}", key_for_new(pipe, layers))
    pipe.transformer.register_to_config(_name_or_path="Some-One/My_Model-5B")
    assert key_for_new(pipe, layers) == "some-one/my_model-5b"
    pipe.transformer.register_to_config(_name_or_path="Wan-AI/Wan2.1-T2V-14B-Diffusers")
    assert key_for_new(pipe, layers) == "wan2.1/t2v-14b"
    pipe.transformer.register_to_config(_name_or_path="/home/somebody/secret-project")
    assert key_for_new(pipe, layers).startswith("local/")


def test_what_cannot_be_calibrated_is_refused(pipe):
    with pytest.raises(InvalidModelKey):
        easyteacache.calibrate(pipe, PROMPTS, **SMALL | {"model_key": "Not A Key"})
    with pytest.raises(ValueError, match="prompts is empty"):
        easyteacache.calibrate(pipe, [], **SMALL)
    pipe.transformer_2 = pipe.transformer
    with pytest.raises(AttachError, match="two experts"):
        easyteacache.calibrate(pipe, PROMPTS, **SMALL)


SHARED = """
import sys
import torch
torch.set_num_threads(1)
import easyteacache
from easyteacache.reference import load_pipeline
record = easyteacache.calibrate(load_pipeline(), ["3 down"], steps=6, frames=1, model_key="test/shared", progress=False)
print(record.status, len(record.provenance.traces))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"steps": 1}, ValueError, "steps holds 1; expected whole numbers from 2 to 1000"),
        ({"sizes": (16, 16)}, ValueError, "sizes holds 16; expected pairs"),
        ({"shifts": 0}, ValueError, "shifts holds 0; expected numbers above 0"),
        ({"seeds": -1}, ValueError, "seeds holds -1"),
        ({"labels": {"licence": "CC0-1.0"}}, ValueError, "labels names licence; expected title, license"),
        ({"labels": {"modality": "moving"}}, InvalidCalibration, "modality: Input should be 'image'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(pipe, monkeypatch, changes, error, said):
    monkeypatch.setattr(type(pipe), "__call__", lambda *_, **__: pytest.fail("the pipeline ran"))
    with pytest.raises(error, match=said):
        easyteacache.calibrate(pipe, PROMPTS, **{**SMALL, **changes})


def test_one_text_is_one_prompt_and_one_number_one_setting(pipe):
    wishes = {**SMALL, "shifts": 3.0, "guidance_scales": 2.0, "labels": {"notes": "Made for a test."}}
    record = easyteacache.calibrate(pipe, "3 down", **wishes)
    traces = TraceSet.load(*traces_home().rglob("*.safetensors"))
    assert [(run.header.seed, run.header.shift, run.header.guidance_scale) for run in traces] == [
        (seed, 3.0, 2.0) for seed in range(6)
    ]
    assert len({run.header.prompt_sha256 for run in traces}) == 1
    assert record.notes[0] == "Made for a test."


def test_a_sampler_that_no_record_is_used_under_is_refused_before_anything_runs(pipe, monkeypatch):
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, stochastic_sampling=True)
    monkeypatch.setattr(type(pipe), "__call__", lambda *_, **__: pytest.fail("the pipeline ran"))
    with pytest.raises(
        AttachError, match="no record is used under FlowMatchEulerDiscreteScheduler, because it draws noise"
    ):
        easyteacache.calibrate(pipe, PROMPTS, **SMALL)


@pytest.mark.parametrize("branches", ["cond,uncond", ("cond", "uncond")])
def test_branches_are_names_or_a_text_that_joins_them(branches):
    assert one_call._names(branches) == ("cond", "uncond")


def test_processes_of_one_launch_share_the_runs(home):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SHARED],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=300)[0].split() for process in started]
    assert told == [["validated", "6"]] * 2
    assert [path.name for path in local_layer().rglob("*.json")] == ["shared.json"]
    assert len(list(traces_home().rglob("*.safetensors"))) == 6


@pytest.mark.slow
def test_measuring_samples_plans_with_the_model_and_keeps_prompts_out_of_the_files(pipe):
    record = easyteacache.calibrate(pipe, PROMPTS, **SMALL | {"measure": True})
    assert record.status == "validated"
    assert all(run.header.prompt is None for run in TraceSet.load(*traces_home().rglob("*.safetensors")))
    assert list(traces_home().rglob("measured.json"))


@pytest.fixture
def chroma(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny Chroma, whose pipeline runs two guidance branches and names neither."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "integrations" / "diffusers"))
    import tiny_pipelines

    return tiny_pipelines.chroma()


TINY: dict[str, Any] = {"steps": 8, "sizes": [(32, 32)], "model_key": "test/chroma", "progress": False}


def test_branches_that_nobody_names_are_refused_after_one_run(chroma: Any) -> None:
    with pytest.raises(AttachError, match=r"2 branches \(cond, cond-2\).*branches=\('cond', 'uncond'\)"):
        easyteacache.calibrate(chroma, ["a red fox", "a blue boat"], **TINY)
    assert len(TraceSet.load(next((traces_home() / "calibrated").iterdir()))) == 1


@pytest.mark.slow
def test_branches_may_be_named_by_the_caller(chroma: Any) -> None:
    record = easyteacache.calibrate(chroma, ["a red fox", "a blue boat"], branches=("cond", "uncond"), **TINY)
    assert record.branches == ("cond", "uncond")
    assert record.status == "validated"
