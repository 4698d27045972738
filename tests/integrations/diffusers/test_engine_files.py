"""Files for diffusers and cache-dit, applied to tiny instances of the real classes: the exported steps are the ones that run."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_transformers import arguments, build

from easyteacache.errors import ExportRefused
from easyteacache.export import ENGINES, export
from easyteacache.export.magcache_rule import engine_plan, magcache_plan
from easyteacache.integrations.diffusers import adapter_for, located
from easyteacache.policy.request import request_and_run
from easyteacache.records.calibration import Calibration, save
from easyteacache.registry.registry import Registry

ROOT = Path(__file__).resolve().parents[3]
BUNDLED = Registry.from_folder(ROOT / "registry")
MAGCACHE = [key for key in BUNDLED if BUNDLED[key].method == "magcache"]
# Classes of the families whose blocks are not registered in diffusers, or that have none there, or two experts and one list.
REFUSED = ("chroma", "hunyuanvideo-1.5", "omnigen2", "wan2.2/i2v-a14b", "wan2.2/t2v-a14b")


def config_of(text: str) -> Any:
    scope: dict[str, Any] = {}
    exec(text, scope)
    return scope["config"]


class Ran:
    """Notices whether a block's own layers ran."""

    def __init__(self, model: Any, *, block: int) -> None:
        chosen = located(adapter_for(model), model)[block][1]
        layer = next(each for each in chosen.modules() if isinstance(each, torch.nn.Linear))
        layer.register_forward_pre_hook(lambda *_: self.times.append(1))
        self.times: list[int] = []

    @torch.no_grad()
    def steps(self, model: Any, name: str, steps: int, branches: Sequence[str] = ("cond",)) -> dict[str, list[int]]:
        """Computed steps of one run, branch by branch."""
        computed: dict[str, list[int]] = {branch: [] for branch in branches}
        for step in range(steps):
            for branch in branches:
                self.times.clear()
                context = model.cache_context(branch) if hasattr(model, "cache_context") else contextlib.nullcontext()
                with context:
                    model(**arguments(name, step, branch, steps=steps))
                if self.times:
                    computed[branch].append(step)
        return computed


@pytest.mark.parametrize("key", MAGCACHE)
def test_every_magcache_record_runs_in_its_class_of_diffusers_or_is_refused(key: str) -> None:
    if key.startswith(REFUSED):
        with pytest.raises(ExportRefused) as caught:
            export(BUNDLED, key, "diffusers", *request_and_run(threshold=0.1))
        assert caught.value.rules == ("model",)
        return
    exported = export(BUNDLED, key, "diffusers", *request_and_run(threshold=0.1))
    entry = ENGINES["diffusers"].model_for(key, "magcache")
    assert entry is not None
    assert entry.name is not None
    model = build(entry.name)
    ran, steps = Ran(model, block=-1), exported.numbers.num_steps or 0
    model.enable_cache(config_of(exported.text))
    branches = list(exported.numbers.ratios)
    seen = ran.steps(model, entry.name, steps, branches)
    assert all(0 < len(computed) < steps for computed in seen.values())
    if exported.numbers.limit is not None and exported.numbers.retention is not None:
        assert {branch: tuple(computed) for branch, computed in seen.items()} == {
            branch: engine_plan(exported.numbers, exported.numbers.ratios[branches[0]], within=True)
            for branch in branches
        }


@pytest.mark.parametrize("key", ["chroma/magcache", "hunyuanvideo-1.5/magcache"])
def test_what_is_refused_is_what_diffusers_raises_on(key: str) -> None:
    name = {"chroma": "ChromaTransformer2DModel", "hunyuanvideo-1.5": "HunyuanVideo15Transformer3DModel"}
    exported = export(BUNDLED, key, "diffusers", allow={"model"})
    with pytest.raises(ValueError, match="not registered"):
        build(name[key.split("/")[0]]).enable_cache(config_of(exported.text))


def test_flux_at_28_steps_computes_the_three_first_steps_that_the_authors_compute() -> None:
    assert config_of(export(BUNDLED, "flux.1/dev/magcache", "diffusers").text).retention_ratio * 28 == pytest.approx(3)


def record(method: str, signal: str, **bucket: Any) -> Calibration:
    content = {
        "schema_version": 2,
        "model_key": "wan2.1/own",
        "revision": 1,
        "status": "draft",
        "title": "Made for tests",
        "modality": "video",
        "method": method,
        "signal": signal,
        "provenance": {},
        "buckets": [{"num_steps": 12, "max_skip_step": -1, **bucket}],
    }
    return Calibration.from_mapping(content)


def test_diffusers_decides_100_random_lists_of_ratios_as_magcache_does(tmp_path: Path) -> None:
    model, name = build("WanTransformer3DModel"), "WanTransformer3DModel"
    ran = Ran(model, block=-1)
    for seed in range(100):
        chosen = random.Random(seed)
        ratios = [1.0, *(round(1 + chosen.uniform(-0.06, 0.03), 5) for _ in range(11))]
        whole = sum(abs(1 - ratio) for ratio in ratios)
        bucket = {
            "magnitude_ratios": [{"branch": "cond", "ratios": ratios}],
            "max_consecutive_skips": 1 + seed % 6,
            "skip_window_fraction": [(seed % 7) / 20, 1.0],
            "operating_points": [{"threshold": round((1 + seed % 9) / 20 * whole, 5), "evidence": "reported"}],
        }
        save(record("magcache", "unknown", **bucket), tmp_path / "wan2.1" / "own.json")
        exported = export(Registry.from_folder(tmp_path), "wan2.1/own", "diffusers")
        model.enable_cache(config_of(exported.text))
        assert tuple(ran.steps(model, name, 12)["cond"]) == magcache_plan(exported.numbers, "cond")
        model.disable_cache()


@contextlib.contextmanager
def cache_dit_on(model: Any, file: Path) -> Iterator[None]:
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")
    cache_dit = pytest.importorskip("cache_dit")
    from cache_dit.caching.block_adapters import FakeDiffusionPipeline

    loaded = cache_dit.load_configs(str(file))
    cache_dit.enable_cache(model, **loaded)
    try:
        yield
    finally:
        cache_dit.disable_cache(model)
        # It marks its own placeholder class, and then takes every later transformer for cached.
        if "_is_cached" in vars(FakeDiffusionPipeline):
            del FakeDiffusionPipeline._is_cached


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_cache_dit_computes_the_steps_of_100_random_schedules(tmp_path: Path) -> None:
    name = "FluxTransformer2DModel"
    for seed in range(100):
        chosen = random.Random(seed)
        schedule = [0, *sorted(chosen.sample(range(1, 12), chosen.randint(1, 9)))]
        bucket = {
            "coefficients": [1.0, 0.0],
            "operating_points": [{"schedule": schedule, "evidence": "replayed", "forecaster": "hold"}],
        }
        save(record("teacache", "hidden_states", **bucket), tmp_path / "wan2.1" / "own.json")
        file = tmp_path / "cache.yaml"
        file.write_text(export(Registry.from_folder(tmp_path), "wan2.1/own", "cache-dit").text, encoding="utf-8")
        model = build(name)
        with cache_dit_on(model, file):
            assert Ran(model, block=-1).steps(model, name, 12)["cond"] == schedule
