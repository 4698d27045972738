"""Adapters are read from layers as peft leaves them: names that act, and per name scaling = weight × alpha / rank."""

from __future__ import annotations

import pytest
from torch import nn

from easyteacache.integrations.diffusers.active_adapters import adapters_of
from easyteacache.integrations.diffusers.recording import RecordingSettings
from easyteacache.integrations.diffusers.recording.jobs import Job
from easyteacache.integrations.diffusers.recording.pipeline_runs import record_run
from easyteacache.records.model_identity import ActiveAdapter


class LoraLayer(nn.Linear):
    """A layer of peft as far as it is read."""

    def __init__(self, weights, *, active=None, alpha=8.0, rank=2, stabilised=False, disabled=False):
        super().__init__(4, 4)
        self.r = dict.fromkeys(weights, rank)
        self.lora_alpha = dict.fromkeys(weights, alpha)
        self.use_rslora = dict.fromkeys(weights, stabilised)
        divisor = rank**0.5 if stabilised else rank
        self.scaling = {name: weight * alpha / divisor for name, weight in weights.items()}
        self.active_adapters = list(weights) if active is None else active
        self.disable_adapters = disabled


def test_a_model_without_adapters_has_none():
    assert adapters_of(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))) == ()


def test_names_and_weights_of_active_adapters_are_read():
    model = nn.Sequential(LoraLayer({"style": 0.8, "detail": 1.0}), LoraLayer({"style": 0.8}, stabilised=True))
    assert adapters_of(model) == (ActiveAdapter(name="detail", scale=1.0), ActiveAdapter(name="style", scale=0.8))


def test_adapters_that_are_loaded_but_do_not_act_are_left_out():
    assert adapters_of(LoraLayer({"style": 0.8, "detail": 1.0}, active=["detail", "elsewhere"])) == (
        ActiveAdapter(name="detail", scale=1.0),
    )
    assert adapters_of(LoraLayer({"style": 0.8}, disabled=True)) == ()


def test_a_weight_that_differs_between_layers_or_is_not_said_is_left_open():
    apart = nn.Sequential(LoraLayer({"style": 0.8}), LoraLayer({"style": 0.4}))
    assert adapters_of(apart) == (ActiveAdapter(name="style"),)
    layer = LoraLayer({"style": 0.8})
    del layer.r
    assert adapters_of(layer) == (ActiveAdapter(name="style"),)
    assert adapters_of(LoraLayer({"style": 0.8}, alpha=0.0)) == (ActiveAdapter(name="style"),)


@pytest.mark.parametrize("adapters", [{}, {"example/style": 0.5}])
def test_a_recording_says_which_model_ran_and_with_which_adapters(small_pipeline, adapters):
    transformer = small_pipeline.transformer
    if adapters:
        transformer.add_module("adapted", LoraLayer(adapters))
    try:
        (trace,) = record_run(small_pipeline, Job(prompt="3", seed=1, width=16, height=16, num_steps=4, guidance_scale=3.0),
                              RecordingSettings(model_key="small/model", checkpoint="example/checkpoint"))  # fmt: skip
    finally:
        if adapters:
            del transformer.adapted
    model = trace.header.model
    assert model.class_name == type(transformer).__name__
    assert len(model.configuration_sha256) == 64
    assert (model.checkpoint, model.dtype) == ("example/checkpoint", "float32")
    assert model.adapters == tuple(ActiveAdapter(name=name, scale=scale) for name, scale in adapters.items())
    assert {"feature:cond", "feature:uncond", "feature:cond*feature:uncond", "cond*uncond"} <= set(trace.grams)
    assert trace.sampler_map is not None
