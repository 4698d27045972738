"""Hooks on real transformer classes: they see what runs and change nothing."""

from __future__ import annotations

import dataclasses
import inspect
import itertools

import numpy as np
import pytest
import torch
from diffusers import FirstBlockCacheConfig

from easyteacache.errors import AttachError, SignalMismatch
from easyteacache.integrations.diffusers.record_lookup import configuration_name
from easyteacache.integrations.diffusers.recording import Job, RecordingSettings, record_run
from easyteacache.integrations.diffusers.recording.pipeline_runs import resolved
from easyteacache.integrations.diffusers.recording.probe import Probe, as_tokens
from easyteacache.integrations.diffusers.recording.tap_hooks import tapped
from easyteacache.recording.recorder import Recorder
from easyteacache.records.sampler import SamplerRecord
from easyteacache.runtime.tensor_math import relative_l1

SETTINGS = RecordingSettings(model_key="test/small")
JOB = Job("3 right", seed=4, width=16, height=16, frames=2, num_steps=4, shift=3.0, guidance_scale=2.5)
IMAGE = Job("3 right", seed=4, width=16, height=16, frames=1, num_steps=4, shift=3.0, guidance_scale=2.5)


def sample(pipe, job=JOB) -> torch.Tensor:
    size = {"width": job.width, "height": job.height, "num_frames": job.frames}
    generator = torch.Generator().manual_seed(job.seed)
    call = {"num_inference_steps": job.num_steps, "guidance_scale": job.guidance_scale, "output_type": "latent"}
    return pipe(job.prompt, generator=generator, **size, **call).frames


class Watcher:
    """Plain torch hooks that keep every tensor, to compare the recording with."""

    def __init__(self, transformer) -> None:
        blocks = [*getattr(transformer, "blocks", ())] or [
            *transformer.transformer_blocks,
            *transformer.single_transformer_blocks,
        ]
        self.inputs, self.outputs, self.attention, self.velocities, self.first = [], [], [], [], []
        first, last = blocks[0], blocks[-1]
        first.register_forward_pre_hook(self._keep_input, with_kwargs=True)
        first.register_forward_hook(lambda module, args, out: self.first.append(self._stream(out)))
        last.register_forward_hook(lambda module, args, out: self.outputs.append(self._stream(out)))
        transformer.register_forward_hook(lambda module, args, out: self.velocities.append(out[0]))
        if hasattr(first, "attn1"):
            first.attn1.register_forward_pre_hook(lambda module, args: self.attention.append(args[0]))

    def _keep_input(self, module, args, kwargs) -> None:
        self.inputs.append(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])

    @staticmethod
    def _stream(out):
        return out[1] if isinstance(out, tuple) else out


@torch.no_grad()
def distances(tensors) -> list[float]:
    """Distances of every second tensor: the conditional branch runs first at each step."""
    own = tensors[::2]
    return [relative_l1(b, a) for a, b in itertools.pairwise(own)]


def forwards_of(pipe):
    return [module.forward for module in pipe.transformer.modules()]


@pytest.mark.parametrize(("fixture", "job"), [("small_pipeline", JOB), ("small_flux_pipeline", IMAGE)])
def test_recording_changes_no_bit_and_leaves_nothing_behind(fixture, job, request):
    pipe = request.getfixturevalue(fixture)
    before, signatures = sample(pipe, job), [str(inspect.signature(f)) for f in forwards_of(pipe)]
    kept = []
    with torch.no_grad():
        original = pipe.__class__._decode
        pipe._decode = lambda latents, output_type: kept.append(latents) or original(pipe, latents, output_type)
        record_run(pipe, job, SETTINGS)
    assert torch.equal(kept[0], before)
    assert torch.equal(sample(pipe, job), before)
    assert [str(inspect.signature(f)) for f in forwards_of(pipe)] == signatures
    hooked = [m._diffusers_hook for m in pipe.transformer.modules() if hasattr(m, "_diffusers_hook")]
    assert not any(registry.hooks for registry in hooked)


def test_grams_and_distances_are_those_of_the_tensors_that_ran(small_pipeline):
    seen = Watcher(small_pipeline.transformer)
    (trace,) = record_run(small_pipeline, JOB, SETTINGS)
    rows = {}
    for position, branch in enumerate(("cond", "uncond")):
        pairs = zip(seen.inputs[position::2], seen.outputs[position::2], strict=True)
        rows[branch] = np.stack([(after - before).double().flatten().numpy() for before, after in pairs])
        np.testing.assert_allclose(trace.grams[branch], rows[branch] @ rows[branch].T, rtol=1e-10)
    guided = rows["uncond"] + 2.5 * (rows["cond"] - rows["uncond"])
    np.testing.assert_allclose(trace.grams["guided"], guided @ guided.T, rtol=1e-9)
    velocities = np.stack([v.double().flatten().numpy() for v in seen.velocities])
    guided = velocities[1::2] + 2.5 * (velocities[::2] - velocities[1::2])
    np.testing.assert_allclose(trace.grams["output:guided"], guided @ guided.T, rtol=1e-9)
    assert trace.output_distances["cond"].tolist() == distances(seen.outputs)
    assert trace.signal_distances["hidden_states"]["cond"].tolist() == distances(seen.inputs)
    first = [after - before for before, after in zip(seen.inputs, seen.first, strict=True)]
    assert trace.signal_distances["first_block_residual"]["cond"].tolist() == distances(first)
    # What Wan's first block hands to its self-attention is the modulated input.
    assert trace.signal_distances["modulated_input"]["cond"].tolist() == pytest.approx(
        distances(seen.attention), rel=1e-6
    )


def test_both_block_lists_of_flux_are_one_stack(small_flux_pipeline):
    seen = Watcher(small_flux_pipeline.transformer)
    (trace,) = record_run(small_flux_pipeline, IMAGE, SETTINGS)
    rows = [
        (after - before).double().flatten().numpy()
        for before, after in zip(seen.inputs[::2], seen.outputs[::2], strict=True)
    ]
    np.testing.assert_allclose(trace.grams["cond"], np.stack(rows) @ np.stack(rows).T, rtol=1e-10)
    assert trace.header.sequence_length == 64
    assert "timestep_embedding" in trace.header.signals


def test_the_header_holds_the_setting_of_the_run(small_pipeline):
    (trace,) = record_run(small_pipeline, JOB, SETTINGS)
    header = trace.header
    assert (header.num_steps, header.sequence_length, header.frames, header.width) == (4, 128, 2, 16)
    assert header.sampler.name == "FlowMatchEulerDiscreteScheduler"
    assert (header.shift, header.prediction) == (3.0, "velocity")
    assert header.sampler.agrees(SamplerRecord.euler(trace.sigmas))
    assert header.model.class_name == "WanTransformer3DModel"
    assert (
        configuration_name(small_pipeline.transformer)
        == f"{header.model.class_name}@{header.model.configuration_sha256}"
    )
    assert (header.prompt, header.seed, header.guidance_scale) == ("3 right", 4, 2.5)
    assert trace.sigmas[0] == 1.0
    assert trace.sigmas[-1] == 0.0
    np.testing.assert_allclose(trace.timesteps / 1000, trace.sigmas[:-1], rtol=1e-6)


def test_another_shift_is_used_for_the_run_only(small_pipeline):
    scheduler = small_pipeline.scheduler
    (trace,) = record_run(small_pipeline, Job("1", 0, 16, 16, 1, 4, shift=8.0, guidance_scale=1.0), SETTINGS)
    assert small_pipeline.scheduler is scheduler
    assert trace.header.shift == 8.0
    assert trace.sigmas[2] > 0.75
    assert trace.header.branches == ("cond",)


def test_a_shift_that_follows_from_the_length_cannot_be_set(small_pipeline):
    scheduler = small_pipeline.scheduler
    small_pipeline.scheduler = type(scheduler).from_config(scheduler.config, use_dynamic_shifting=True)
    with pytest.raises(AttachError, match="sequence length"):
        record_run(small_pipeline, JOB, SETTINGS)


def test_a_job_takes_what_it_leaves_open_from_the_pipeline(small_pipeline):
    job = resolved(small_pipeline, Job("1"))
    assert (job.width, job.height, job.frames, job.shift, job.guidance_scale) == (16, 16, 4, 3.0, 3.0)


def test_branches_without_a_context_are_told_apart_by_their_conditioning(small_pipeline):
    transformer, seen = small_pipeline.transformer, {}
    cond, uncond = small_pipeline.encode_prompt("3")
    for names in ((), ("cond", "uncond")):
        recorder = Recorder(signals=("timestep_projection",))
        with torch.no_grad(), tapped(transformer, Probe(transformer), recorder, branch_names=names):
            for step in range(3):
                for text in (cond, uncond):
                    timestep = torch.tensor([900.0 - 300 * step])
                    transformer(torch.randn(1, 1, 1, 16, 16), timestep, text, return_dict=False)
        seen[names] = recorder.finish(model_key="a/b", sigmas=[0.9, 0.6, 0.3, 0.0], guidance_scale=2.0)
    assert seen[()].header.branches == ("cond", "cond-2")
    assert "guided" not in seen[()].grams
    assert "guided" in seen[("cond", "uncond")].grams


def test_a_model_with_a_cache_enabled_is_refused(small_pipeline):
    small_pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(AttachError, match="disable_cache"):
        record_run(small_pipeline, JOB, SETTINGS)


def test_an_unknown_signal_is_refused_by_name(small_flux_pipeline):
    settings = RecordingSettings(model_key="test/small", signals=("timestep_projection",))
    with pytest.raises(SignalMismatch, match="timestep_embedding"):
        record_run(small_flux_pipeline, IMAGE, settings)


def test_a_failure_in_the_middle_of_a_run_leaves_the_model_clean(small_pipeline):
    before = sample(small_pipeline)

    def fail(*args, **kwargs):
        raise RuntimeError("in the middle")

    scheduler_step = small_pipeline.scheduler.step
    small_pipeline.scheduler.step = fail
    with pytest.raises(RuntimeError, match="in the middle"):
        record_run(small_pipeline, dataclasses.replace(JOB, shift=None), SETTINGS)
    small_pipeline.scheduler.step = scheduler_step
    assert torch.equal(sample(small_pipeline), before)


def test_a_sketched_recording_of_the_same_run_stays_close(small_pipeline):
    (exact,) = record_run(small_pipeline, JOB, SETTINGS)
    settings = RecordingSettings(model_key="test/small", sketch="count", dimension=2048)
    (sketched,) = record_run(small_pipeline, JOB, settings)
    assert sketched.header.sketch.dimension == 2048
    for name, gram in exact.grams.items():
        np.testing.assert_allclose(np.diag(sketched.grams[name]), np.diag(gram), rtol=0.15)


def test_auto_keeps_short_residuals_whole_and_sketches_long_ones():
    for tokens, kind in ((64, None), (8192, "count")):
        recorder = Recorder(sketch="auto")
        for step in range(2):
            x = torch.randn(1, tokens, 48)
            recorder.observe(step, timestep=1.0 - step, signals={}, block_input=x, block_output=x + 1 + step)
        sketch = recorder.finish(model_key="a/b", sigmas=[1.0, 0.5, 0.0]).header.sketch
        assert (sketch.kind if sketch else None) == kind


def test_a_model_with_our_own_cache_attached_is_refused(small_pipeline):
    from diffusers.hooks import HookRegistry, ModelHook

    from easyteacache.integrations.diffusers.hooks import NAME

    HookRegistry.check_if_exists_or_initialize(small_pipeline.transformer).register_hook(ModelHook(), NAME)
    with pytest.raises(AttachError, match="detach it first"):
        record_run(small_pipeline, JOB, SETTINGS)


def test_a_compiled_model_is_refused(small_pipeline):
    small_pipeline.transformer.blocks[0].compile()
    with pytest.raises(AttachError, match="record before compiling"):
        record_run(small_pipeline, JOB, SETTINGS)


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 4, 8), (2, 5, 8)])
def test_streams_of_other_shapes_become_tokens(shape):
    tokens = as_tokens(torch.zeros(shape))
    assert tokens.dim() == 3
    assert tokens.shape[-1] == 8
    assert tokens.numel() == torch.zeros(shape).numel()
