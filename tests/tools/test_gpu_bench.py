"""tools/bench/gpu.sh: refused without a GPU, and whole on a tiny model; its figures are a GPU's business."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"
STEPS = (
    "computed step, hold",
    "reused step, hold",
    "computed step, linear",
    "reused step, linear",
    "computed step, four rows",
    "reused step, four rows",
    "computed step, corrector",
    "reused step, corrector",
    "step with the recorder",
)
COMPILED = (
    "compiled blocks, forward without a cache",
    "compiled blocks, computed step, linear",
    "compiled blocks, reused step, linear",
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    sys.modules.pop("gpu", None)
    import gpu

    return gpu


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    command = ["bash", str(BENCH / "gpu.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)


def test_without_a_gpu_it_refuses_with_a_sentence(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: No GPU is here")
    assert list(tmp_path.iterdir()) == []


def test_a_tiny_model_goes_through_everything_and_both_files_hold_it(tmp_path: Path) -> None:
    done = run("--cpu-tiny", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    page = (tmp_path / "gpu.md").read_text("utf-8")
    assert content["tiny"] is True
    assert "the times say nothing of a GPU" in page
    assert [one["blocks"] for one in content["models"]] == ["3 of 3", "1 of 1 and 2 of 2"]
    for one in content["models"]:
        assert [result["what"] for result in one["results"]] == [*STEPS, *COMPILED]
        assert all(result["milliseconds"] > 0 for result in one["results"])
        assert f"{one['blocks']} blocks" in page
    for what in (*STEPS, *COMPILED):
        assert page.count(f"| {what} |") == 2


@pytest.mark.parametrize(("name", "blocks"), [("TINY_WAN", "2 of 3"), ("TINY_FLUX", "1 of 1 and 1 of 2")])
def test_a_model_that_takes_too_long_is_cut_and_says_so(gpu: Any, name: str, blocks: str) -> None:
    found = gpu.measured(getattr(gpu, name), torch.device("cpu"), torch.bfloat16, 0.0, backend=None)
    assert (found.blocks, found.dtype) == (blocks, "bfloat16")
    assert [result.what for result in found.results] == list(STEPS)


@pytest.mark.parametrize(("name", "billions", "tokens"), [("WAN", (14.0, 14.5), 32760), ("FLUX", (11.8, 12.0), 4096)])
def test_whole_models_have_the_size_of_the_real_ones(
    gpu: Any, name: str, billions: tuple[float, float], tokens: int
) -> None:
    shape = getattr(gpu, name)
    assert billions[0] < gpu._numbers(shape, shape.blocks) / 1e9 < billions[1]
    assert gpu._tokens(shape) == tokens


def test_a_plan_that_is_not_followed_is_no_measurement(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STEPS", gpu.STEPS + 1)
    model = gpu.build(gpu.TINY_WAN, (2,), torch.device("cpu"), torch.float32)
    loop = gpu.loop_of(model, gpu.TINY_WAN, torch.device("cpu"), torch.float32)
    context = gpu.contenders()["hold"]
    monkeypatch.setattr(gpu, "COMPUTED", (0, 1))
    with pytest.raises(gpu.click.ClickException, match="were computed, expected"), context(loop):
        loop()


def test_the_corrector_hands_on_what_the_model_did_not_give(gpu: Any) -> None:
    """Else a corrected step would be measured without a correction."""
    cpu = torch.device("cpu")
    model = gpu.build(gpu.TINY_WAN, (2,), cpu, torch.float32)
    loop, raw, handed = gpu.loop_of(model, gpu.TINY_WAN, cpu, torch.float32), [], []
    model.register_forward_hook(lambda module, args, output: raw.append(output[0].clone()))
    with gpu.contenders()["corrector"](loop):
        model.register_forward_hook(lambda module, args, output: handed.append(output[0].clone()))
        loop()
    changed = [step for step, (a, b) in enumerate(zip(raw, handed, strict=True)) if not torch.equal(a, b)]
    assert set(gpu.COMPUTED[-2:]) <= set(changed)
