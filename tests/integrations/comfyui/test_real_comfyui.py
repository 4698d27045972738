"""The wrappers and nodes in a real ComfyUI: its own sampling loop, its samplers, tiny models of its classes, on a CPU.

    EASYTEACACHE_COMFYUI=/path/to/ComfyUI pytest -m "slow or not slow" tests/integrations/comfyui/test_real_comfyui.py

ComfyUI needs its own small packages in this environment (torchsde, einops, sentencepiece, aiohttp …); nothing of it is in this repository.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMFYUI = os.environ.get("EASYTEACACHE_COMFYUI")
SCRIPT = Path(__file__).with_name("real_comfyui.py")
PLAN, STEPS = [0, 1, 2, 4, 6], 8
LINEAR, NOISY = ("euler", "dpmpp_2m", "uni_pc", "res_multistep"), ("euler_ancestral", "lcm")
MODELS = ("flux", "wan")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMFYUI is None, reason="EASYTEACACHE_COMFYUI does not name a ComfyUI to run in"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that the script shows, by the name of its functions."""
    package = str(Path(__file__).resolve().parents[3])
    environment = {
        **os.environ,
        "EASYTEACACHE_HOME": str(tmp_path_factory.mktemp("home")),
        "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
        "SHOWN": "",
    }
    done = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert done.returncode == 0, done.stderr[-2000:]
    content: dict[str, Any] = json.loads(lines[-1].removeprefix("FOUND "))
    raised = {name: one["error raised"] for name, one in content.items() if "error raised" in one}
    assert raised == {}
    return content


@pytest.mark.parametrize("sampler", [*LINEAR, *NOISY, "heun", "dpm_adaptive"])
@pytest.mark.parametrize("model", MODELS)
def test_exact_is_bit_equal(found: dict[str, Any], model: str, sampler: str) -> None:
    assert found["exact"][f"{model} {sampler}"] == {"exact": True, "all computed": True, "moves": True}


@pytest.mark.parametrize("sampler", LINEAR)
@pytest.mark.parametrize("model", MODELS)
def test_the_computed_steps_of_a_plan_are_exactly_its_list(found: dict[str, Any], model: str, sampler: str) -> None:
    one = found["plans"][f"{model} {sampler}"]
    assert (one["computed"], one["calls"]) == (PLAN, STEPS)
    assert not one["as without"]
    assert one["report"]["pattern"] == {"cond": "███·█·█·", "uncond": "███·█·█·"}
    assert one["report"]["refusal"] is None


@pytest.mark.parametrize("sampler", NOISY)
@pytest.mark.parametrize("model", MODELS)
def test_a_sampler_that_adds_noise_is_refused_with_the_reason(found: dict[str, Any], model: str, sampler: str) -> None:
    one = found["plans"][f"{model} {sampler}"]
    assert one["computed"] == list(range(STEPS))
    assert one["as without"]
    assert f"Computed in full: {sampler} draws noise at its steps" in one["report"]["text"]


def test_cond_and_uncond_are_never_mixed(found: dict[str, Any]) -> None:
    assert found["branches"] == {"batched": True, "own": True, "another's": False}


def test_branches_in_calls_of_their_own_give_the_same(found: dict[str, Any]) -> None:
    one = found["unbatched"]
    assert (one["parts"], one["computed"]) == ([1], PLAN)
    assert one["difference"] < 1e-5


def test_branches_with_plans_of_their_own_are_computed_alone(found: dict[str, Any]) -> None:
    assert found["mixed"] == {"cond": PLAN, "uncond": [0, 2, 4], "alone": [1, 6]}


def test_a_second_run_starts_afresh(found: dict[str, Any]) -> None:
    one = found["again"]
    assert one["second is the first"]
    assert one["another seed differs"]
    assert one["fresh model agrees"]
    assert one["patterns"] == [{"cond": "███·█·█·", "uncond": "███·█·█·"}] * 3


def test_an_interrupt_in_the_middle_leaves_nothing(found: dict[str, Any]) -> None:
    one = found["interrupted"]
    assert one["broken off"]
    assert one["bytes"] == 0
    assert one["run is gone"]
    assert not one["options"]
    assert one["next is whole"]
    assert one["text"].endswith("The run was broken off.")


def test_several_samplers_and_models_of_one_graph_have_runs_of_their_own(found: dict[str, Any]) -> None:
    one = found["graphs"]
    assert one["after a swap"]
    assert one["parts"] == [{"cond": "█·█·", "uncond": "█·█·"}] * 2
    assert one["put on twice"] == 1


def test_a_plan_for_the_guided_output_skips_guidance(found: dict[str, Any]) -> None:
    one = found["guided"]
    assert one["computed"] == PLAN
    assert one["pattern"] == {"guided": "███·█·█·"}
    assert one["as per branch"] < 1e-5


def test_rows_that_correct_are_handed_on_under_eulers_sampler_alone(found: dict[str, Any]) -> None:
    assert found["corrected"]["euler"] == {"refusal": None, "pattern": {"cond": "███··███", "uncond": "███··███"}}
    assert "not known to be a run of Euler's sampler" in found["corrected"]["dpmpp_2m"]["refusal"]


def test_samplers_are_measured_one_class_each(found: dict[str, Any]) -> None:
    signatures = found["signatures"]
    assert len(signatures) > 30
    assert all(one["random state untouched"] for one in signatures.values())
    for name in LINEAR:
        assert signatures[name]["signature"], name
        assert signatures[name]["calls"] == STEPS
    assert [name for name, one in signatures.items() if one["euler"]] == ["euler", "ddim"]
    assert [name for name, one in signatures.items() if one["as diffusers' Euler"]] == ["euler", "ddim"]
    for name in NOISY:
        assert signatures[name]["stochastic"], name
    assert signatures["heun"]["calls"] == 2 * STEPS - 1
    assert signatures["dpm_adaptive"]["calls"] is None


def test_a_lora_is_told_of(found: dict[str, Any]) -> None:
    assert any("LoRA or other patches" in warning for warning in found["patched"]["lora"])


def test_calls_that_cannot_be_told_apart_end_all_reuse(found: dict[str, Any]) -> None:
    assert found["repeated"]["as without"]
    assert "more than once a step" in found["repeated"]["text"]


def test_a_masked_run_keeps_its_plan(found: dict[str, Any]) -> None:
    assert found["masked"] == {"pattern": {"cond": "███·█·█·", "uncond": "███·█·█·"}, "finite": True}


@pytest.mark.parametrize(
    ("model", "tokens", "kind"), [("flux", 16, "FluxTransformer2DModel"), ("wan", 48, "WanTransformer3DModel")]
)
def test_a_recorded_run_is_a_whole_trace(found: dict[str, Any], model: str, tokens: int, kind: str) -> None:
    one = found["recorded"][model]
    assert one["as without"]
    assert one["hooks left"] == 0
    assert (one["tokens"], one["class"], one["guidance"], one["map"]) == (tokens, kind, 3.0, True)
    assert one["branches"] == ["cond", "uncond"]
    assert {"guided", "output:guided", "feature:guided", "cond*uncond"} <= set(one["grams"])
    assert one["prompt"] is None


def test_what_cannot_be_recorded_says_why(found: dict[str, Any]) -> None:
    assert "Not recorded: lcm draws noise" in found["recorded"]["lcm"]
    assert "Not recorded: the sampler calls the model more than once a step" in found["recorded"]["heun"]


def test_a_calibration_recorded_in_comfyui_runs_in_comfyui(found: dict[str, Any]) -> None:
    one = found["chain"]
    assert one["report"]["refusal"] is None
    assert one["report"]["record"].startswith("toy/chain revision 1")
    assert one["report"]["speedup"] == pytest.approx(2.0)
    assert 0.0 < one["error"] < one["even"]


def test_the_node_pack_loads_and_runs(found: dict[str, Any]) -> None:
    one = found["nodes"]
    assert one["nodes"] == ["EasyTeaCache", "EasyTeaCacheCompare", "EasyTeaCacheRecord"]
    assert one["v1"]["EasyTeaCache"] == ["model", "model_key", "plan", "speedup"]
    assert one["about"].startswith("Plan: even, 2 times fewer calls.")
    assert one["sampled"]
    assert "write its key into model_key" in one["unknown"]
    assert one["unknown computes"]
    assert one["recorded"] == 1
    text, shape, psnr = one["compare"]
    assert text.startswith("PSNR")
    assert shape == [2, 16, 16, 3]
    assert psnr > 30
