from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from easyteacache.demo import sampling
from easyteacache.demo.sampling import CACHED, FEWER, UNCACHED, DemoSettings
from easyteacache.errors import EasyTeaCacheWarning, ReferenceModelError, UnknownModelKey
from easyteacache.reference import MovingDigitsPipeline, load_pipeline
from easyteacache.reference.architectures import WAN


@pytest.fixture(scope="module")
def pipe() -> MovingDigitsPipeline:
    return load_pipeline()


def settings(**changes: object) -> DemoSettings:
    small = {"steps": 8, "frames": 1, "width": 16, "height": 16, "samples": 2, "threshold": 0.4}
    return DemoSettings(**(small | changes))  # type: ignore[arg-type]


def test_every_sample_is_run_in_all_three_ways_in_turn(pipe: MovingDigitsPipeline, reference_registry: Path) -> None:
    wanted = settings()
    told: list[str] = []
    cache = sampling.open_cache(pipe, wanted, reference_registry)
    samples = sampling.sample_all(pipe, cache, wanted, started=told.append)
    assert told == [
        "warm-up",
        *(f"seed 0, {variant}" for variant in (UNCACHED, CACHED, FEWER)),
        *(f"seed 1, {variant}" for variant in (CACHED, FEWER, UNCACHED)),
    ]
    for sample in samples:
        cached, fewer = sample.runs[CACHED], sample.runs[FEWER]
        assert set(cached.patterns) == {"cond", "uncond"}
        assert {len(pattern) for pattern in cached.patterns.values()} == {8}
        assert 1 < cached.computed < 8
        assert (fewer.steps, fewer.computed) == (round(cached.computed), round(cached.computed))
        assert not np.array_equal(cached.frames, sample.runs[UNCACHED].frames)


def test_a_threshold_of_zero_changes_nothing(pipe: MovingDigitsPipeline, reference_registry: Path) -> None:
    wanted = settings(threshold=0.0, samples=1)
    cache = sampling.open_cache(pipe, wanted, reference_registry)
    (sample,) = sampling.sample_all(pipe, cache, wanted, started=lambda _: None)
    assert sample.runs[CACHED].computed == 8
    assert np.array_equal(sample.runs[CACHED].frames, sample.runs[UNCACHED].frames)


def test_the_warm_up_reuses_as_the_samples_do_and_warns_of_nothing(
    pipe: MovingDigitsPipeline, reference_registry: Path
) -> None:
    wanted = settings(samples=1)
    cache = sampling.open_cache(pipe, wanted, reference_registry)
    warm: list[int] = []

    def started(what: str) -> None:
        if what == f"seed 0, {UNCACHED}":
            warm.extend(run.reused for run in cache.statistics().values())

    with warnings.catch_warnings():
        warnings.simplefilter("error", EasyTeaCacheWarning)
        sampling.sample_all(pipe, cache, wanted, started=started)
    assert len(warm) == 2
    assert min(warm) > 0


def test_the_pipeline_is_left_as_it_was(pipe: MovingDigitsPipeline, reference_registry: Path) -> None:
    before = pipe("3", 1, 16, 16, 2, seeds=[0]).frames
    wanted = settings(samples=1)
    sampling.sample_all(pipe, sampling.open_cache(pipe, wanted, reference_registry), wanted, started=lambda _: None)
    assert np.array_equal(pipe("3", 1, 16, 16, 2, seeds=[0]).frames, before)


@pytest.mark.parametrize(("steps", "size"), [(50, 24), (50, 16), (25, 32), (30, 24)])
def test_the_bundled_calibration_serves_the_demo(
    steps: int, size: int, pipe: MovingDigitsPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path))
    monkeypatch.delenv("EASYTEACACHE_REGISTRY", raising=False)
    policy = sampling.open_cache(pipe, DemoSettings(steps=steps, width=size, height=size, speedup=2.0), None).policy
    assert (policy.layer, policy.refusal) == ("bundled", None)
    assert policy.schedule is not None or policy.threshold > 0


def test_prompts_go_through_the_digits_from_the_seed_on() -> None:
    assert [settings(seed=8).prompt(sample)[0] for sample in range(4)] == ["8", "9", "0", "1"]


def test_an_unknown_key_is_the_registrys_error(pipe: MovingDigitsPipeline, reference_registry: Path) -> None:
    with pytest.raises(UnknownModelKey):
        sampling.open_cache(pipe, settings(key="reference/other"), reference_registry)


def test_a_saved_transformer_takes_the_place_of_the_packaged_one(pipe: MovingDigitsPipeline, tmp_path: Path) -> None:
    other = copy.deepcopy(pipe.transformer)
    other.proj_out.bias.data += 1.0
    other.save_pretrained(tmp_path / "mine")
    mine = sampling.load(tmp_path / "mine").transformer
    assert torch.equal(mine.proj_out.bias, pipe.transformer.proj_out.bias + 1.0)
    assert mine.dtype == torch.float32


@pytest.mark.parametrize("name", ["absent/model", "empty"])
def test_what_holds_no_transformer_is_an_error_and_never_looked_up_elsewhere(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReferenceModelError, match=r"found no config\.json"):
        sampling.load(tmp_path / name)


def test_a_damaged_transformer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel", **WAN.config}))
    with pytest.raises(ReferenceModelError, match="not a saved WanTransformer3DModel"):
        sampling.load(tmp_path)
