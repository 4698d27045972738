"""Where text and image are one stream, branches with texts of different lengths are recorded by what is generated."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tiny_pipelines
import tiny_transformers
import torch
from tiny_case import text

from easyteacache.calibrating.measuring import policy_of
from easyteacache.errors import InvalidSignal
from easyteacache.integrations.diffusers.attach import attach
from easyteacache.integrations.diffusers.forward_state import sample_of, with_sample
from easyteacache.integrations.diffusers.models.registry import located
from easyteacache.integrations.diffusers.recording import Job, RecordingSettings, record_run
from easyteacache.integrations.diffusers.recording.final_sample import final_sample, relative_l2
from easyteacache.integrations.diffusers.recording.pipeline_runs import resolved
from easyteacache.integrations.diffusers.recording.probe import Probe
from easyteacache.integrations.diffusers.recording.tap_hooks import tapped
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.source import FixedPolicy
from easyteacache.recording.recorder import Recorder
from easyteacache.runtime.session import Session
from easyteacache.solver.replay.fitted_weights import StateFit, correctable
from easyteacache.solver.replay.plan_errors import PlanErrors
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.search.planner import Plan

from .test_recorded_pipelines import with_defaults

STEPS, SCALE, TOKENS = 4, 3.0, 16
#: Tokens of each branch's prompt.
TEXTS = {"cond": 5, "uncond": 2}


def arguments(name: str, step: int, branch: str) -> dict[str, Any]:
    found, length = tiny_transformers.arguments(name, step, branch, steps=STEPS), TEXTS[branch]
    found["encoder_hidden_states"] = text(branch, 1, length, 8)
    if name == "Lumina2Transformer2DModel":
        # Padded to one length, as its pipeline does; the transformer takes the padding out.
        found["encoder_hidden_states"] = torch.nn.functional.pad(found["encoder_hidden_states"], (0, 0, 0, 6 - length))
        found["encoder_attention_mask"] = torch.arange(6).lt(length).unsqueeze(0)
    else:
        found["encoder_hidden_states_mask"] = torch.ones(1, length, dtype=torch.bool)
        found["img_mask"] = torch.arange(length + TOKENS // 4).reshape(1, -1) >= length
    return found


@torch.no_grad()
def recorded(name: str, **options: Any) -> tuple[Any, dict[str, list[torch.Tensor]], dict[str, list[torch.Tensor]]]:
    """The trace, and residuals and outputs of the generated tokens by branch, a step each."""
    model = tiny_transformers.build(name)
    probe, recorder = Probe(model), Recorder(**options)
    blocks = located(probe.adapter, model)
    inputs: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    blocks[0][1].register_forward_pre_hook(
        lambda _, args, kwargs: inputs.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    blocks[-1][1].register_forward_hook(lambda _, args, output: seen.append(output))
    residuals: dict[str, list[torch.Tensor]] = {branch: [] for branch in TEXTS}
    outputs: dict[str, list[torch.Tensor]] = {branch: [] for branch in TEXTS}
    with tapped(model, probe, recorder, branch_names=tuple(TEXTS)):
        for step in range(STEPS):
            for branch in TEXTS:
                output = model(**arguments(name, step, branch), return_dict=False)[0]
                residuals[branch].append((seen[-1] - inputs[-1])[:, -TOKENS:].flatten())
                outputs[branch].append((output[:, -TOKENS:] if output.dim() == 3 else output).flatten())
    trace = recorder.finish(model_key="test/joined", sigmas=np.linspace(1.0, 0.0, STEPS + 1), guidance_scale=SCALE)
    return trace, residuals, outputs


def guided_gram(found: dict[str, list[torch.Tensor]]) -> np.ndarray:
    cond, uncond = (torch.stack(found[branch]).double() for branch in ("cond", "uncond"))
    guided = uncond + SCALE * (cond - uncond)
    return (guided @ guided.T).numpy()


@pytest.mark.parametrize("options", [{}, {"sketch": "count"}], ids=["whole", "sketched"])
@pytest.mark.parametrize("name", ["Lumina2Transformer2DModel", "QwenImage21Transformer2DModel"])
def test_the_generated_tokens_of_both_branches_are_compared_place_by_place(name: str, options: dict[str, Any]) -> None:
    trace, residuals, outputs = recorded(name, **options)
    assert trace.header.sequence_length == TOKENS
    assert trace.grams["guided"] == pytest.approx(guided_gram(residuals), rel=1e-4)
    assert trace.grams["output:guided"] == pytest.approx(guided_gram(outputs), rel=1e-4)


def test_a_model_that_counts_up_towards_the_image_is_recorded() -> None:
    trace, *_ = recorded("Lumina2Transformer2DModel")
    assert np.all(np.diff(trace.timesteps) > 0)


def test_a_prompt_shorter_than_its_batch_keeps_its_own_place() -> None:
    probe = Probe(tiny_transformers.build("Lumina2Transformer2DModel"))
    stream = torch.arange(2 * 21.0).reshape(2, 21, 1)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    own = probe.own(stream, {"hidden_states": torch.zeros(2, 4, 8, 8), "encoder_attention_mask": mask})
    assert own[0].flatten().tolist() == list(range(5, 21))
    assert own[1].flatten().tolist() == list(range(21 + 2, 21 + 2 + 16))


@pytest.mark.parametrize("sketch", [None, "count"])
def test_streams_of_different_lengths_that_nobody_can_compare_are_refused_at_the_first_step(sketch: Any) -> None:
    recorder = Recorder(sketch=sketch)
    recorder.begin(0, branch="cond", timestep=1.0, block_input=torch.ones(1, 5, 2))
    recorder.end(torch.ones(1, 5, 2), branch="cond")
    said = r"has shape \(1, 4, 2\); \(1, 5, 2\) was seen before"
    with pytest.raises(InvalidSignal, match=said):
        recorder.begin(0, branch="uncond", timestep=1.0, block_input=torch.ones(1, 4, 2))
    with pytest.raises(InvalidSignal, match=said):
        recorder.begin(1, branch="cond", timestep=0.5, block_input=torch.ones(1, 4, 2))


def test_outputs_of_different_lengths_are_refused_at_the_first_step() -> None:
    recorder = Recorder()
    for branch, length in (("cond", 5), ("uncond", 4)):
        recorder.begin(0, branch=branch, timestep=1.0, block_input=torch.ones(1, 5, 2))
        recorder.end(torch.ones(1, 5, 2), branch=branch)
        if branch == "cond":
            recorder.observe_output(0, branch=branch, output=torch.ones(1, length, 2))
    with pytest.raises(InvalidSignal, match="output"):
        recorder.observe_output(0, branch="uncond", output=torch.ones(1, 4, 2))


def test_a_list_of_samples_is_one_batch() -> None:
    samples = [torch.full((4, 1, 2, 2), float(number)) for number in (1, 2)]
    assert sample_of((samples,)).shape == (2, 4, 1, 2, 2)
    (handed,) = with_sample((samples,), sample_of((samples,)) * 2)
    assert isinstance(handed, list)
    assert [float(sample.mean()) for sample in handed] == [2.0, 4.0]


@pytest.mark.parametrize(
    ("name", "side", "branches"), [("lumina2", 64, ("cond", "uncond")), ("z_image", 16, ())], ids=["lumina2", "z-image"]
)
def test_a_pipeline_of_one_stream_is_recorded_and_follows_what_was_made_from_it(
    name: str, side: int, branches: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = getattr(tiny_pipelines, name)()
    own = {"system_prompt": "a"} if name == "lumina2" else {}
    with_defaults(pipe, {"max_sequence_length": 16, **own}, monkeypatch)
    settings = RecordingSettings(model_key="test/joined", branch_names=branches)
    prompts = ("a red fox", "a blue boat a boat", "no fox")
    jobs = [resolved(pipe, Job(prompt, seed, side, side, None, 8)) for seed, prompt in enumerate(prompts)]
    runs = Runs.stack([trace for job in jobs for trace in record_run(pipe, job, settings)])
    assert correctable(runs)
    schedule = (0, 1, 2, 4, 6)
    filling = dataclasses.replace(Filling("linear"), weights=StateFit(runs).weights(schedule))
    plan = Plan(filling, schedule)
    predicted = PlanErrors(runs).errors(schedule, filling)
    run = RunContext(num_steps=8, shift=3.0)
    exact = [final_sample(pipe, job) for job in jobs]
    detach = attach(Session(FixedPolicy(policy_of(plan, runs)), Request(), run), pipe, allow_borrowed=True)
    found = [final_sample(pipe, job) for job in jobs]
    detach()
    apart = [relative_l2(sample, full) for sample, full in zip(found, exact, strict=True)]
    # What outputs make up of a sample of random weights is a tenth of it and less.
    assert all(0.0 < error < 3.0 * most for error, most in zip(apart, predicted, strict=True))
