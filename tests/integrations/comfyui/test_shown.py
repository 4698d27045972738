"""What nodes show: of a run, of the last one on this machine, of two pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from easyteacache.errors import EasyTeaCacheWarning
from easyteacache.integrations.comfyui import status as statuses
from easyteacache.integrations.comfyui.cached_model import cached, found_key
from easyteacache.integrations.comfyui.compared_images import compared

from .stand_in import CFGGuider, Patcher, sampler


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_node_tells_before_a_run_and_after_it() -> None:
    shown: list[str] = []
    model, about = cached(Patcher(), plan="even", model_key="auto", speedup=2.0, show=shown.append)
    assert about.splitlines() == [
        "Plan: even, 2 times fewer calls.",
        "Before a run, by the model alone: even (no evidence).",
    ]
    CFGGuider(model).sample(sampler())
    before, after = shown
    assert "Decided by the plan 'even', without a record: a schedule of 3 computed steps; no evidence" in before
    assert "█·█·█··" in after or "cond" in after
    assert "2.33× fewer calls computed" in after


def test_the_last_run_can_be_asked_for_in_another_process() -> None:
    assert statuses.status().last is None
    model, _ = cached(Patcher(), plan="even", model_key="auto", speedup=2.0)
    CFGGuider(model).sample(sampler())
    found = statuses.status()
    assert found.last is not None
    assert found.last["refusal"] is None
    assert set(found.last["pattern"]) == {"cond", "uncond"}
    assert "record: the plan 'even', without a record" in found.text
    CFGGuider(model).sample(sampler(noise=0.1))
    assert "computed in full: euler draws noise" in statuses.status().text


def test_a_damaged_status_file_is_no_status(own_home: Path) -> None:
    (own_home / "engines").mkdir()
    (own_home / "engines" / "comfyui.json").write_text("{")
    assert statuses.status().last is None


def test_a_home_that_cannot_be_written_costs_no_picture(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_home / "file").write_text("")
    monkeypatch.setenv("EASYTEACACHE_HOME", str(own_home / "file"))
    model, _ = cached(Patcher(), plan="even", model_key="auto", speedup=2.0)
    assert torch.isfinite(CFGGuider(model).sample(sampler())).all()


@pytest.mark.parametrize(("plan", "speedup"), [("exact", 2.0), ("registry", 1.0), ("uncalibrated", 1.0)])
def test_exact_by_name_or_by_a_speedup_of_one(plan: Any, speedup: float) -> None:
    model, about = cached(Patcher(), plan=plan, model_key="auto", speedup=speedup)
    assert about == "Exact: every call of the model is computed."
    assert torch.equal(CFGGuider(model).sample(sampler()), CFGGuider(Patcher()).sample(sampler()))


def test_exact_by_quality() -> None:
    for name in ("exact", "lossless"):
        model, about = cached(Patcher(), plan="registry", model_key="auto", speedup=2.0, quality=name)
        assert about == "Exact: every call of the model is computed."
        assert torch.equal(CFGGuider(model).sample(sampler()), CFGGuider(Patcher()).sample(sampler()))


def test_a_quality_that_no_record_can_promise_computes_every_call_and_says_why() -> None:
    shown: list[str] = []
    model, about = cached(
        Patcher(), plan="registry", model_key="wan2.1/t2v-14b/lemica", speedup=2.0, quality="high", show=shown.append
    )
    assert about.startswith("Plan: registry, of high quality (error at most 0.02).")
    with pytest.warns(EasyTeaCacheWarning, match="quality='high'"):
        found = CFGGuider(model).sample(sampler())
    assert torch.equal(found, CFGGuider(Patcher()).sample(sampler()))
    assert "Computed in full:" in shown[-1]


def test_a_key_by_hand_goes_before_the_configuration() -> None:
    patcher = Patcher()
    patcher.model.model_config.unet_config = {"image_model": "lumina2", "dim": 3840}
    assert found_key(patcher, "auto") == (
        "z-image/turbo",
        "Model: z-image/turbo, by its configuration. z-image/base has the same: if it is one of them, write that into model_key.",
    )
    assert found_key(patcher, " z-image/base ") == ("z-image/base", "Model: z-image/base.")


def test_a_model_that_nobody_knows_says_what_to_do() -> None:
    key, told = found_key(Patcher(), "auto")
    assert key is None
    assert "image_model='toy'" in told
    _, about = cached(Patcher(), plan="registry", model_key="auto", speedup=2.0)
    assert "Nothing to go by yet" in about


def test_what_the_registry_offers_is_told_before_a_run() -> None:
    _, about = cached(Patcher(), plan="registry", model_key="wan2.1/t2v-14b", speedup=2.0)
    assert about.splitlines()[1] == "Model: wan2.1/t2v-14b."
    assert "Before a run, by the model alone: wan2.1/t2v-14b/" in about


# Pictures --------------------------------------------------------------------------------------------------------------


def test_equal_pictures_are_identical() -> None:
    picture = torch.rand(1, 8, 8, 3)
    found = compared(picture, picture)
    assert found.text == "Identical."
    assert not found.difference.any()


def test_a_difference_is_shown_so_many_times() -> None:
    picture = torch.full((1, 8, 8, 3), 0.5)
    other = picture.clone()
    other[0, 2, 3] += 0.1
    found = compared(picture, other, gain=4.0)
    assert found.difference[0, 2, 3].tolist() == pytest.approx([0.4] * 3, abs=1e-5)
    assert float(found.difference.sum()) == pytest.approx(1.2, abs=1e-4)
    assert found.text.startswith("PSNR ")
    assert "shown 4 times" in found.text


def test_figures_are_those_of_the_saved_pictures() -> None:
    from easyteacache.compare.quality import decibels

    picture = torch.zeros(1, 8, 8, 3)
    # 2/255 of 1 everywhere: mse (2/255)².
    found = compared(picture, picture + 2 / 255)
    assert found.psnr[0] == pytest.approx(decibels((2 / 255) ** 2))


def test_of_several_pictures_the_worst_is_told() -> None:
    pictures = torch.full((3, 8, 8, 3), 0.5)
    other = pictures.clone()
    other[1] += 0.1
    other[2] += 0.2
    found = compared(pictures, other)
    assert f"{min(found.psnr):.2f} worst" in found.text
    assert "1 of 3 pictures identical" in found.text


def test_pictures_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one shape"):
        compared(torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 9, 3))
