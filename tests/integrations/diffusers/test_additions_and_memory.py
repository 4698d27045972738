"""What models add between blocks is counted once; offloading, number types and forecasts of the output."""

from __future__ import annotations

import dataclasses
from typing import Any

import accelerate
import pytest
import torch
from diffusers.hooks import apply_group_offloading
from tiny_case import noise
from tiny_pipelines import flux, sample, wan
from tiny_transformers import CASES, arguments, build, flat, run

from easyteacache import TeaCache
from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers import Adapter, Blocks, adapters, register_adapter
from easyteacache.integrations.diffusers.models.registry import _REGISTERED
from easyteacache.policy.request import Request
from easyteacache.runtime.session import Session

ADDITIONS: dict[str, dict[str, Any]] = {
    "FluxTransformer2DModel": {
        "controlnet_block_samples": [noise(1, 16, 32, seed=7)] * 2,
        "controlnet_single_block_samples": [noise(1, 16, 32, seed=8)] * 2,
    },
    # Its additions after single blocks are made in place, on what the block returned.
    "BriaTransformer2DModel": {"controlnet_block_samples": [noise(1, 16, 32, seed=7)] * 2},
    "QwenImageTransformer2DModel": {"controlnet_block_samples": [noise(1, 16, 32, seed=7)] * 3},
    "SD3Transformer2DModel": {"block_controlnet_hidden_states": [noise(1, 16, 16, seed=7)] * 2},
    "SanaTransformer2DModel": {"controlnet_block_samples": [noise(1, 16, 16, seed=7)] * 2},
    "WanVACETransformer3DModel": {},
    "WanAnimateTransformer3DModel": {},
    "ZImageTransformer2DModel": {"controlnet_block_samples": {0: noise(1, 1, 16, seed=7), 2: noise(1, 1, 16, seed=8)}},
}


@pytest.mark.parametrize("name", ADDITIONS)
@torch.no_grad()
def test_a_reused_step_with_the_same_input_gives_the_computed_output(name, make_cache):
    """With nothing changed the last residual is exact, so anything counted twice or left out would show."""
    model = build(name)
    forward = {**arguments(name, 0, "cond"), **ADDITIONS[name]}
    plain = flat(model(**forward))
    without = flat(model(**arguments(name, 0, "cond")))
    assert torch.equal(plain, without) == (not ADDITIONS[name])
    with make_cache(schedule=(0,)).attached(model) as cache:
        assert torch.equal(flat(model(**forward)), plain)
        # The same noise level again is another step only if the clock is told so.
        clock = model._diffusers_hook.hooks["easyteacache"]._drivers.here.clock
        clock._value = None if clock._value is None else clock._value + 1
        torch.testing.assert_close(flat(model(**forward)), plain, rtol=1e-4, atol=1e-5)
        assert next(iter(cache.statistics().values())).pattern == "█·"


def test_hints_after_the_last_block_are_refused(make_cache):
    import diffusers

    model = diffusers.WanVACETransformer3DModel(**{**CASES["WanVACETransformer3DModel"].config, "vace_layers": [0, 2]})
    with pytest.raises(AttachError, match="2 is in vace_layers"):
        make_cache(schedule=(0,)).attach(model)


# Memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("forecaster", "terms"), [("hold", 1), ("linear", 2), ("quadratic", 3)])
def test_a_branch_holds_one_residual_per_forecaster_term(forecaster, terms, make_cache):
    model = build("WanTransformer3DModel")
    with make_cache(schedule=(0, 1, 2, 4), forecaster=forecaster).attached(model) as cache:
        run(model, "WanTransformer3DModel", branches=("cond", "uncond"), steps=4)
        # 16 tokens of 24 channels in float32, two branches.
        assert cache.nbytes == 2 * terms * 16 * 24 * 4


@pytest.mark.parametrize("signal", ["timestep_projection", "modulated_input", "first_block_residual"])
def test_layerwise_casting(signal, make_cache):
    model = build("WanTransformer3DModel")
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    plain = run(model, "WanTransformer3DModel")
    with make_cache(signal=signal, threshold=0.0).attached(model):
        assert torch.equal(run(model, "WanTransformer3DModel"), plain)
    with make_cache(signal=signal, threshold=1e9).attached(model) as cache:
        run(model, "WanTransformer3DModel")
        assert cache.statistics()["cond"].pattern == "█····"
    assert torch.equal(run(model, "WanTransformer3DModel"), plain)


@pytest.mark.parametrize("first", ["attach", "offload"])
def test_group_offloading(first, make_cache):
    expected = build("WanTransformer3DModel")
    with make_cache(schedule=(0, 2)).attached(expected):
        reference = run(expected, "WanTransformer3DModel")
    model = build("WanTransformer3DModel")
    cache = make_cache(schedule=(0, 2))
    if first == "attach":
        cache.attach(model)
    apply_group_offloading(model, torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1)
    if first == "offload":
        cache.attach(model)
    assert torch.equal(run(model, "WanTransformer3DModel"), reference)
    cache.detach()
    assert torch.equal(run(model, "WanTransformer3DModel"), run(expected, "WanTransformer3DModel"))


@pytest.mark.parametrize("first", ["attach", "offload"])
def test_model_offloading_that_replaces_the_transformers_forward_after_every_call(first, make_cache):
    pipe = wan()
    cache = make_cache(schedule=(0, 2, 4))
    with cache.attached(pipe):
        reference = sample(pipe, "wan")
    if first == "attach":
        cache.attach(pipe)
    accelerate.hooks.add_hook_to_module(pipe.transformer, accelerate.hooks.ModelHook())
    if first == "offload":
        cache.attach(pipe)
    for _ in range(2):
        assert torch.equal(sample(pipe, "wan"), reference)
        assert cache.statistics()["cond"].hits == (1, 3, 5)
        # What a pipeline with model offloading does at the end of its call.
        accelerate.hooks.remove_hook_from_module(pipe.transformer, recurse=True)
        accelerate.hooks.add_hook_to_module(pipe.transformer, accelerate.hooks.ModelHook())
    cache.detach()
    plain = wan()
    assert torch.equal(sample(pipe, "wan"), sample(plain, "wan"))


def test_bfloat16_stays_bfloat16(make_cache):
    pipe = flux()
    pipe.to(torch.bfloat16)
    with make_cache(signal="modulated_input", threshold=1e9).attached(pipe) as cache:
        assert sample(pipe, "flux").isfinite().all()
        assert "·" in cache.statistics()["cond"].pattern


# Forecasts of the output ---------------------------------------------------------------------------------------------


def test_an_operating_point_may_forecast_the_output_instead_of_the_residual(make_cache):
    pipe = wan()
    outputs: list[torch.Tensor] = []
    with make_cache(schedule=(0, 1, 3), applied_to="output", forecaster="linear").attached(pipe):
        pipe.transformer.register_forward_hook(lambda module, args, output: outputs.append(output[0].clone()))
        sample(pipe, "wan", steps=4, guidance_scale=1.0)
    torch.testing.assert_close(outputs[2], 2 * outputs[1] - outputs[0])
    assert not torch.equal(outputs[3], 2 * outputs[2] - outputs[1])


def test_what_is_forecast_may_follow_from_a_length_that_only_the_first_forward_tells(make_cache):
    # As in a record whose bucket for this length forecasts the output and whose first one forecasts the residual.
    known = make_cache(schedule=(0, 1, 3), applied_to="output", forecaster="linear").policy

    class ByLength:
        signals = (known.signal,)

        def policy(self, request, run):
            return dataclasses.replace(known, applied_to="residual" if run.sequence_length is None else "output")

    pipe = wan()
    outputs: list[torch.Tensor] = []
    with TeaCache(-1, _session=Session(ByLength(), Request())).attached(pipe):
        pipe.transformer.register_forward_hook(lambda module, args, output: outputs.append(output[0].clone()))
        sample(pipe, "wan", steps=4, guidance_scale=1.0)
    torch.testing.assert_close(outputs[2], 2 * outputs[1] - outputs[0])


# Adapters of one's own -----------------------------------------------------------------------------------------------


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 8)

    def forward(self, tokens, when):
        return tokens + self.layer(tokens) * when


class Mine(torch.nn.Module):
    """A transformer that diffusers does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = torch.nn.ModuleList(Block() for _ in range(3))

    def forward(self, x, sigma, words):
        for block in self.stages:
            x = block(x, sigma)
        return x + words.mean()


@pytest.fixture
def mine():
    before = dict(_REGISTERED)
    register_adapter(
        Adapter(
            "Mine",
            (Blocks("stages", ("tokens",)),),
            streams=("tokens",),
            latent="x",
            timestep="sigma",
            conditioning=("words",),
        )
    )
    yield Mine().requires_grad_(False)
    _REGISTERED.clear()
    _REGISTERED.update(before)


@torch.no_grad()
def test_a_class_of_ones_own_takes_one_registration(mine, make_cache):
    assert "Mine" in {adapter.transformer for adapter in adapters()}
    x, words = noise(1, 4, 8, seed=1), noise(1, 2, 8, seed=2)
    with make_cache(schedule=(0,)).attached(mine) as cache:
        first = mine(x, torch.tensor(1.0), words)
        second = mine(x, torch.tensor(0.5), words)
    torch.testing.assert_close(second, first)
    assert cache.statistics()["default"].pattern == "█·"
    assert not torch.allclose(mine(x, torch.tensor(0.5), words), first)


def test_a_subclass_that_replaces_forward_is_not_covered_by_its_base(mine, make_cache):
    class Same(Mine):
        pass

    class Other(Mine):
        def forward(self, x, sigma, words):
            return x

    make_cache(schedule=(0,)).attach(Same()).detach()
    with pytest.raises(AttachError, match="no adapter for Other"):
        make_cache(schedule=(0,)).attach(Other())


def test_an_adapter_without_its_stream_is_refused():
    with pytest.raises(AttachError, match="lacks the stream 'hidden_states'"):
        register_adapter(Adapter("Wrong", (Blocks("blocks", ("x",)),)))
