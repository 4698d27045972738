"""A calibration makes itself: recorded, solved between two runs, filed, used, checked; and no generation ever fails for it."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import nn

from easyteacache import EasyTeaCacheWarning, TeaCache
from easyteacache.calibrating import promise, while_working
from easyteacache.calibrating.filing import local_layer
from easyteacache.calibrating.trace_store import STATE, traces_home
from easyteacache.errors import InvalidTrace
from easyteacache.hub.alone import alone
from easyteacache.integrations.diffusers.recording.attached_run import AttachedRun
from easyteacache.records import calibration as records
from easyteacache.records.trace_set import TraceSet
from easyteacache.reference import load_pipeline

from .conftest import STEPS, error_of

HALF = STEPS // 2
UNIPC = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def trace_files() -> list[Path]:
    return sorted(traces_home().rglob("run-*.safetensors"))


def record_files() -> list[Path]:
    return sorted(local_layer().rglob("*.json"))


def computed(cache: TeaCache) -> int:
    return max(run.computed for run in cache.statistics().values())


def recorded_line(cache: TeaCache) -> str | None:
    return next((line for line in cache.summary().splitlines() if line.startswith("recording")), None)


@pytest.fixture
def cache(pipe):
    """A cache that makes its own record."""
    found = TeaCache.for_pipeline(pipe, speedup=2.0, calibrate=True).attach(pipe)
    yield found
    found.detach()


@pytest.fixture(scope="session")
def finished_home(shared):
    """A home with the traces of six runs, and the record that came of them."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EASYTEACACHE_HOME", str(folder))
            found = load_pipeline()
            found.set_progress_bar_config(disable=True)
            with TeaCache.for_pipeline(found, speedup=2.0, calibrate=True).attached(found):
                for seed in range(6):
                    found(f"{seed} down", num_frames=1, num_inference_steps=STEPS, seeds=[seed])

    return shared("made-while-working", make)


@pytest.fixture
def six(finished_home, home, pipe):
    """A cache that finds the record of six runs."""
    shutil.copytree(finished_home, home)
    found = TeaCache.for_pipeline(pipe, speedup=2.0, calibrate=True).attach(pipe)
    yield found
    found.detach()


@pytest.fixture
def five(finished_home, home, cache):
    """A cache that finds five of them, and no record."""
    shutil.copytree(finished_home / "traces", home / "traces")
    trace_files()[0].unlink()
    return cache


# Recording, solving, using ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("scheduler", "steps"), [("euler", STEPS), ("unipc", 12)])
def test_six_runs_are_recorded_in_full_and_the_seventh_is_twice_as_fast(pipe, generate, scheduler, steps):
    if scheduler == "unipc":
        pipe.scheduler = UniPCMultistepScheduler(**UNIPC)
    cache = TeaCache.for_pipeline(pipe, speedup=2.0, calibrate=True).attach(pipe)
    for seed in range(6):
        generate(seed, num_inference_steps=steps)
        assert computed(cache) == steps
        assert recorded_line(cache) == f"recording: run {seed + 1} of 6"
    assert len(trace_files()) == 6
    found = generate(6, num_inference_steps=steps)
    assert computed(cache) == steps // 2
    assert recorded_line(cache) is None
    assert cache.policy.evidence == "submitted"
    cache.detach()
    full, noise = generate(6, num_inference_steps=steps), pipe.prepare_latents(found.shape, seeds=[6])
    (path,) = record_files()
    record = records.load(path)
    assert record.status == "validated"
    promised = promise.promised(record, cache.policy)
    assert promised is not None
    assert error_of(found, full, noise) < promise.DRIFT * promise.upper(promised)


@pytest.mark.slow
def test_six_runs_of_a_wan_pipeline_under_unipc_make_its_record(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "integrations" / "diffusers"))
    import tiny_pipelines

    pipe = tiny_pipelines.wan()
    pipe.scheduler = UniPCMultistepScheduler(**UNIPC)
    cache = TeaCache.for_pipeline(pipe, speedup=2.0, calibrate=True).attach(pipe)
    for seed in range(7):
        pipe(
            "a red fox",
            height=16,
            width=16,
            num_frames=5,
            num_inference_steps=12,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
        )
        assert computed(cache) == (12 if seed < 6 else 6)
    (path,) = record_files()
    assert records.load(path).modality == "video"


SECOND = """
import sys, warnings
warnings.simplefilter("error")
import torch
torch.set_num_threads(1)
from easyteacache import TeaCache
from easyteacache.reference import load_pipeline
pipe = load_pipeline()
pipe.set_progress_bar_config(disable=True)
cache = TeaCache.for_pipeline(pipe, speedup=2.0, calibrate=True).attach(pipe)
pipe("4 up", num_frames=1, num_inference_steps=8, seeds=[77])
print(max(run.computed for run in cache.statistics().values()))
"""


@pytest.mark.slow
def test_another_process_uses_the_record_at_once(six):
    ran = subprocess.run([sys.executable, "-c", SECOND], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [str(HALF)]


def test_a_cache_that_makes_no_records_finds_the_one_that_was_made(six, pipe, generate):
    six.detach()
    plain = TeaCache.for_pipeline(pipe, speedup=2.0, num_steps=STEPS)
    with plain.attached(pipe):
        generate(6)
    assert computed(plain) == HALF


def test_other_steps_and_another_sampler_are_recorded_apart(six, pipe, generate):
    generate(6, num_inference_steps=STEPS + 2)
    assert recorded_line(six) == "recording: run 1 of 6"
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    generate(7)
    assert recorded_line(six) == "recording: run 1 of 6"
    generate(8, height=18)
    assert recorded_line(six) == "recording: run 1 of 6"
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    generate(9)
    assert computed(six) == HALF


class Lora(nn.Linear):
    """A layer of peft as far as it is read, that changes nothing."""

    def __init__(self, weights: dict[str, float]) -> None:
        super().__init__(4, 4)
        self.scaling, self.active_adapters = dict(weights), list(weights)
        self.lora_alpha, self.r = dict.fromkeys(weights, 1.0), dict.fromkeys(weights, 1)


def test_another_adapter_and_other_weights_are_recorded_apart(six, pipe, generate):
    adapted = Lora({"style": 1.0})
    pipe.transformer.add_module("adapted", adapted)
    generate(6)
    assert recorded_line(six) == "recording: run 1 of 6"
    adapted.scaling["style"] = 0.5
    generate(7)
    assert recorded_line(six) == "recording: run 1 of 6"
    del pipe.transformer.adapted
    generate(8)
    assert computed(six) == HALF
    with torch.no_grad():
        # As a fused adapter or another fine-tune changes them: same class, same configuration.
        pipe.transformer.blocks[0].attn1.to_q.weight.add_(1e-3)
    generate(9)
    assert recorded_line(six) == "recording: run 1 of 6"


def test_traces_tell_nothing_of_prompts(six):
    for run in TraceSet.load(*trace_files()):
        assert run.header.prompt is None
        assert run.header.prompt_sha256 is None
    assert all(b" down" not in path.read_bytes() for path in trace_files())


def test_a_run_that_is_broken_off_is_not_recorded(cache, pipe, generate):
    def stop(pipeline: Any, step: int, *_: Any) -> dict[str, Any]:
        pipeline._interrupt = step == 3
        return {}

    generate(0, callback_on_step_end=stop)
    assert trace_files() == []
    generate(0)
    assert recorded_line(cache) == "recording: run 1 of 6"
    assert len(trace_files()) == 1


def test_the_same_run_again_counts_once(cache, generate):
    generate(3)
    generate(3)
    assert len(trace_files()) == 1


def test_a_run_whose_adapters_are_switched_is_not_recorded(cache, pipe, generate):
    def switch(pipeline: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == 3:
            adapted.scaling["style"] = 0.25
        return {}

    adapted = Lora({"style": 1.0})
    pipe.transformer.add_module("adapted", adapted)
    generate(0, callback_on_step_end=switch)
    assert trace_files() == []


def test_a_run_whose_scheduler_is_changed_on_the_way_is_not_recorded(cache, pipe, generate):
    def change(pipeline: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == 3:
            pipeline.scheduler.register_to_config(stochastic_sampling=True)
        return {}

    with pytest.warns(EasyTeaCacheWarning, match="options were changed in the middle"):
        generate(0, callback_on_step_end=change)
    assert trace_files() == []


def test_samples_of_recorded_runs_are_bit_for_bit_those_without_a_cache(pipe, generate):
    bare = generate(5)
    with TeaCache.for_pipeline(pipe, speedup=2.0, calibrate=True).attached(pipe):
        assert torch.equal(generate(5), bare)


# Meanwhile -----------------------------------------------------------------------------------------------------------------


def test_until_uncalibrated_every_second_run_is_recorded(pipe, generate):
    cache = TeaCache.for_pipeline(pipe, speedup=2.0, calibrate=True, until="uncalibrated").attach(pipe)
    seen = []
    for seed in range(4):
        generate(seed)
        seen.append(computed(cache))
    assert seen == [STEPS, HALF, STEPS, HALF]
    assert len(trace_files()) == 2


def test_until_published_other_records_serve_between(pipe, generate):
    cache = TeaCache.from_registry("reference/moving-digits", speedup=2.0, calibrate=True, until="published").attach(
        pipe
    )
    generate(0)
    assert recorded_line(cache) == "recording: run 1 of 6"
    with pytest.warns(EasyTeaCacheWarning, match="carried|not"):
        generate(1)
    assert cache.policy.model_key == "reference/moving-digits"


def test_a_record_that_holds_is_used_and_nothing_is_recorded(pipe, generate):
    cache = TeaCache.from_registry("reference/moving-digits", speedup=2.0, calibrate=True).attach(pipe)
    generate(0, num_inference_steps=25)
    assert computed(cache) == 12
    assert trace_files() == []


def test_one_variable_turns_everything_off(cache, generate, monkeypatch):
    monkeypatch.setenv(while_working.ENVIRONMENT, "0")
    generate(0)
    assert computed(cache) == STEPS
    assert "EASYTEACACHE_CALIBRATE=0" in cache.notes[0]
    assert not traces_home().exists()
    assert record_files() == []


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({}, "needs speedup"),
        ({"threshold": 0.1}, "needs speedup"),
        ({"speedup": 2.0, "until": "soon"}, "until"),
        ({"max_error": 0.1, "until": "uncalibrated"}, "needs speedup"),
        ({"speedup": 2.0, "calibrate_runs": 5}, "6 to 16"),
        ({"speedup": 2.0, "audit_every": 1}, "audit_every"),
        ({"speedup": 2.0, "uncalibrated": True}, "until="),
    ],
)
def test_what_cannot_be_meant_is_refused(pipe, wishes, said):
    with pytest.raises(ValueError, match=said):
        TeaCache.for_pipeline(pipe, calibrate=True, **wishes)


def test_copies_are_not_attached_and_record_for_themselves(six, pipe, generate):
    for twin in (copy.deepcopy(six), pickle.loads(pickle.dumps(six))):
        six.detach()
        with twin.attached(pipe):
            generate(6)
            assert computed(twin) == HALF
        six.attach(pipe)


# Checking a promise --------------------------------------------------------------------------------------------------------


def test_every_so_many_runs_the_promise_is_checked_on_one_in_full(six, pipe, generate):
    six.detach()
    cache = TeaCache.for_pipeline(pipe, speedup=2.0, calibrate=True, audit_every=3).attach(pipe)
    seen = []
    for seed in range(6, 13):
        generate(seed)
        seen.append(computed(cache))
    assert seen == [HALF, HALF, STEPS, HALF, HALF, STEPS, HALF]
    assert records.load(record_files()[0]).revision == 1
    assert len(trace_files()) == 8


def test_drift_is_a_warning_and_a_fresh_solve(six, pipe, generate, monkeypatch):
    six.detach()
    cache = TeaCache.for_pipeline(pipe, speedup=2.0, calibrate=True, audit_every=2).attach(pipe)
    generate(6)
    monkeypatch.setattr(promise, "error_of", lambda policy, trace: 1.0)
    with pytest.warns(EasyTeaCacheWarning, match=r"error of 1, and at most .* solved anew"):
        generate(7)
    record = records.load(record_files()[0])
    assert record.revision == 2
    assert len(record.provenance.traces) == 7
    generate(8)
    assert computed(cache) == HALF


def test_a_replayed_audit_agrees_with_what_is_measured(six, pipe, generate):
    found = generate(11)
    policy = six.policy
    six.detach()
    full, noise = generate(11), pipe.prepare_latents(found.shape, seeds=[11])
    other = TeaCache.for_pipeline(pipe, speedup=2.0, calibrate=True, audit_every=2).attach(pipe)
    generate(11)
    other.detach()
    newest = max(trace_files(), key=lambda path: path.stat().st_mtime_ns)
    replayed = promise.error_of(policy, TraceSet.load(newest)[0])
    assert replayed == pytest.approx(error_of(found, full, noise), rel=1.0)


# What goes wrong -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["enter", "leave", "finish", "trace"])
def test_an_error_while_recording_is_a_warning_and_the_run_goes_on(cache, generate, monkeypatch, method):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no room for a sketch")

    monkeypatch.setattr(AttachedRun, method, broken)
    with pytest.warns(EasyTeaCacheWarning, match="nothing was learnt.*no room for a sketch"):
        generate(0)
    assert computed(cache) == STEPS
    assert trace_files() == []


def test_a_disk_that_cannot_be_written_is_a_warning(cache, generate, home):
    home.mkdir(parents=True)
    (home / "traces").write_text("in the way")
    with pytest.warns(EasyTeaCacheWarning, match="nothing was learnt"):
        generate(0)
    assert computed(cache) == STEPS


def test_after_three_failures_a_process_stops_trying_and_says_so(cache, generate, monkeypatch):
    monkeypatch.setattr(AttachedRun, "enter", lambda *_, **__: 1 / 0)
    with pytest.warns(EasyTeaCacheWarning, match="ZeroDivisionError"):
        generate(0)
    for seed in (1, 2):
        generate(seed)
    with pytest.warns(EasyTeaCacheWarning, match="3 recordings in a row have failed"):
        generate(3)


def test_a_warning_that_its_caller_made_an_error_is_one(cache, generate, monkeypatch):
    monkeypatch.setattr(AttachedRun, "trace", lambda *_, **__: 1 / 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EasyTeaCacheWarning)
        with pytest.raises(EasyTeaCacheWarning):
            generate(0)


def test_runs_that_do_not_pass_ask_for_two_more(five, generate, monkeypatch):
    real = while_working.solved_and_judged
    asked = []

    def refusing(traces: TraceSet, labels: Any) -> Any:
        judged = real(traces, labels)
        asked.append(len(traces))
        if len(asked) > 1:
            return judged
        return type(judged)(judged.record.model_copy(update={"buckets": ()}), judged.report)

    monkeypatch.setattr(while_working, "solved_and_judged", refusing)
    with pytest.warns(EasyTeaCacheWarning, match="recording goes on to 8 runs"):
        generate(15)
    generate(6)
    assert recorded_line(five) == "recording: run 7 of 8"
    assert record_files() == []
    generate(7)
    assert asked == [6, 8]
    assert len(record_files()) == 1


def test_a_record_that_does_not_reach_what_is_asked_for_grows(six, pipe, generate):
    six.detach()
    (path,) = record_files()
    cache = TeaCache.for_pipeline(pipe, speedup=7.5, calibrate=True).attach(pipe)
    generate(20)
    line = recorded_line(cache)
    assert line is not None
    assert line.startswith("recording: run 7 of 16, because a speed-up of 7.5 is not calibrated")
    assert len(records.load(path).provenance.traces) == 7


def test_a_record_that_has_grown_to_its_end_says_that_it_does_not_reach_it(six, pipe, generate, monkeypatch):
    six.detach()
    monkeypatch.setattr(while_working, "MOST_RUNS", 6)
    cache = TeaCache.for_pipeline(pipe, speedup=7.5, calibrate=True).attach(pipe)
    with pytest.warns(EasyTeaCacheWarning, match="does not reach what is asked for"):
        generate(20)
    assert computed(cache) == STEPS
    assert len(trace_files()) == 6


def test_damaged_traces_and_records_are_made_anew(six, generate):
    (path,) = record_files()
    path.write_text("{")
    trace_files()[0].write_bytes(b"no trace")
    with pytest.warns(EasyTeaCacheWarning, match="recorded anew"):
        generate(6)
    assert computed(six) == STEPS
    generate(7)
    assert computed(six) == HALF
    assert records.load(path).status == "validated"


def test_a_damaged_count_of_runs_is_a_late_audit_and_nothing_else(six, generate):
    (state,) = traces_home().rglob(STATE)
    state.write_text("[1]")
    generate(6)
    assert computed(six) == HALF
    assert json.loads(state.read_text())["runs"] == 1


def test_a_setting_that_another_process_is_solving_waits_for_it(five, generate):
    (folder,) = {path.parent for path in trace_files()}
    with alone(folder):
        generate(15)
        assert record_files() == []
        generate(16)
        assert computed(five) == STEPS
    generate(7)
    assert computed(five) == HALF


def test_a_run_whose_sampler_nobody_knows_is_said_once(pipe, generate):
    cache = TeaCache.for_pipeline(pipe, speedup=2.0, calibrate=True).attach(pipe.transformer)
    with pytest.warns(EasyTeaCacheWarning, match="not recorded: the sampler of the run is not known"):
        generate(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(1)
    assert computed(cache) == STEPS


def test_runs_that_no_record_could_serve_are_not_recorded_and_it_is_said_once(pipe, generate):
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, stochastic_sampling=True)
    cache = TeaCache.for_pipeline(pipe, speedup=2.0, calibrate=True).attach(pipe)
    said = "not recorded: no record is used under FlowMatchEulerDiscreteScheduler, because it draws noise"
    with pytest.warns(EasyTeaCacheWarning, match=said):
        generate(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(1)
    assert computed(cache) == STEPS
    assert not trace_files()


def test_traces_no_solver_takes_are_not_tried_at_every_run(five, generate, monkeypatch):
    def refused(*_: Any, **__: Any) -> None:
        raise InvalidTrace("traces", "cannot be solved", rule="trace.gram")

    monkeypatch.setattr(while_working, "solved_and_judged", refused)
    with pytest.warns(EasyTeaCacheWarning, match="cannot be solved"):
        generate(15)
    generate(6)
    assert recorded_line(five) == "recording: run 7 of 8"
