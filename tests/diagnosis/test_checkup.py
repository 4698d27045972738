"""``doctor`` on pipelines that are well, and on those that are not: every answer that a user would act on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from diffusers import FirstBlockCacheConfig

import easyteacache
from easyteacache import TeaCache
from easyteacache.cli.main import main as program
from easyteacache.diagnosis.answers import QUESTIONS, Diagnosis
from easyteacache.reference import load_pipeline

KEY = "reference/moving-digits"


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_pipeline()


def examined(pipe: Any, cache: Any = None, **changes: Any) -> Diagnosis:
    return easyteacache.doctor(pipe, cache, **{"prompt": "3 left", "steps": 25, **changes})


@pytest.fixture(scope="module")
def well(pipe: Any) -> Diagnosis:
    return examined(pipe, TeaCache.from_registry(KEY, speedup=2.0))


def verdicts(found: Diagnosis) -> dict[str, str]:
    return {answer.question: answer.verdict for answer in found.answers}


def test_a_record_on_its_own_model_is_well(well: Diagnosis) -> None:
    assert list(verdicts(well)) == list(QUESTIONS)
    assert well.healthy, str(well)
    assert verdicts(well) | {"model": "good"} == dict.fromkeys(QUESTIONS, "good")


def test_its_figures_are_what_was_measured(well: Diagnosis) -> None:
    assert well.figures is not None
    assert well.figures["speedup"] == pytest.approx(25 / 12)
    assert 0 < well.figures["error"] < 0.05
    assert well.figures["error"] < well.figures["fewer_steps_error"]
    assert 0 < well.figures["reused_share"] < 0.5


def test_nothing_stays_attached(pipe: Any, well: Diagnosis) -> None:
    cache = TeaCache.from_registry(KEY, speedup=2.0).attach(pipe)
    cache.detach()


def test_another_models_numbers_are_not_run(pipe: Any) -> None:
    found = examined(pipe, TeaCache.from_registry("flux.1/dev", speedup=2.0), steps=12)
    assert found["model"].verdict == "bad"
    assert "FluxTransformer2DModel" in found["model"].text
    assert found.applied == "uncalibrated (layer none)"
    assert not found.healthy


@pytest.mark.parametrize("steps", [2, 4, pytest.param(8, marks=pytest.mark.slow)])
def test_few_steps_get_an_honest_no(pipe: Any, steps: int) -> None:
    found = examined(pipe, TeaCache.uncalibrated(2.0), steps=steps)
    assert found["steps"].verdict == "bad"
    assert f"{steps} steps" in found["steps"].text
    assert "Leave caching off" in found["steps"].fix


def test_another_cache_that_is_on_is_named_and_nothing_runs(pipe: Any) -> None:
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    try:
        found = examined(pipe, TeaCache.uncalibrated(2.0))
    finally:
        pipe.transformer.disable_cache()
    assert verdicts(found) == {"attach": "bad"}
    assert "FirstBlockCache" in found["attach"].text


@contextlib.contextmanager
def one_name_for_all(pipe: Any) -> Iterator[None]:
    """Both guidance branches run under one name, as in a pipeline whose author forgot the second."""
    pipe._cache_context = lambda name, step: pipe.transformer.cache_context("cond")
    try:
        yield
    finally:
        del pipe._cache_context


def test_branches_that_share_a_name_are_found_out(pipe: Any) -> None:
    with one_name_for_all(pipe):
        found = examined(pipe, TeaCache.uncalibrated(2.0), steps=12)
    assert found["run"].verdict == "bad", str(found)
    assert "cannot be told apart" in found["run"].text
    assert "cache_context" in found["run"].text


def test_a_model_that_is_random_is_not_exact(pipe: Any) -> None:
    handle = pipe.transformer.proj_out.register_forward_hook(lambda *found: found[-1] + 1e-3 * torch.randn(1))
    try:
        found = examined(pipe, TeaCache.even(2.0), steps=12)
    finally:
        handle.remove()
    assert found["exact"].verdict == "bad"


def test_a_record_that_does_not_hold_is_said(pipe: Any) -> None:
    found = examined(pipe, TeaCache.from_registry(KEY, speedup=2.0), steps=17, shift=11.0)
    assert found["conditions"].verdict in ("note", "bad")
    assert found["conditions"].text


@pytest.mark.slow
def test_thorough_samples_with_fewer_steps(pipe: Any) -> None:
    found = examined(pipe, TeaCache.even(2.0), steps=12, thorough=True)
    assert "(sampled)" in found["fewer-steps"].text


def test_the_command_says_it_in_json_and_by_exit_code() -> None:
    run = CliRunner().invoke(program, ["doctor", "reference", "--steps", "4", "--json"])
    assert run.exit_code == 1, run.output
    content = json.loads(run.stdout)
    assert content["healthy"] is False
    assert {"question", "asked", "verdict", "text", "fix"} == set(content["answers"][0])


def test_text_fits_80_columns(well: Diagnosis) -> None:
    assert max(map(len, str(well).splitlines())) <= 80
    assert str(well).endswith("All is well.")


def test_the_command_tells_of_engines(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path))
    run = CliRunner().invoke(program, ["doctor", "--engine", "comfyui", "--folder", str(tmp_path), "--json"])
    content = json.loads(run.stdout)
    assert (content["engine"], content["loaded"], content["last"]) == ("comfyui", False, None)
    assert run.exit_code == 1
    assert "No request" in CliRunner().invoke(program, ["doctor", "--engine", "vllm-omni"]).output


@pytest.mark.parametrize(
    "arguments", [[], ["reference", "--engine", "comfyui"], ["--engine", "diffusers"], ["reference", "--folder", "."]]
)
def test_a_model_or_an_engine_is_named(arguments: list[str]) -> None:
    assert CliRunner().invoke(program, ["doctor", *arguments]).exit_code == 2
