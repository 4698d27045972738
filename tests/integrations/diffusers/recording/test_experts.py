"""Pipelines with two experts give one trace each."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    FlowMatchHeunDiscreteScheduler,
    IPNDMScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.recording import (
    Job,
    RecordingSettings,
    record_pipeline,
    record_run,
)
from easyteacache.records.sampler import euler_map, signature_of
from easyteacache.records.trace_set import TraceSet
from easyteacache.reference.pipeline import MovingDigitsPipeline

JOB = Job("3", seed=1, width=16, height=16, frames=1, num_steps=6, shift=3.0, guidance_scale=2.0)
SETTINGS = RecordingSettings(model_key="test/two")


class TwoExperts(MovingDigitsPipeline):
    """Hands over to the second transformer below a boundary, as Wan2.2 does."""

    boundary = 700.0

    def _velocity(self, *args, **kwargs):
        first = self.transformer
        if self.current_timestep < self.boundary:
            self.transformer = self.low
        try:
            return super()._velocity(*args, **kwargs)
        finally:
            self.transformer = first


@pytest.fixture
def two_experts(small_pipeline):
    pipe = TwoExperts(small_pipeline.transformer, small_pipeline.scheduler)
    torch.manual_seed(1)
    pipe.low = pipe.transformer_2 = WanTransformer3DModel.from_config(pipe.transformer.config).eval()
    return pipe


def test_each_expert_has_its_own_trace_over_its_own_steps(two_experts):
    high, low = record_run(two_experts, JOB, SETTINGS)
    assert (high.header.model_key, high.header.part) == ("test/two/high-noise", "high-noise")
    assert (low.header.model_key, low.header.part) == ("test/two/low-noise", "low-noise")
    assert high.num_steps + low.num_steps == high.header.total_steps == low.header.total_steps == 6
    assert high.timesteps[-1] >= 700.0 > low.timesteps[0]
    assert high.sigmas[-1] == low.sigmas[0]
    assert low.sigmas[-1] == 0.0


def test_a_recorded_pair_of_experts_is_recognised(two_experts, tmp_path):
    record_pipeline(two_experts, [JOB], tmp_path, SETTINGS, progress=False)
    assert record_pipeline(two_experts, [JOB], tmp_path, SETTINGS, progress=False).skipped == 1
    assert len(TraceSet.load(tmp_path).part("low-noise")) == 1


def test_an_expert_that_never_ran_leaves_no_trace(two_experts):
    two_experts.boundary = 0.0
    (high,) = record_run(two_experts, JOB, SETTINGS)
    assert (high.num_steps, high.header.part) == (6, "high-noise")


def test_noise_levels_and_shift_come_from_the_scheduler(small_pipeline):
    small_pipeline.scheduler = UniPCMultistepScheduler(
        use_flow_sigmas=True, flow_shift=5.0, prediction_type="flow_prediction"
    )
    (trace,) = record_run(small_pipeline, dataclasses.replace(JOB, shift=None), SETTINGS)
    sampler = trace.header.sampler
    assert (sampler.name, sampler.prediction, trace.header.shift) == ("UniPCMultistepScheduler", "velocity", 5.0)
    assert sampler.signature == signature_of(trace.sampler_map)
    assert np.any(trace.sampler_map != euler_map(trace.sigmas)), "a solver of second order is not Euler's"
    assert trace.sigmas == pytest.approx(small_pipeline.scheduler.sigmas.double().numpy())


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (IPNDMScheduler(), "IPNDMScheduler keeps no noise level"),
        (FlowMatchHeunDiscreteScheduler(), "FlowMatchHeunDiscreteScheduler calls the model several times a step"),
        (
            DEISMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
            "DEISMultistepScheduler ends at the level of its last step",
        ),
    ],
)
def test_a_scheduler_that_cannot_be_recorded_is_refused(scheduler, reason, small_pipeline):
    small_pipeline.scheduler = scheduler
    with pytest.raises(AttachError, match=reason):
        record_run(small_pipeline, dataclasses.replace(JOB, shift=None), SETTINGS)


def test_a_shift_for_a_scheduler_without_one_is_refused(small_pipeline):
    small_pipeline.scheduler = DDIMScheduler()
    with pytest.raises(AttachError, match="no time shift"):
        record_run(small_pipeline, JOB, SETTINGS)
