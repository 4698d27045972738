"""``TeaCache.from_registry`` and ``from_file``: what it shows, what it refuses, and what ``check`` may touch afterwards."""

from __future__ import annotations

import builtins
import dataclasses
import io
import itertools
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from easyteacache import Registry, TeaCache
from easyteacache.errors import (
    EasyTeaCacheWarning,
    InvalidCalibration,
    SignalMismatch,
    UnknownModelKey,
    UnreachableTarget,
)
from easyteacache.runtime.predictors import UnknownPredictor

Make = Callable[..., Any]
KEY = "wan2.1/t2v-14b"
SMALL = torch.ones(1, 6, 16)
#: Distances of 0.01: the polynomial of ``KEY`` predicts 0.05 there, and something below 0 nearer to 0.
RISING = [SMALL * 1.01**step for step in range(40)]
BUNDLED = Path(__file__).resolve().parents[2] / "registry"


@pytest.fixture(autouse=True)
def _only_the_bundled_layer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EASYTEACACHE_REGISTRY", raising=False)
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path))


def computed_steps(cache: TeaCache, num_steps: int) -> list[int]:
    """Steps that one run by the three verbs computes."""
    computed = []
    for step in range(num_steps):
        hidden = torch.ones(1, 4, 8)
        if cache.check(step, SMALL, 4):
            cache.update(SMALL, hidden)
        else:
            cache.store_truth(step, SMALL, hidden, hidden + 1, 4)
            computed.append(step)
    return computed


@pytest.mark.filterwarnings("ignore::easyteacache.errors.EasyTeaCacheWarning")
@pytest.mark.parametrize("key", [f"{KEY}/lemica", f"{KEY}/magcache", "qwen-image/lemica"])
@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_callers_own_limit_holds_beside_a_plan_too(key: str, limit: int) -> None:
    cache = TeaCache.from_registry(key, speedup=2.0, num_steps=50, max_consecutive_skips=limit)
    assert cache.policy.schedule is not None
    computed = computed_steps(cache, 50)
    assert max(after - before - 1 for before, after in zip(computed, [*computed[1:], 50], strict=True)) == limit


@pytest.mark.filterwarnings("ignore::easyteacache.errors.EasyTeaCacheWarning")
def test_a_window_of_the_callers_own_holds_beside_the_universal_plan_too() -> None:
    wishes = {"speedup": 4.0, "num_steps": 50, "sequence_length": 4, "shift": 3.0, "uncalibrated": True}
    plan = computed_steps(TeaCache.from_registry("anima", **wishes), 50)
    cache = TeaCache.from_registry("anima", max_skip_step=-11, max_consecutive_skips=5, min_skip_step=9, **wishes)
    assert cache.policy.model_key == "uncalibrated"
    computed = computed_steps(cache, 50)
    assert {*plan, *range(9), *range(40, 50)} <= {*computed}
    assert len(plan) == 12 < len(computed) < 50
    assert max(after - before - 1 for before, after in itertools.pairwise(computed)) <= 5


def test_policy_and_repr_show_record_signal_buckets_threshold_and_notes() -> None:
    cache = TeaCache.from_registry(KEY, threshold=0.1, num_steps=30, sequence_length=4096)
    policy = cache.policy
    assert (policy.model_key, policy.status, policy.layer) == (KEY, "published", "bundled")
    assert (policy.signal, policy.threshold, policy.first_skip_step) == ("timestep_projection", 0.1, 3)
    for part in (
        KEY,
        "revision=",
        "'bundled'",
        "timestep_projection",
        "threshold 0.1",
        "75600×1.00",
        f"{len(policy.notes)} notes",
    ):
        assert part in repr(cache)
    assert cache.notes == policy.notes
    assert any("skip window is scaled" in note for note in cache.notes)
    for text in (repr(cache), cache.summary()):
        assert KEY in text
        assert 2 <= len(text.splitlines()) <= 6


def test_a_hub_repository_id_leads_to_the_same_policy() -> None:
    by_key, by_id = (TeaCache.from_registry(key, threshold=0.1) for key in (KEY, "Wan-AI/Wan2.1-T2V-14B-Diffusers"))
    assert by_id.policy.curve == by_key.policy.curve
    assert set(by_id.policy.notes) - set(by_key.policy.notes) == {
        f"'Wan-AI/Wan2.1-T2V-14B-Diffusers' is the hub repository of {KEY!r}."
    }


@pytest.mark.parametrize(
    "registry", [str(BUNDLED), BUNDLED, Registry.from_folder(BUNDLED)], ids=["text", "path", "registry"]
)
def test_a_registry_may_be_given(registry: Any) -> None:
    assert TeaCache.from_registry(KEY, threshold=0.1, registry=registry).policy.layer == str(BUNDLED)


def test_a_file_gives_what_its_key_gives() -> None:
    wishes: dict[str, Any] = {"threshold": 0.1, "num_steps": 30, "sequence_length": 4096, "forecaster": "linear"}
    by_key, by_file = (TeaCache.from_registry(KEY, **wishes), TeaCache.from_file(BUNDLED / f"{KEY}.json", **wishes))
    assert dataclasses.replace(by_file.policy, layer="bundled") == by_key.policy
    assert by_file.policy.layer == str(BUNDLED / f"{KEY}.json")


def test_a_file_is_refused_as_a_key_is(tmp_path: Path) -> None:
    with pytest.raises(InvalidCalibration, match=r"nowhere\.json"):
        TeaCache.from_file(tmp_path / "nowhere.json", threshold=0.1)
    (tmp_path / "half.json").write_bytes((BUNDLED / f"{KEY}.json").read_bytes()[:500])
    with pytest.raises(InvalidCalibration, match=r"half\.json"):
        TeaCache.from_file(tmp_path / "half.json", threshold=0.1)
    with pytest.raises(UnreachableTarget):
        TeaCache.from_file(BUNDLED / f"{KEY}.json", speedup=99)
    unknown = next(key for key, _, entry in Registry.default().entries() if entry.signal == "unknown")
    with pytest.raises(SignalMismatch, match=f"{unknown}.json"):
        TeaCache.from_file(BUNDLED / f"{unknown}.json", threshold=0.1)


def test_every_bundled_record_of_a_known_signal_is_applied_or_says_what_is_missing(drive: Make) -> None:
    registry, applied = Registry.default(), 0
    for key, _, entry in registry.entries():
        if entry.method != "teacache":
            continue
        if entry.signal == "unknown":
            with pytest.raises(SignalMismatch, match="do not say which signal"):
                TeaCache.from_registry(key, threshold=0.1, registry=registry)
            continue
        cache = TeaCache.from_registry(key, threshold=0.1, num_steps=30, registry=registry)
        with warnings.catch_warnings():
            # What was fitted here warns of 30 steps, which it was not made for.
            warnings.simplefilter("ignore" if entry.status == "validated" else "error", EasyTeaCacheWarning)
            # Some polynomials hold for no change as small as these.
            warnings.filterwarnings("ignore", "[^:]*: no step of the run was reused", EasyTeaCacheWarning)
            drive(cache, [SMALL * (1.0 + 0.01 * step) for step in range(30)])
        assert len(cache.statistics()["default"].steps) == 30
        applied += 1
    assert applied > 60


def test_what_cannot_be_had_is_an_error_of_its_own() -> None:
    with pytest.raises(UnknownModelKey, match=r"'wan2\.1/t2v-14b'"):
        TeaCache.from_registry("wan2.1/t2v-14")
    with pytest.raises(
        UnreachableTarget, match=r"the record offers .*\. TeaCache\.uncalibrated\(speedup=99\) has a plan"
    ):
        TeaCache.from_registry(KEY, speedup=99)
    with pytest.raises(UnknownPredictor):
        TeaCache.from_registry(KEY, threshold=0.1, forecaster="magic")
    with pytest.raises(ValueError, match="exclude each other"):
        TeaCache.from_registry(KEY, threshold=0.1, speedup=2.0)
    with pytest.raises(ValueError, match="num_steps is 0"):
        TeaCache.from_registry(KEY, threshold=0.1, num_steps=0)


def test_the_caller_s_window_and_forecaster_replace_the_record_s(drive: Make) -> None:
    cache = TeaCache.from_registry(
        KEY,
        threshold=5.0,
        num_steps=20,
        min_skip_step=3,
        max_skip_step=-4,
        max_consecutive_skips=2,
        forecaster="linear",
    )
    assert drive(cache, RISING[:20]) == [step in {3, 4, 6, 7, 9, 10, 12, 13, 15, 16} for step in range(20)]
    assert cache.policy.forecaster == "linear"


def test_set_range_overrides_the_record(drive: Make) -> None:
    cache = TeaCache.from_registry(KEY, speedup=None, threshold=0.1)
    cache.set_range(6, 4, 5.0)
    assert drive(cache, RISING[:9]) == [step in {4, 5, 6} for step in range(9)]


def test_what_was_fitted_here_computes_everything_at_a_foreign_step_count(drive: Make) -> None:
    cache = TeaCache.from_registry("reference/moving-digits", threshold=5.0, num_steps=33, sequence_length=256)
    assert cache.policy.needs_sigma
    with pytest.warns(EasyTeaCacheWarning, match="sigma profile carries it over"):
        assert not any(drive(cache, [SMALL] * 33))
    assert any("sigma profile carries it over" in note for note in cache.notes)


def test_the_profile_carries_it_over_when_noise_levels_are_given() -> None:
    cache = TeaCache.from_registry("reference/moving-digits", threshold=0.1, num_steps=33, sequence_length=256)
    latent = torch.zeros(1, 256, 4)

    def run() -> None:
        for step in range(33):
            sigma = 3 * (1 - step / 33) / (1 + 2 * (1 - step / 33))
            if cache.check(step, None, 256, sigma=sigma):
                cache.update(None, latent)
            else:
                cache.store_truth(step, None, latent, latent + 1)

    with pytest.warns(EasyTeaCacheWarning, match="its evidence does not hold"):
        run()
    # Once a cache and reason: the next run says nothing more.
    run()
    assert 3 < sum(not s.reused for s in cache.statistics()["default"].steps) < 30


# What check may touch ------------------------------------------------------------------------------------------------


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Once called, every way to a file or a network is an error."""

    def seal() -> None:
        def refuse(*arguments: Any, **_: Any) -> None:
            raise AssertionError(f"a file or a network was touched: {arguments[:1]}")

        for owner, name in [
            *((builtins, "open"), (io, "open"), (socket, "socket")),
            *(
                (os, name)
                for name in ("open", "stat", "lstat", "listdir", "scandir", "access", "replace", "mkdir", "unlink")
            ),
        ]:
            monkeypatch.setattr(owner, name, refuse)

    return seal


def called_modules(call: Callable[[], object]) -> set[str]:
    """Top-level packages whose Python code ran, or whose built-in functions were called."""
    seen: set[str] = set()

    def watch(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            seen.add(str(frame.f_globals.get("__name__", "")).split(".")[0])
        elif event == "c_call":
            seen.add((getattr(argument, "__module__", None) or "").split(".")[0])

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return seen


@pytest.mark.parametrize("length", [75_600, 4096])
def test_after_the_constructor_a_run_touches_no_file_and_no_network(
    sealed: Callable[[], None], drive: Make, length: int
) -> None:
    cache = TeaCache.from_registry(KEY, threshold=0.2, num_steps=20)
    drive(cache, [SMALL] * 2)
    sealed()
    assert any(drive(cache, RISING[:20], sequence_length=length))


def test_after_the_constructor_a_run_needs_no_numpy_and_no_pydantic(drive: Make) -> None:
    cache = TeaCache.from_registry(KEY, threshold=0.2, num_steps=20)
    modules = called_modules(lambda: drive(cache, RISING[:20], sequence_length=75_600))
    assert "easyteacache" in modules
    assert not modules & {"numpy", "pydantic", "pydantic_core", "json", "importlib", "pathlib", "filelock"}


def test_the_watch_sees_numpy_and_pydantic_when_they_are_used() -> None:
    import numpy as np

    from easyteacache.records.calibration import OperatingPoint

    assert "numpy" in called_modules(lambda: np.poly1d([1.0, 2.0])(3.0))
    assert called_modules(lambda: OperatingPoint(threshold=0.1)) & {"pydantic", "pydantic_core"}


SCRIPT = """
import sys
from easyteacache import TeaCache
cache = TeaCache.from_registry("wan2.1/t2v-14b", threshold=0.2, num_steps=20)
import torch
before = set(sys.modules)
latent = torch.zeros(1, 8, 4)
for step in range(20):
    signal = torch.full((1, 6, 4), 1.01**step)
    if cache.check(step, signal, 75_600):
        latent = cache.update(signal, latent)
    else:
        cache.store_truth(step, signal, latent, latent + 1)
assert cache.current_speedup_rate() > 1
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
"""


def test_a_run_imports_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.split() == []
