"""Whole pipelines of diffusers can be recorded, and sampled again as one batch under a plan."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import tiny_pipelines

from easyteacache.calibrating.measuring import policy_of
from easyteacache.integrations.diffusers.recording import Job, RecordingSettings
from easyteacache.integrations.diffusers.recording.pipeline_runs import record_run, resolved
from easyteacache.integrations.diffusers.recording.plan_sampling import SampledPlans
from easyteacache.solver.replay.fitted_weights import StateFit, correctable
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.search.planner import Plan

pytestmark = pytest.mark.floors

STEPS = 8
PROMPTS = ("a red fox", "a blue boat", "no fox")
#: Arguments of a job, and what tiny text encoders need beside it.
SHAPES: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    "wan": ({"width": 32, "height": 32, "frames": 5}, {"max_sequence_length": 16}),
    "flux": ({"width": 16, "height": 16}, {"max_sequence_length": 16}),
    "hunyuan": (
        {"width": 32, "height": 32, "frames": 5},
        {"max_sequence_length": 16, "prompt_template": {"template": "{}", "crop_start": 0}},
    ),
    "ltx": ({"width": 32, "height": 32, "frames": 9}, {"max_sequence_length": 16}),
    "cogvideox": ({"width": 16, "height": 16, "frames": 9}, {"max_sequence_length": 16}),
    "qwen": ({"width": 32, "height": 32}, {"max_sequence_length": 16}),
}


def with_defaults(pipe: Any, defaults: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    original = type(pipe).__call__

    @functools.wraps(original)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **{**defaults, **kwargs})

    monkeypatch.setattr(type(pipe), "__call__", called)


@pytest.mark.parametrize("name", SHAPES)
def test_a_pipeline_is_recorded_and_sampled_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, defaults = SHAPES[name]
    pipe = tiny_pipelines.PIPELINES[name]()
    with_defaults(pipe, defaults, monkeypatch)
    jobs = [resolved(pipe, Job(prompt, seed, num_steps=STEPS, **shape)) for seed, prompt in enumerate(PROMPTS)]
    traces = [trace for job in jobs for trace in record_run(pipe, job, RecordingSettings(model_key="test/tiny"))]
    assert [trace.num_steps for trace in traces] == [STEPS] * len(PROMPTS)
    assert all(trace.header.branches[0] == "cond" for trace in traces)
    runs = Runs.stack(traces)
    assert correctable(runs)
    schedule = (0, 2, 4, 6)
    plan = Plan(dataclasses.replace(Filling("linear"), weights=StateFit(runs).weights(schedule)), schedule)
    found = SampledPlans(pipe).sampled(runs.traces, policy_of(plan, runs))
    assert len(found.errors) == len(PROMPTS)
    assert all(0 < error < 0.2 for error in found.errors)
