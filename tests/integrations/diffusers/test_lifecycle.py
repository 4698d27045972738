"""Attach, run, break off, run again, detach: what has to hold in between."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from diffusers.hooks import FirstBlockCacheConfig
from tiny_pipelines import flux, sample, wan
from tiny_transformers import arguments as forward_arguments
from tiny_transformers import build

from easyteacache import TeaCache
from easyteacache.errors import AttachError, SignalMismatch

pytestmark = pytest.mark.floors

STEPS = 6


@pytest.fixture(scope="module")
def pipe():
    return wan()


@pytest.fixture(scope="module")
def plain(pipe) -> torch.Tensor:
    return sample(pipe, "wan", steps=STEPS)


@pytest.fixture
def cache(make_cache) -> TeaCache:
    return make_cache(schedule=(0, 2, 3, 5))


def forwards(module: Any) -> list[object]:
    """Every instance attribute that could change what a module computes."""
    return [
        (
            name,
            dict(child.__dict__.get("_forward_hooks", {})),
            dict(child._forward_pre_hooks),
            "forward" in child.__dict__,
        )
        for name, child in module.named_modules()
    ]


def test_attach_after_a_warm_run_and_attach_again(pipe, plain, cache):
    cache.attach(pipe)
    once = sample(pipe, "wan", steps=STEPS)
    assert not torch.equal(once, plain)
    cache.detach()
    assert torch.equal(sample(pipe, "wan", steps=STEPS), plain)
    cache.attach(pipe)
    assert torch.equal(sample(pipe, "wan", steps=STEPS), once)
    cache.detach()


def test_detach_leaves_no_hook_behind(cache):
    pipe = wan()
    before = forwards(pipe.transformer)
    with cache.attached(pipe):
        assert forwards(pipe.transformer) != before
    hooks = {
        name: child._diffusers_hook.hooks
        for name, child in pipe.transformer.named_modules()
        if hasattr(child, "_diffusers_hook")
    }
    assert not any(hooks.values())
    assert [entry[1:3] for entry in forwards(pipe.transformer)] == [entry[1:3] for entry in before]


def test_detach_after_an_error_inside_the_with_block(pipe, plain, cache):
    with pytest.raises(KeyError), cache.attached(pipe):
        raise KeyError
    assert torch.equal(sample(pipe, "wan", steps=STEPS), plain)


class Cancelled(Exception):
    pass


def cancel(pipe, step, timestep, kwargs):
    if step == 3:
        raise Cancelled
    return kwargs


@pytest.mark.parametrize("interrupt", ["callback", "forward"])
def test_a_run_that_broke_off_leaves_nothing_to_the_next(pipe, cache, interrupt):
    with cache.attached(pipe):
        expected = sample(pipe, "wan", steps=STEPS)
        if interrupt == "callback":
            with pytest.raises(Cancelled):
                sample(pipe, "wan", steps=STEPS, seed=5, callback_on_step_end=cancel)
        else:
            handle = pipe.transformer.blocks[1].register_forward_pre_hook(fail_on_call(3))
            with pytest.raises(Cancelled):
                sample(pipe, "wan", steps=STEPS, seed=5)
            handle.remove()
        assert torch.equal(sample(pipe, "wan", steps=STEPS), expected)
        assert cache.statistics()["cond"].hits == (1, 4)


def fail_on_call(count: int):
    calls = []

    def hook(module, args):
        calls.append(None)
        if len(calls) == count:
            raise Cancelled

    return hook


def test_nothing_is_held_after_a_pipeline_call(pipe, cache):
    with cache.attached(pipe):
        sample(pipe, "wan", steps=STEPS)
        assert cache.nbytes == 0
        assert cache.statistics()["cond"].pattern == "█·██·█"


def test_other_resolution_steps_and_batch_between_runs(pipe, cache):
    changes: list[dict[str, Any]] = [
        {"height": 48},
        {"num_frames": 9},
        {"num_videos_per_prompt": 2},
        {"guidance_scale": 1.0},
        {},
    ]
    alone = []
    for change in changes:
        with cache.attached(pipe):
            alone.append(sample(pipe, "wan", steps=STEPS, **change))
    with cache.attached(pipe):
        for change, expected in zip(changes, alone, strict=True):
            assert torch.equal(sample(pipe, "wan", steps=STEPS, **change), expected)


def test_step_count_sequence_length_and_noise_levels_come_from_the_pipeline(pipe, make_cache):
    from easyteacache.policy.policy import Policy

    asked = []

    class Source:
        def policy(self, request, run):
            asked.append((run.sequence_length, run.num_steps))
            return fixed

    cache = make_cache(schedule=(0,), coordinate="sigma", forecaster="linear")
    fixed: Policy = cache.policy
    with cache.attached(pipe):
        cache.session._source = Source()
        sample(pipe, "wan", steps=STEPS)
        anchors = [at for at, _ in cache.session.known("cond")._anchors]
    # 5 frames of 32×32 pixels: 2×4×4 latent, patches of 1×2×2.
    assert asked[-1] == (8, STEPS)
    assert anchors == []
    assert {steps for _, steps in asked} == {STEPS}


def test_two_pipelines_of_one_class_keep_their_own_state(make_cache):
    first, second = flux(), flux()
    one, two = make_cache(schedule=(0, 3)), make_cache(schedule=(0, 1, 2))
    with one.attached(first), two.attached(second):
        sample(first, "flux", steps=4)
        sample(second, "flux", steps=4)
        assert one.statistics()["cond"].hits == (1, 2)
        assert two.statistics()["cond"].hits == (3,)


def test_a_pipeline_made_with_from_pipe_shares_the_cache(make_cache):
    pipe = flux()
    other = diffusers.FluxPipeline.from_pipe(pipe)
    other.set_progress_bar_config(disable=True)
    with make_cache(schedule=(0, 3)).attached(pipe) as cache:
        expected = sample(pipe, "flux", steps=5)
        assert torch.equal(sample(other, "flux", steps=5), expected)
        assert cache.statistics()["cond"].hits == (1, 2, 4)
        with pytest.raises(AttachError, match="detach that one first"):
            make_cache(schedule=(0,)).attach(other)


def test_a_pipeline_with_a_scheduler_of_its_own_on_a_shared_transformer(make_cache):
    pipe = flux()
    other = diffusers.FluxPipeline.from_pipe(pipe, scheduler=pipe.scheduler.from_config(pipe.scheduler.config))
    other.set_progress_bar_config(disable=True)
    with make_cache(schedule=(0, 3)).attached(pipe) as cache:
        expected = sample(pipe, "flux", steps=5)
        assert torch.equal(sample(other, "flux", steps=5), expected)
        assert cache.statistics()["cond"].hits == (1, 2, 4)


def test_one_cache_is_attached_once(pipe, cache):
    with cache.attached(pipe), pytest.raises(AttachError, match="attached already"):
        cache.attach(wan())


def test_it_refuses_beside_another_active_cache(pipe, cache):
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    try:
        with pytest.raises(AttachError, match="FirstBlockCacheConfig enabled"):
            cache.attach(pipe)
    finally:
        pipe.transformer.disable_cache()
    with cache.attached(pipe):
        sample(pipe, "wan", steps=STEPS)


def test_a_class_without_adapter_is_an_error_that_shows_how_to_add_one(cache):
    model = torch.nn.TransformerEncoderLayer(8, 2)
    with pytest.raises(AttachError, match=r"register_adapter\(Adapter\('TransformerEncoderLayer'"):
        cache.attach(model)


def test_what_is_no_model_at_all_is_refused(cache):
    with pytest.raises(AttachError, match="expected a diffusers pipeline or a transformer, found int"):
        cache.attach(3)


def test_an_unknown_signal_is_refused(pipe, make_cache):
    with pytest.raises(SignalMismatch, match="can be read but not applied"):
        make_cache(signal="unknown", threshold=0.1).attach(pipe)


def test_a_signal_the_class_lacks_is_refused(make_cache):
    with pytest.raises(SignalMismatch, match="FluxTransformer2DModel does not have that signal"):
        make_cache(signal="timestep_projection", threshold=0.1).attach(flux())


def test_solve_mode_is_refused(tmp_path, pipe):
    cache = TeaCache(-1, model_keys=["a"], cache_path=tmp_path / "cache.json", speedup_mode=False)
    with pytest.raises(AttachError, match="easyteacache record"):
        cache.attach(pipe)


@torch.no_grad()
def test_the_same_conditioning_twice_at_one_step_is_refused(make_cache):
    model = build("WanTransformer3DModel")
    with make_cache(schedule=(0,)).attached(model):
        for step in range(2):
            model(**forward_arguments("WanTransformer3DModel", step, "cond"))
        with pytest.raises(AttachError, match="cache_context"):
            model(**forward_arguments("WanTransformer3DModel", 1, "cond"))


@torch.no_grad()
def test_a_conditioning_that_appears_later_is_computed(make_cache):
    """Guidance that begins in the middle of a run, without contexts, and in the other order."""
    model = build("WanTransformer3DModel")
    with make_cache(schedule=(0,)).attached(model) as cache:
        for step, branches in enumerate((("cond",), ("cond",), ("uncond", "cond"), ("uncond", "cond"))):
            for branch in branches:
                model(**forward_arguments("WanTransformer3DModel", step, branch))
        patterns = [statistics.pattern for statistics in cache.statistics().values()]
    assert patterns == ["█···", "█·"]


@torch.no_grad()
def test_a_loop_that_writes_timesteps_and_latents_in_place(make_cache):
    model = build("WanTransformer3DModel")

    def loop(in_place: bool) -> torch.Tensor:
        held, outputs = forward_arguments("WanTransformer3DModel", 0, "cond"), []
        for step in range(4):
            fresh = forward_arguments("WanTransformer3DModel", step, "cond")
            for name in ("timestep", "hidden_states"):
                held[name] = held[name].copy_(fresh[name]) if in_place else fresh[name]
            outputs.append(model(**held, return_dict=False)[0])
        return torch.stack(outputs)

    with make_cache(signal="timestep_projection", threshold=0.5).attached(model) as cache:
        expected = loop(in_place=False)
        pattern = cache.statistics()["default"].pattern
    with make_cache(signal="timestep_projection", threshold=0.5).attached(model) as cache:
        assert torch.equal(loop(in_place=True), expected)
        assert cache.statistics()["default"].pattern == pattern
    assert "·" in pattern


@torch.no_grad()
def test_a_loop_of_ones_own_with_another_batch_begins_a_new_run(make_cache):
    """Without scheduler and contexts, only the timestep can tell; one of another batch size has to be compared all the same."""
    model = build("WanTransformer3DModel")

    def run(batch: int) -> None:
        for step in range(4):
            given = forward_arguments("WanTransformer3DModel", step, "cond")
            model(**{name: torch.cat([value] * batch) if batch > 1 else value for name, value in given.items()})

    with make_cache(schedule=(0, 1)).attached(model) as cache:
        for batch in (1, 3, 2):
            run(batch)
            assert {name: one.pattern for name, one in cache.statistics().items()} == {"default": "██··"}


@torch.no_grad()
def test_branches_of_different_batch_size_share_a_step(make_cache):
    model = build("WanTransformer3DModel")
    with make_cache(schedule=(0, 1)).attached(model) as cache:
        for step in range(4):
            model(**forward_arguments("WanTransformer3DModel", step, "cond"))
            given = forward_arguments("WanTransformer3DModel", step, "uncond")
            model(**{name: torch.cat([value, value]) for name, value in given.items()})
        assert [one.pattern for one in cache.statistics().values()] == ["██··", "██··"]


def test_residuals_may_rest_on_another_device(pipe, cache, make_cache):
    with cache.attached(pipe):
        expected = sample(pipe, "wan", steps=STEPS)
    with make_cache(schedule=(0, 2, 3, 5)).attached(pipe, residual_device="meta") as elsewhere:
        with pytest.raises((NotImplementedError, RuntimeError)):
            sample(pipe, "wan", steps=STEPS)
        devices = {residual.device.type for _, residual in elsewhere.session.known("cond")._anchors}
    assert devices == {"meta"}
    with make_cache(schedule=(0, 2, 3, 5)).attached(pipe, residual_device="cpu"):
        assert torch.equal(sample(pipe, "wan", steps=STEPS), expected)
