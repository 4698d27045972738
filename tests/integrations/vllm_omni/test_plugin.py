"""The plug-in on vLLM-Omni's own selector, backend base and CFG mixin, from its released wheel.

What is stood in for: its other backends, its configuration (whose module needs vLLM), and its process groups.
"""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch

from easyteacache.errors import AttachError, InvalidPlan
from easyteacache.integrations.vllm_omni import backend as backends
from easyteacache.integrations.vllm_omni import plugin
from easyteacache.integrations.vllm_omni.backend import BRANCH, GUIDED_OUTPUT, status, tokens_of, wish_of
from easyteacache.policy.request import RunContext
from easyteacache.records.sampler import SamplerRecord
from easyteacache.registry import index
from easyteacache.runtime.driver import CallDriver

from ...export.engine_rules import load, stand_ins, wheel
from ...toy_records import bucket, file_record, make_record

__all__ = ["bucket", "file_record", "make_record"]

pytestmark = pytest.mark.slow

ROOT = "vllm_omni.diffusion"
STEPS = 10
PLAN = [0, 1, 4, 7]


class Config(SimpleNamespace):
    """Any name of a dictionary as an attribute, as the engine's own gives it."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Config:
        return cls(**data)


@pytest.fixture(scope="module")
def released(shared: Any) -> Path:
    return wheel("vllm-omni", shared("vllm-omni-wheel", lambda folder: wheel("vllm-omni", folder)))


@pytest.fixture
def engine(released: Path) -> Iterator[dict[str, types.ModuleType]]:
    others = ("cachedit", "magcache", "seacache", "stepcache", "teacache")
    classes = ("CacheDiTBackend", "MagCacheBackend", "SeaCacheBackend", "StepCacheBackend", "TeaCacheBackend")
    nobody = {
        "get_cfg_group": None,
        "get_classifier_free_guidance_rank": lambda: 0,
        "get_classifier_free_guidance_world_size": lambda: 1,
        "is_cfg_group_initialized": lambda: False,
    }
    modules: dict[str, dict[str, Any]] = {
        "vllm": {},
        "vllm.logger": {"init_logger": logging.getLogger},
        "vllm.sequence": {"IntermediateTensors": object},
        "vllm_omni": {},
        ROOT: {},
        f"{ROOT}.data": {"DiffusionCacheConfig": Config},
        f"{ROOT}.cache": {},
        f"{ROOT}.distributed": {},
        f"{ROOT}.distributed.parallel_state": nobody,
        f"{ROOT}.worker": {},
        plugin.RUNNER: {},
        **{
            f"{ROOT}.cache.{name}": {kind: lambda config, kind=kind: kind}
            for name, kind in zip(others, classes, strict=True)
        },
    }
    real = {f"{ROOT}.cache.base": "base", f"{ROOT}.cache.selector": "selector"}
    files = {name: f"vllm_omni/diffusion/cache/{each}.py" for name, each in real.items()}
    files[f"{ROOT}.distributed.cfg_parallel"] = "vllm_omni/diffusion/distributed/cfg_parallel.py"
    with stand_ins({**modules, **{name: {} for name in files}}):
        found = {name.rpartition(".")[2]: load(released / path, name) for name, path in files.items()}
        runner = sys.modules[plugin.RUNNER]
        runner.get_cache_backend = found["selector"].get_cache_backend  # type: ignore[attr-defined]
        plugin.register()
        yield {**found, "runner": runner}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EASYTEACACHE_REGISTRY", str(tmp_path / "registry"))
    return tmp_path / "registry"


@pytest.fixture
def filed(registry: Path, make_record: Any, bucket: Any, file_record: Any) -> Callable[..., None]:
    def file(**point: Any) -> None:
        content = {
            "schedule": PLAN,
            "speedup": 2.0,
            "forecaster": "linear",
            "applied_to": "output",
            "evidence": "replayed",
            **point,
        }
        file_record(registry, make_record(bucket(None, num_steps=STEPS, operating_points=[content])))
        index.write(registry, index.build(registry))

    return file


def pipeline_of(engine: dict[str, types.ModuleType], using: Any = None, **more: Any) -> Any:
    """A pipeline with the engine's own mixin, and a transformer whose calls are counted."""

    class Pipeline(engine["cfg_parallel"].CFGParallelMixin):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.scheduler = using or diffusers.FlowMatchEulerDiscreteScheduler()
            self.transformer = SimpleNamespace(config=SimpleNamespace(patch_size=(1, 2, 2)))
            self.calls: list[tuple[int, str]] = []
            self.step = -1
            vars(self).update(more)

        def predict_noise(self, hidden_states: torch.Tensor, name: str) -> Any:
            self.calls.append((self.step, name))
            return torch.sin(hidden_states) * (1.0 if name == "positive" else 0.5) + 0.1 * self.step

        def diffuse(self, *, cfg: bool = True, until: int = STEPS) -> torch.Tensor:
            self.scheduler.set_timesteps(STEPS)
            latents = torch.linspace(-1.0, 1.0, 2 * 3 * 4 * 4).reshape(1, 2, 3, 4, 4)
            for step, timestep in enumerate(self.scheduler.timesteps[:until]):
                self.step = step
                predicted = self.predict_noise_maybe_with_cfg(
                    do_true_cfg=cfg,
                    true_cfg_scale=3.0,
                    positive_kwargs={"hidden_states": latents, "name": "positive"},
                    negative_kwargs={"hidden_states": latents, "name": "negative"} if cfg else None,
                    cfg_normalize=False,
                )
                if isinstance(predicted, tuple):
                    predicted = predicted[0]
                latents = self.scheduler.step(predicted, timestep, latents, return_dict=False)[0]
            return latents

    return Pipeline()


def serving(engine: dict[str, types.ModuleType], pipeline: Any = None, **config: Any) -> tuple[Any, Any]:
    made = engine["runner"].get_cache_backend("easyteacache", {"model_key": "toy/model", **config})
    pipeline = pipeline or pipeline_of(engine)
    made.enable(pipeline)
    return made, pipeline


def computed(pipeline: Any, name: str = "positive") -> list[int]:
    return [step for step, one in pipeline.calls if one == name]


@pytest.mark.parametrize("cfg", [True, False])
def test_the_computed_steps_of_a_plan_are_exactly_its_list(engine: Any, filed: Any, cfg: bool) -> None:
    filed()
    made, pipeline = serving(engine)
    assert made.is_enabled()
    made.refresh(pipeline, STEPS)
    pipeline.diffuse(cfg=cfg)
    assert computed(pipeline) == PLAN
    assert computed(pipeline, "negative") == (PLAN if cfg else [])
    told = status()
    assert told is not None
    assert told["pattern"] == {"guided": "██··█··█··"}
    assert told["record"].startswith("toy/model revision 1")
    # Nothing is held between requests.
    assert made.runs.session.nbytes == 0


@pytest.mark.parametrize("config", [{"plan": "exact"}, {"speedup": 1}])
def test_exact_is_bit_equal(engine: Any, registry: Path, config: dict[str, Any]) -> None:
    made, pipeline = serving(engine, **config)
    made.refresh(pipeline, STEPS)
    assert torch.equal(pipeline.diffuse(), pipeline_of(engine).diffuse())


def test_a_sampler_that_draws_noise_is_refused_with_the_reason(engine: Any, filed: Any) -> None:
    filed()
    noisy = diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    made, pipeline = serving(engine, pipeline_of(engine, noisy))
    made.refresh(pipeline, STEPS)
    pipeline.diffuse()
    assert computed(pipeline) == list(range(STEPS))
    told = status()
    assert told is not None
    assert "draws noise at its steps" in told["refusal"]


def test_a_distilled_loop_that_adds_noise_is_refused(engine: Any, filed: Any) -> None:
    filed()
    made, pipeline = serving(engine, pipeline_of(engine, is_dmd=True))
    made.refresh(pipeline, STEPS)
    pipeline.diffuse()
    assert computed(pipeline) == list(range(STEPS))
    assert "distilled loop" in (made.runs.refusal or "")


def test_a_second_request_starts_afresh_and_a_broken_one_leaves_nothing(engine: Any, filed: Any) -> None:
    filed()
    made, pipeline = serving(engine)
    made.refresh(pipeline, STEPS)
    first = pipeline.diffuse()
    made.refresh(pipeline, STEPS)
    pipeline.diffuse(until=6)
    broken = made.runs.session
    assert broken.nbytes > 0
    made.refresh(pipeline, STEPS)
    assert broken.nbytes == 0
    pipeline.calls.clear()
    assert torch.equal(pipeline.diffuse(), first)
    assert computed(pipeline) == PLAN


@pytest.mark.parametrize("forecaster", ["hold", "linear", "taylor-2"])
def test_decisions_and_outputs_are_those_of_the_same_plan_elsewhere(engine: Any, filed: Any, forecaster: str) -> None:
    filed(forecaster=forecaster)
    made, pipeline = serving(engine)
    made.refresh(pipeline, STEPS)
    result = pipeline.diffuse()
    plain = pipeline_of(engine)
    plain.scheduler.set_timesteps(STEPS)
    levels = tuple(float(level) for level in plain.scheduler.sigmas)
    run = RunContext(
        num_steps=STEPS, sampler=SamplerRecord.euler(levels), can=GUIDED_OUTPUT, begun=True, sequence_length=12
    )
    driver, predict = CallDriver(wish_of({"model_key": "toy/model"}).session(run)), plain.predict_noise_maybe_with_cfg
    driver.begin(run)

    def driven(**kwargs: Any) -> Any:
        if driver.before(BRANCH, plain.step).reuse:
            return driver.give(BRANCH)
        return driver.observe(BRANCH, predict(**kwargs))

    plain.predict_noise_maybe_with_cfg = driven
    assert torch.equal(plain.diffuse(), result)
    assert computed(plain) == computed(pipeline) == PLAN


def test_a_pipeline_that_predicts_several_tensors_is_computed(engine: Any, filed: Any) -> None:
    filed()
    pipeline = pipeline_of(engine)
    plain = pipeline.predict_noise
    pipeline.predict_noise = lambda **kwargs: (plain(**kwargs), torch.ones(1))
    made, _ = serving(engine, pipeline)
    made.refresh(pipeline, STEPS)
    pipeline.diffuse(cfg=False)
    assert computed(pipeline) == list(range(STEPS))
    assert "not one tensor" in (made.runs.refusal or "")


def test_other_backends_are_selected_as_before(engine: Any) -> None:
    for selector in (engine["selector"], engine["runner"]):
        assert selector.get_cache_backend("tea_cache", {}) == "TeaCacheBackend"
        assert selector.get_cache_backend(None, {}) is None
        with pytest.raises(ValueError, match="Unsupported cache backend"):
            selector.get_cache_backend("another", {})


def test_registered_twice_it_is_there_once(engine: Any) -> None:
    before = engine["selector"].get_cache_backend
    plugin.register()
    assert engine["selector"].get_cache_backend is before


def test_where_the_selector_is_not_there_the_engine_starts(
    engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(plugin, "SELECTOR", "vllm_omni.nowhere")
    with caplog.at_level(logging.WARNING, logger="easyteacache"):
        plugin.register()
    assert "'easyteacache' is not there" in caplog.text


def test_taken_off_the_pipeline_is_as_it_was(engine: Any, filed: Any) -> None:
    filed()
    made, pipeline = serving(engine)
    made.runs.take_off()
    assert backends.METHOD not in vars(pipeline)


def test_a_pipeline_without_the_mixin_is_refused(engine: Any) -> None:
    made = engine["runner"].get_cache_backend("easyteacache", {"model_key": "toy/model"})
    with pytest.raises(AttachError, match="CFGParallelMixin"):
        made.enable(SimpleNamespace())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "names no model_key"),
        ({"model_key": "a/b", "speedup": 0.5}, "at least 1"),
        ({"plan": "fast"}, "expected one of registry"),
    ],
)
def test_a_configuration_that_says_nothing_useful_ends_the_start(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidPlan, match=reason):
        wish_of(config)


@pytest.mark.parametrize(
    ("shape", "patch", "tokens"),
    [((1, 77, 64), None, 77), ((1, 16, 3, 8, 8), (1, 2, 2), 48), ((1, 16, 8, 9), 2, 20), ((1, 16, 8, 8), None, None)],
)
def test_tokens_are_counted_by_the_patch(shape: tuple[int, ...], patch: Any, tokens: int | None) -> None:
    assert tokens_of(torch.zeros(shape), SimpleNamespace(patch_size=patch)) == tokens
