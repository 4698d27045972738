"""The record for a pipeline by exact names; two experts with a calibration and a state each."""

from __future__ import annotations

import warnings
from typing import Any

import diffusers
import pytest
import torch
from conftest import policy
from tiny_pipelines import flux, sample, wan, wan_experts

from easyteacache import TeaCache
from easyteacache.errors import AmbiguousModelKey, AttachError, EasyTeaCacheWarning, UnknownModelKey
from easyteacache.integrations.diffusers import ExpertCaches, configuration_name
from easyteacache.policy.request import Request
from easyteacache.records.calibration import Calibration, save
from easyteacache.registry import index
from easyteacache.registry.registry import Layer, Registry

STEPS = 8


def record(key: str, aliases: list[dict[str, Any]], *, schedule: list[int]) -> Calibration:
    return Calibration.from_mapping(
        {
            "schema_version": 2,
            "model_key": key,
            "revision": 1,
            "status": "draft",
            "title": key,
            "modality": "video",
            "method": "teacache",
            "signal": "timestep_projection",
            "aliases": aliases,
            "buckets": [
                {
                    "num_steps": STEPS,
                    "min_skip_step": 1,
                    "max_skip_step": -1,
                    "coefficients": [1.0, 0.0],
                    "operating_points": [{"schedule": schedule, "speedup": 2.0, "evidence": "replayed"}],
                }
            ],
            "provenance": {},
        }
    )


@pytest.fixture
def registry(tmp_path):
    """``registry(record, …)``: a registry of these records."""

    def make(*records: Calibration) -> Registry:
        for one in records:
            path = tmp_path / f"{one.model_key}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(one, path)
        index.write(tmp_path, index.build(tmp_path))
        return Registry.from_folder(tmp_path)

    return make


def named(pipe: Any, path: str) -> Any:
    """The pipeline as if it had been loaded from ``path``."""
    pipe.register_to_config(_name_or_path=path)
    return pipe


def alias(value: str, kind: str = "hub_repository", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "value": value, **more}


@pytest.mark.parametrize(
    "path", ["Owner/Model-Diffusers", "/home/me/hub/models--Owner--Model-Diffusers/snapshots/0abc"]
)
def test_the_repository_id_leads_to_the_record(path, registry):
    layers = registry(record("test/one", [alias("Owner/Model-Diffusers")], schedule=[0, 2, 4, 6]))
    pipe = named(wan(), path)
    cache = TeaCache.for_pipeline(pipe, speedup=2.0, registry=layers)
    with cache.attached(pipe):
        sample(pipe, "wan", steps=STEPS)
    assert cache.policy.model_key == "test/one"
    assert cache.statistics()["cond"].pattern == "█·█·█·█·"


def test_the_configuration_of_the_transformer_leads_to_the_record(registry):
    pipe = wan()
    name = configuration_name(pipe.transformer)
    layers = registry(record("test/one", [alias(name, "transformer_class")], schedule=[0, 4]))
    assert TeaCache.for_pipeline(pipe, registry=layers).policy.model_key == "test/one"
    assert configuration_name(flux().transformer) != name


@pytest.mark.parametrize("kind", ["transformer_class", "hub_repository"])
def test_a_pulled_record_does_not_come_first_by_a_name_that_no_other_layer_has(kind, tmp_path):
    """The configuration is looked up before the repository: a record from a hub could list it and stand in front."""
    pipe = named(wan(), "Owner/Model")
    claimed = configuration_name(pipe.transformer) if kind == "transformer_class" else "Owner/Model"
    ours = record("test/ours", [alias("Owner/Model")], schedule=[0, 2, 4, 6])
    theirs = record("evil/model", [alias(claimed, kind)], schedule=[0, 2, 4, 6])
    layers = []
    for name, one in (("pulled", theirs), ("bundled", ours)):
        save(one, tmp_path / name / f"{one.model_key}.json")
        layers.append(Layer(name, tmp_path / name, foreign=name == "pulled"))
    found = TeaCache.for_pipeline(pipe, registry=Registry(layers), speedup=2.0)
    assert found.policy.model_key == "test/ours"


@pytest.mark.parametrize("target", [None, "Owner/Model", diffusers.WanPipeline, torch.nn.Linear(1, 1)])
def test_what_is_no_pipeline_is_told_so_and_not_taken_for_a_unet(target):
    with pytest.raises(AttachError, match="expected a diffusers pipeline, found"):
        TeaCache.for_pipeline(target, speedup=2.0)


def test_a_pipeline_that_was_loaded_without_its_transformer_is_told_so():
    pipe = wan()
    pipe.transformer = None
    with pytest.raises(AttachError, match="the transformer of this WanPipeline is None"):
        TeaCache.for_pipeline(pipe, speedup=2.0)


def test_an_unknown_checkpoint_is_an_error_with_candidates(registry):
    layers = registry(record("test/one", [alias("Owner/Model-1.3B")], schedule=[0, 4]))
    with pytest.raises(UnknownModelKey) as error:
        TeaCache.for_pipeline(named(wan(), "Owner/Model-14B"), registry=layers)
    assert "Owner/Model-1.3B" in error.value.suggestions


def test_a_name_of_two_records_is_an_error(registry):
    layers = registry(*(record(key, [alias("Owner/Model")], schedule=[0, 4]) for key in ("test/one", "test/two")))
    with pytest.raises(AmbiguousModelKey):
        TeaCache.for_pipeline(named(wan(), "Owner/Model"), registry=layers)


def test_borrowed_numbers_are_refused_unless_asked_for(registry):
    layers = registry(record("test/one", [alias("Owner/Other", borrowed=True)], schedule=[0, 4]))
    pipe = named(wan(), "Owner/Other")
    with pytest.raises(AttachError, match="fitted to another model"):
        TeaCache.for_pipeline(pipe, registry=layers)
    assert TeaCache.for_pipeline(pipe, registry=layers, allow_borrowed=True).policy.model_key == "test/one"


def test_the_bundled_registry_knows_the_checkpoint_that_everybody_uses():
    pipe = named(wan(), "Wan-AI/Wan2.1-T2V-14B-Diffusers")
    cache = TeaCache.for_pipeline(pipe, threshold=0.2)
    assert cache.policy.model_key == "wan2.1/t2v-14b"
    # A random model's signal goes where the published polynomial says nothing.
    with cache.attached(pipe), pytest.warns(EasyTeaCacheWarning, match="no step of the run was reused"):
        sample(pipe, "wan", steps=STEPS)
    assert cache.policy.num_steps == STEPS


# Two experts ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def experts():
    return wan_experts()


def test_two_experts_have_a_calibration_and_a_state_each(experts, registry):
    both = [alias("Owner/Model-A14B")]
    layers = registry(
        record("test/a14b/high-noise", both, schedule=[0, 2, 4, 6]),
        record("test/a14b/low-noise", both, schedule=[0, 6]),
    )
    plain = sample(experts, "wan", steps=STEPS)
    caches = TeaCache.for_pipeline(named(experts, "Owner/Model-A14B"), registry=layers)
    assert isinstance(caches, ExpertCaches)
    with caches.attached(experts):
        first = sample(experts, "wan", steps=STEPS)
        seen = {name: [step.step for step in run.steps] for name, run in caches.statistics().items()}
        high, low = seen["transformer/cond"], seen["transformer_2/cond"]
        assert high + low == list(range(STEPS))
        # The sampler's own step index goes on; the second expert has nothing to reuse at its first step.
        runs = caches.statistics()
        assert runs["transformer/cond"].hits == tuple(step for step in high if step % 2)
        assert runs["transformer_2/cond"].hits == tuple(step for step in low if step not in (low[0], 6))
        assert {name: policy.model_key for name, policy in caches.policies.items()} == {
            "transformer": "test/a14b/high-noise",
            "transformer_2": "test/a14b/low-noise",
        }
        assert caches.nbytes == 0
        assert torch.equal(sample(experts, "wan", steps=STEPS), first)
    assert not torch.equal(first, plain)
    assert torch.equal(sample(experts, "wan", steps=STEPS), plain)


def test_switching_to_the_other_expert_lets_go_of_the_first_ones_tensors(experts, make_cache):
    caches = ExpertCaches({name: make_cache(schedule=(0,)) for name in ("transformer", "transformer_2")})
    held = []
    with caches.attached(experts):
        experts.transformer_2.register_forward_hook(lambda *_: held.append(caches.caches["transformer"].nbytes))
        sample(experts, "wan", steps=STEPS)
    assert held
    assert not any(held)


def test_one_cache_for_two_experts_is_refused(experts, make_cache):
    with pytest.raises(AttachError, match=r"TeaCache\.for_pipeline"):
        make_cache(schedule=(0,)).attach(experts)


def test_caches_for_other_parts_than_the_pipeline_has_are_refused(make_cache):
    caches = ExpertCaches({name: make_cache(schedule=(0,)) for name in ("transformer", "transformer_2")})
    with pytest.raises(AttachError, match="the caches are for transformer and transformer_2"):
        caches.attach(wan())


def test_a_failed_attach_leaves_neither_expert_hooked(experts, make_cache):
    broken = make_cache(signal="unknown", threshold=0.1)
    caches = ExpertCaches({"transformer": make_cache(schedule=(0,)), "transformer_2": broken})
    with pytest.raises(ValueError):
        caches.attach(experts)
    assert not experts.transformer._forward_pre_hooks


def asking(speedup: float | None, **changes: Any) -> TeaCache:
    """A cache of a policy made by hand that was asked for a speed-up."""
    cache = TeaCache.from_policy(policy(**changes))
    cache.session.wish(Request(speedup=speedup))
    return cache


@pytest.mark.parametrize(
    ("asked", "computed", "said"),
    [
        # Of 8 steps on two experts 3 are computed: 2.67 times.
        ((4.0, 4.0), ((0,), (0, 5)), "a speed-up of 4 was asked for, and the run reached 2.67 over both experts"),
        ((2.3, 2.3), ((0,), (0, 5)), None),
        ((1.5, 1.5), ((0,), (0, 5)), "a speed-up of 1.5 was asked for, and the run reached 2.67"),
        ((4.0, None), ((0,), (0, 5)), None),
    ],
)
@pytest.mark.parametrize("sessions", [None, "thread"])
def test_the_speedup_of_two_experts_is_judged_over_the_whole_run(experts, asked, computed, said, sessions):
    parts = ("transformer", "transformer_2")
    pairs = zip(asked, computed, strict=True)
    caches = ExpertCaches({part: asking(one, schedule=plan) for part, (one, plan) in zip(parts, pairs, strict=True)})
    with warnings.catch_warnings(record=True) as told, caches.attached(experts, sessions=sessions):
        warnings.simplefilter("always")
        for _ in range(2):
            sample(experts, "wan", steps=STEPS)
            assert round(caches.current_speedup_rate(), 2) == 2.67
    texts = [str(one.message) for one in told if "speed-up" in str(one.message)]
    assert len(texts) == (said is not None)
    assert all(said in text for text in texts)


def test_a_run_of_two_experts_that_was_broken_off_is_not_judged(experts):
    caches = ExpertCaches({part: asking(4.0, schedule=(0, 5)) for part in ("transformer", "transformer_2")})

    def stop(pipe, step, timestep, kwargs):
        pipe._interrupt = step == STEPS - 3
        return kwargs

    with warnings.catch_warnings(), caches.attached(experts):
        warnings.simplefilter("error")
        sample(experts, "wan", steps=STEPS, callback_on_step_end=stop)
        assert len(caches.statistics()["transformer_2/cond"].steps) == 2
