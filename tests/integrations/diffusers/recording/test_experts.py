"""Pipelines with two experts give one trace each."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler, WanTransformer3DModel

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.recording import (
    Job,
    RecordingSettings,
    record_pipeline,
    record_run,
    scheduler_shift,
)
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


def test_noise_levels_come_from_the_scheduler_or_its_schedule():
    flow = UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=5.0, prediction_type="flow_prediction")
    flow.set_timesteps(8)
    assert scheduler_shift.shift_of(flow) == 5.0
    assert scheduler_shift.prediction_of(flow) == "velocity"
    assert len(scheduler_shift.noise_levels(flow)) == 9
    ddim = DDIMScheduler()
    ddim.set_timesteps(8)
    levels = scheduler_shift.noise_levels(ddim)
    assert levels[-1] == 0.0
    assert np.all(np.diff(levels) < 0)
    assert scheduler_shift.shift_of(ddim) is None
    assert scheduler_shift.prediction_of(ddim) == "epsilon"
    assert scheduler_shift.prediction_of(EulerDiscreteScheduler(prediction_type="v_prediction")) == "unknown"


def test_a_scheduler_without_noise_levels_or_shift_is_refused(small_pipeline):
    class Bare:
        timesteps = (3, 2, 1)
        config: ClassVar = {}

    with pytest.raises(AttachError, match="no noise level"):
        scheduler_shift.noise_levels(Bare())
    small_pipeline.scheduler = DDIMScheduler()
    with pytest.raises(AttachError, match="no time shift"):
        record_run(small_pipeline, JOB, SETTINGS)
