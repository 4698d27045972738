"""Plans without a record, on whole pipelines."""

from __future__ import annotations

import warnings

import diffusers
import pytest
import torch
from test_for_pipeline import experts, named, record, registry  # noqa: F401
from tiny_pipelines import PIPELINES, flux, sample, wan

from easyteacache import TeaCache
from easyteacache.errors import EasyTeaCacheWarning, UnknownModelKey
from easyteacache.integrations.diffusers.models.token_layouts import values_per_token
from easyteacache.integrations.diffusers.scheduler_facts import facts_of
from easyteacache.policy.uncalibrated import even_plan, universal_plan
from easyteacache.reference import load_pipeline

STEPS = 10


def computed(cache: TeaCache, branch: str = "cond") -> tuple[int, ...]:
    return tuple(step.step for step in cache.statistics()[branch].steps if not step.reused)


def test_wan_with_its_own_sampler_computes_the_universal_plan() -> None:
    pipe = wan()
    pipe.scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
    )
    plain = sample(pipe, "wan", steps=STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EasyTeaCacheWarning)
        with TeaCache.uncalibrated(speedup=2.0).attached(pipe) as cache:
            found = sample(pipe, "wan", steps=STEPS)
            assert torch.equal(sample(pipe, "wan", steps=STEPS), found)
    levels = facts_of(pipe.scheduler).levels
    wanted = universal_plan(levels, cache.sequence_length, 5, values=64)
    assert computed(cache, "cond") == computed(cache, "uncond") == wanted
    assert "no evidence" in cache.summary()
    assert not torch.equal(found, plain)


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_reuses_about_half_of_its_steps(name: str) -> None:
    pipe = PIPELINES[name]()
    with TeaCache.uncalibrated(speedup=2.0).attached(pipe) as cache:
        assert torch.isfinite(sample(pipe, name, steps=STEPS)).all()
    assert {run.computed for run in cache.statistics().values()} == {STEPS // 2}


@pytest.mark.parametrize(
    ("scheduler", "why"),
    [
        (diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0), "do not fall"),
        (diffusers.FlowMatchLCMScheduler(shift=3.0), "FlowMatchLCMScheduler draws noise"),
    ],
)
def test_a_sampler_that_no_plan_can_be_made_for_is_computed_and_told_of_once(scheduler: object, why: str) -> None:
    pipe = wan()
    pipe.scheduler = scheduler
    torch.manual_seed(1)
    plain = sample(pipe, "wan", steps=STEPS)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", EasyTeaCacheWarning)
        with TeaCache.uncalibrated(speedup=2.0).attached(pipe) as cache:
            torch.manual_seed(1)
            assert torch.equal(sample(pipe, "wan", steps=STEPS), plain)
            sample(pipe, "wan", steps=STEPS)
    assert cache.current_speedup_rate() == 1.0
    [said] = [str(one.message) for one in told if issubclass(one.category, EasyTeaCacheWarning)]
    assert why in said
    assert said.endswith("Every step is computed.")


def test_a_bare_transformer_is_computed_and_told_what_to_pass() -> None:
    pipe = wan()
    plain = sample(pipe, "wan", steps=STEPS)
    cache = TeaCache.uncalibrated(speedup=2.0)
    with warnings.catch_warnings(record=True) as told, cache.attached(pipe.transformer):
        warnings.simplefilter("always", EasyTeaCacheWarning)
        assert torch.equal(sample(pipe, "wan", steps=STEPS), plain)
        assert torch.equal(sample(pipe, "wan", steps=STEPS), plain)
    said = [str(one.message) for one in told if issubclass(one.category, EasyTeaCacheWarning)]
    assert not [text for text in said if "threshold=" in text]
    assert "pass shift=, or attach a pipeline" in said[-1]


def test_even_steps_are_evenly_spaced() -> None:
    pipe = flux()
    with TeaCache.even(speedup=2.5).attached(pipe) as cache:
        sample(pipe, "flux", steps=STEPS)
    assert {computed(cache, branch) for branch in cache.statistics()} == {even_plan(STEPS, 4)}


def test_a_plan_without_a_record_says_nothing_of_a_record(caplog: pytest.LogCaptureFixture) -> None:
    pipe = wan()
    with TeaCache.even(speedup=2.0).attached(pipe):
        sample(pipe, "wan", steps=STEPS)
    assert caplog.messages == []


def test_at_a_matched_shift_the_universal_plan_is_far_better_than_even_steps() -> None:
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    wishes = {"num_frames": 1, "num_inference_steps": 40, "shift": 0.25, "seeds": [3, 4], "output_type": "latent"}
    plain = pipe([3, 4], **wishes).frames
    errors = {}
    for cache in (TeaCache.uncalibrated(speedup=2.5), TeaCache.even(speedup=2.5)):
        with cache.attached(pipe):
            errors[cache.policy.model_key] = float((pipe([3, 4], **wishes).frames - plain).norm() / plain.norm())
        assert cache.current_speedup_rate() == 2.5
    assert errors["uncalibrated"] < 0.4 * errors["even"]


def test_a_checkpoint_without_a_record_gets_the_universal_plan_when_asked(registry) -> None:  # noqa: F811
    layers = registry(record("test/one", [], schedule=[0, 4]))
    pipe = named(wan(), "Owner/Unheard-Of")
    with pytest.raises(UnknownModelKey):
        TeaCache.for_pipeline(pipe, speedup=2.0, registry=layers)
    cache = TeaCache.for_pipeline(pipe, speedup=2.0, registry=layers, uncalibrated=True)
    with cache.attached(pipe):
        sample(pipe, "wan", steps=STEPS)
    assert cache.policy.model_key == "uncalibrated"
    assert cache.current_speedup_rate() == 2.0
    assert any("No record holds" in note and "Owner/Unheard-Of" in note for note in cache.policy.notes)


def test_a_plan_without_a_record_needs_a_speedup(registry) -> None:  # noqa: F811
    layers = registry(record("test/one", [], schedule=[0, 4]))
    with pytest.raises(ValueError, match="speedup"):
        TeaCache.for_pipeline(named(wan(), "Owner/Unheard-Of"), registry=layers, uncalibrated=True)


def test_a_record_is_used_where_there_is_one(registry) -> None:  # noqa: F811
    layers = registry(record("test/one", [{"kind": "hub_repository", "value": "Owner/Model"}], schedule=[0, 2, 4, 6]))
    pipe = named(wan(), "Owner/Model")
    cache = TeaCache.for_pipeline(pipe, speedup=2.0, registry=layers, uncalibrated=True)
    with cache.attached(pipe):
        sample(pipe, "wan", steps=8)
        assert cache.policy.model_key == "test/one"


def test_each_of_two_experts_follows_the_plan_of_the_whole_run(experts, registry) -> None:  # noqa: F811
    layers = registry(record("test/one", [], schedule=[0, 4]))
    caches = TeaCache.for_pipeline(named(experts, "Owner/Unheard-Of"), speedup=2.0, registry=layers, uncalibrated=True)
    with caches.attached(experts):
        sample(experts, "wan", steps=STEPS)
        runs = caches.statistics()
    plan = set(caches.policies["transformer"].schedule)
    second = [step.step for step in runs["transformer_2/cond"].steps]
    reused = set(runs["transformer/cond"].hits) | set(runs["transformer_2/cond"].hits)
    assert reused
    assert reused == set(range(STEPS)) - plan - {second[0]}


def test_a_token_stands_for_channels_times_patch() -> None:
    assert values_per_token(wan().transformer) == 64
    assert values_per_token(flux().transformer) == 16
    assert values_per_token(load_pipeline().transformer) == 4
    assert values_per_token(object()) is None
