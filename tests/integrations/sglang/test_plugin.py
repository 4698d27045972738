"""The plug-in on SGLang's own mixin, hook registry and scheduler, from its released wheel.

What is stood in for is what those import of the rest of the engine: its environment, its platforms, and where it keeps the forward context.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch

from easyteacache.errors import EasyTeaCacheWarning, InvalidPlan
from easyteacache.integrations.sglang import plugin, served_run
from easyteacache.integrations.sglang.served_run import ATTRIBUTE, status
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.sampler import SamplerRecord
from easyteacache.registry import index
from easyteacache.runtime.driver import CallDriver

from ...export.engine_rules import load, stand_ins, wheel
from ...toy_records import bucket, file_record, make_record

__all__ = ["bucket", "file_record", "make_record"]

pytestmark = pytest.mark.slow

ROOT = "sglang.multimodal_gen"
STEPS, SHAPE = 10, (1, 6, 4)
PLAN = [0, 1, 4, 7]


class Engine:
    """What stands in for the engine around its own files."""

    def __init__(self) -> None:
        self.context: Any = None
        self.files: dict[str, Any] = {}

    @property
    def plugins(self) -> Any:
        return self.files[f"{ROOT}.runtime.platforms.plugins"]

    @property
    def mixin(self) -> Any:
        return self.files[f"{ROOT}.runtime.cache.spectrum"].SpectrumMixin

    @property
    def parameters(self) -> Any:
        return self.files[f"{ROOT}.configs.sample.spectrum"].SpectrumParams

    def get_forward_context(self) -> Any:
        assert self.context is not None
        return self.context


@pytest.fixture(scope="module")
def released(shared: Any) -> Path:
    return wheel("sglang", shared("sglang-wheel", lambda folder: wheel("sglang", folder)))


@pytest.fixture
def engine(released: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """SGLang's mixin with the plug-in's hooks on it, put there by SGLang's own registry."""
    made = Engine()
    modules: dict[str, dict[str, Any]] = {
        name: {}
        for name in (
            "sglang",
            "sglang.srt",
            "sglang.srt.plugins",
            ROOT,
            f"{ROOT}.runtime",
            f"{ROOT}.runtime.cache",
            f"{ROOT}.runtime.managers",
        )
    }
    modules |= {
        "sglang.srt.environ": {"envs": SimpleNamespace(SGLANG_PLUGINS=SimpleNamespace(get=lambda: ""))},
        f"{ROOT}.runtime.platforms": {"PLATFORM_PLUGINS_GROUP": "none", "get_selected_platform_dist": lambda: None},
        f"{ROOT}.runtime.managers.forward_context": {"get_forward_context": made.get_forward_context},
        f"{ROOT}.configs": {},
        f"{ROOT}.configs.sample": {},
        f"{ROOT}.configs.sample.sampling_params": {"CacheParams": object},
    }
    real = {
        "sglang.srt.plugins.hook_registry": "sglang/srt/plugins/hook_registry.py",
        f"{ROOT}.runtime.platforms.plugins": "sglang/multimodal_gen/runtime/platforms/plugins.py",
        f"{ROOT}.runtime.cache.spectrum": "sglang/multimodal_gen/runtime/cache/spectrum.py",
        f"{ROOT}.configs.sample.spectrum": "sglang/multimodal_gen/configs/sample/spectrum.py",
    }
    with stand_ins({**modules, **{name: {} for name in real}}):
        for name, path in real.items():
            found = load(released / path, name)
            setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], found)
            made.files[name] = found
        for name in modules:
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], child, sys.modules[name])
        yield made


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "registry"
    monkeypatch.setenv("EASYTEACACHE_REGISTRY", str(folder))
    return folder


@pytest.fixture
def serving(
    engine: Engine, registry: Path, make_record: Any, bucket: Any, file_record: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Engine]:
    """Files a record with this operating point, and starts the engine with the plug-in."""

    def start(plan: str = "registry", **point: Any) -> Engine:
        content = {
            "schedule": PLAN,
            "speedup": 2.0,
            "forecaster": "linear",
            "applied_to": "residual",
            "evidence": "replayed",
            **point,
        }
        file_record(registry, make_record(bucket(None, num_steps=STEPS, operating_points=[content])))
        index.write(registry, index.build(registry))
        monkeypatch.setenv(plugin.MODEL, "toy/model")
        monkeypatch.setenv(plugin.PLAN, plan)
        plugin.register()
        engine.plugins.HookRegistry.apply_hooks()
        return engine

    return start


def model_of(engine: Engine, prefix: str = "wan") -> Any:
    """A transformer as SGLang's call the mixin: blocks, or what the mixin gives."""

    class Model(engine.mixin):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.prefix = prefix
            self.calls: list[tuple[int, bool]] = []
            self._init_spectrum_state()

        def blocks(self, hidden: torch.Tensor) -> torch.Tensor:
            context = engine.context
            self.calls.append((context.current_timestep, context.forward_batch.is_cfg_negative))
            return (
                torch.sin(hidden) * (2.0 if context.forward_batch.is_cfg_negative else 1.0)
                + 0.1 * context.current_timestep**2
            )

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            enabled = engine.context.forward_batch.enable_spectrum
            run = self.begin_spectrum_step()
            if enabled and not run:
                return self.spectrum_predict_features(hidden)
            found = self.blocks(hidden)
            if enabled:
                self.spectrum_record_features(found)
            return found

    return Model()


def scheduler(kind: Any = diffusers.FlowMatchEulerDiscreteScheduler, **config: Any) -> Any:
    made = kind(**config)
    made.set_timesteps(STEPS)
    return made


def serve(
    engine: Engine,
    model: Any,
    *,
    speedup: float = 2.0,
    enabled: bool = True,
    cfg: bool = True,
    using: Any = None,
    until: int = STEPS,
) -> list[torch.Tensor]:
    """The denoising loop of one request; every feature in order."""
    batch = SimpleNamespace(
        enable_spectrum=enabled,
        spectrum_params=engine.parameters(window_size=speedup),
        do_classifier_free_guidance=cfg,
        is_cfg_negative=False,
        num_inference_steps=STEPS,
        scheduler=using or scheduler(),
    )
    if enabled:
        model.reset_spectrum_state(batch.spectrum_params)
    hidden, seen = torch.linspace(0.0, 1.0, 24).reshape(SHAPE), []
    for step in range(until):
        for negative in (False, True) if cfg else (False,):
            batch.is_cfg_negative = negative
            engine.context = SimpleNamespace(current_timestep=step, forward_batch=batch)
            seen.append(model.forward(hidden + 0.05 * step))
    return seen


def computed(model: Any, *, negative: bool = False) -> list[int]:
    return [step for step, branch in model.calls if branch == negative]


warned = pytest.mark.filterwarnings("ignore::easyteacache.errors.EasyTeaCacheWarning")


@warned
@pytest.mark.parametrize("prefix", ["wan", "flux"])
def test_the_computed_steps_of_a_plan_are_exactly_its_list(serving: Any, prefix: str) -> None:
    engine = serving()
    model = model_of(engine, prefix)
    serve(engine, model)
    assert computed(model) == computed(model, negative=True) == PLAN
    told = status()
    assert told is not None
    assert told["pattern"] == {"cond": "██··█··█··", "uncond": "██··█··█··"}
    assert told["record"].startswith("toy/model revision 1")
    # Nothing is held between requests.
    assert getattr(model, ATTRIBUTE).session.nbytes == 0


@warned
def test_branches_are_predicted_from_their_own_features(serving: Any) -> None:
    engine = serving(forecaster="hold")
    seen = serve(engine, model_of(engine))
    positive, negative = seen[0::2], seen[1::2]
    for step in (2, 3):
        assert torch.equal(positive[step], positive[1])
        assert torch.equal(negative[step], negative[1])
    assert not torch.equal(positive[1], negative[1])


@pytest.mark.parametrize("speedup", [1.0, 0.5])
def test_exact_is_bit_equal(serving: Any, speedup: float) -> None:
    engine = serving("even")
    plain = serve(engine, model_of(engine), enabled=False)
    exact = serve(engine, model_of(engine), speedup=speedup)
    assert all(torch.equal(one, other) for one, other in zip(plain, exact, strict=True))


def test_a_request_without_spectrum_is_left_alone(serving: Any) -> None:
    engine = serving()
    model = model_of(engine)
    serve(engine, model, enabled=False)
    assert computed(model) == list(range(STEPS))
    assert status() is None


@warned
def test_each_request_has_a_budget_of_its_own(serving: Any) -> None:
    engine = serving("even")
    counts = []
    for speedup in (2.0, 4.0):
        model = model_of(engine)
        serve(engine, model, speedup=speedup)
        counts.append(len(computed(model)))
    assert counts == [5, 2]


@warned
def test_a_sampler_that_draws_noise_is_refused_with_the_reason(serving: Any) -> None:
    engine = serving()
    model = model_of(engine)
    serve(engine, model, using=scheduler(stochastic_sampling=True))
    assert computed(model) == list(range(STEPS))
    told = status()
    assert told is not None
    assert "draws noise at its steps" in told["refusal"]


@warned
def test_a_speedup_out_of_reach_computes_every_step_and_says_so(serving: Any) -> None:
    engine = serving()
    model = model_of(engine)
    serve(engine, model, speedup=7.0)
    assert computed(model) == list(range(STEPS))
    told = status()
    assert told is not None
    assert "7" in told["refusal"]


@warned
def test_a_second_request_starts_afresh_and_a_broken_one_leaves_nothing(serving: Any) -> None:
    engine = serving()
    model = model_of(engine)
    first = serve(engine, model)
    serve(engine, model, until=5)
    broken = getattr(model, ATTRIBUTE)
    model.calls.clear()
    again = serve(engine, model)
    assert broken.session.nbytes == 0
    assert computed(model) == PLAN
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@warned
@pytest.mark.parametrize("forecaster", ["hold", "linear", "taylor-2"])
def test_features_are_those_of_the_same_plan_elsewhere(serving: Any, forecaster: str) -> None:
    engine = serving(forecaster=forecaster)
    seen = serve(engine, model_of(engine), cfg=False)
    levels = tuple(float(level) for level in scheduler().sigmas)
    run = RunContext(
        num_steps=STEPS, sampler=SamplerRecord.euler(levels), can=served_run.FEATURES, begun=True, sequence_length=6
    )
    driver = CallDriver(served_run.Wish("registry", "toy/model", 2.0).session(run))
    driver.begin(run)
    plain = serve(engine, model_of(engine), enabled=False, cfg=False)
    for step in range(STEPS):
        if driver.before("cond", step).reuse:
            assert torch.equal(driver.give("cond"), seen[step])
        else:
            driver.observe("cond", plain[step])
            assert torch.equal(plain[step], seen[step])
    assert driver.session.request == Request(speedup=2.0)


def test_a_user_is_warned_of_what_was_made_for_another_quantity(serving: Any) -> None:
    engine = serving()
    with pytest.warns(EasyTeaCacheWarning, match="here the feature before the head is predicted in its place"):
        serve(engine, model_of(engine))


def test_without_the_variable_nothing_is_registered(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plugin.MODEL, raising=False)
    plugin.register()
    assert dict(engine.plugins.HookRegistry._hooks) == {}


def test_an_unknown_plan_ends_the_start(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugin.MODEL, "toy/model")
    monkeypatch.setenv(plugin.PLAN, "fast")
    with pytest.raises(InvalidPlan, match="expected one of registry"):
        plugin.register()


def test_models_that_pack_other_streams_keep_sglangs_own(serving: Any) -> None:
    engine = serving()
    model = model_of(engine)
    type(model).__name__ = "MiniMaxH3Transformer"
    serve(engine, model, cfg=False)
    # SGLang's window grows from 2 by 0.75 after five steps of warm-up.
    assert computed(model) == [0, 1, 2, 3, 4, 6, 8]
    assert status() is None
