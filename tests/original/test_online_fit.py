"""Solve mode: what is recorded, and when it is written."""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from easyteacache import TeaCache
from easyteacache.errors import InvalidCalibration, InvalidSignal, StepOrderError
from easyteacache.original import cache_json

Make = Callable[..., Any]
LATENT = torch.zeros(1, 8, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.json"


@pytest.fixture
def make(path: Path) -> Make:
    return lambda **changes: TeaCache(
        **{"max_skip_step": -1, "model_keys": ["m"], "cache_path": path, "speedup_mode": False, **changes}
    )


def sizes(count: int, *, seed: int = 0) -> list[float]:
    changes = 0.05 + 0.3 * torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cumprod(1 + changes, 0).tolist()


def record(cache: TeaCache, values: list[float], *, length: int | None = 8, **arguments: Any) -> None:
    """A run whose signal has the given sizes and whose block output grows with their square."""
    for step, size in enumerate(values):
        signal = torch.full((1, 6, 4), size, dtype=torch.float64)
        assert not cache.check(step, signal, length or 0, **arguments)
        cache.store_truth(step, signal, LATENT, LATENT + size**2, length, **arguments)


def calibration_size(path: Path, length: int = 8) -> int:
    if not path.exists():
        return 0
    return json.loads(path.read_text())["m"].get(str(length), {"meta_data": {"calibration_size": 0}})["meta_data"][
        "calibration_size"
    ]


def test_the_signal_is_the_gate_s_own_and_y_the_blocks_output(make: Make, path: Path) -> None:
    values = sizes(10)
    cache = make()
    record(cache, values)
    cache.clear_cache()
    (config,) = cache_json.read(path, ["m"])
    for (x, y), before, after in zip(config.points, values, values[1:], strict=False):
        assert x == pytest.approx(after / before - 1)
        assert y == pytest.approx((after / before) ** 2 - 1, rel=1e-5)


def test_the_file_is_written_as_soon_as_there_are_enough_points(make: Make, path: Path) -> None:
    cache, values, seen = make(), sizes(17), []
    for step, size in enumerate(values):
        signal = torch.full((1, 6, 4), size)
        cache.store_truth(step, signal, LATENT, LATENT + size, 8)
        seen.append(calibration_size(path))
    # Five points are a fit; the next steps add five each time.
    assert seen == [0] * 5 + [5] * 5 + [10] * 5 + [15] * 2


def test_later_the_file_is_written_whenever_a_tenth_is_new(make: Make, path: Path) -> None:
    cache, written = make(), []
    for step, size in enumerate([1.0 + 0.01 * (k % 7) for k in range(200)]):
        cache.store_truth(step, torch.full((1, 6, 4), size), LATENT, LATENT + size, 8)
        written.append(calibration_size(path))
    writes = sorted(set(written))
    assert len(writes) < 30
    assert all(after - before <= max(5, 0.1 * before + 1) for before, after in itertools.pairwise(writes))


@pytest.mark.parametrize("end", ["clear_cache", "next run", "collected", "deleted"])
def test_no_point_is_lost_at_the_end(make: Make, path: Path, end: str) -> None:
    cache = make()
    record(cache, sizes(9))
    assert calibration_size(path) == 5
    if end == "clear_cache":
        cache.clear_cache()
    elif end == "next run":
        record(cache, sizes(1))
    else:
        del cache
    assert calibration_size(path) == 8


def test_the_last_points_are_written_when_the_interpreter_ends(path: Path) -> None:
    script = f"""
import torch
from EasyTeaCache import TeaCache
cache = TeaCache(-1, model_keys="m", cache_path={str(path)!r}, speedup_mode=False)
for step in range(9):
    cache.store_truth(step, torch.full((1, 4), 1.0 + step), torch.zeros(1, 8, 4), torch.full((1, 8, 4), 2.0 + step), 8)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    assert calibration_size(path) == 8


def test_too_few_points_are_kept_until_another_run_adds_to_them(make: Make, path: Path) -> None:
    cache = make()
    record(cache, sizes(4))
    cache.clear_cache()
    assert not path.exists()
    record(cache, sizes(4, seed=1))
    cache.clear_cache()
    assert calibration_size(path) == 6


def test_lengths_are_kept_apart_and_their_points_never_mix(make: Make, path: Path) -> None:
    cache = make()
    for length in (8, 16, 8):
        record(cache, sizes(7), length=length)
    cache.clear_cache()
    assert [(c.fit_length, c.calibration_size) for c in cache_json.read(path, ["m"])] == [(8, 12), (16, 6)]


def test_a_length_that_changes_within_a_run_gives_no_point_across_the_change(make: Make, path: Path) -> None:
    cache = make()
    for step, size in enumerate(sizes(12)):
        cache.store_truth(step, torch.full((1, 4), size), LATENT, LATENT + size, 8 if step < 6 else 16)
    cache.clear_cache()
    assert [(c.fit_length, c.calibration_size) for c in cache_json.read(path, ["m"])] == [(8, 5), (16, 5)]


def test_without_a_length_the_tokens_of_the_latent_count(make: Make, path: Path) -> None:
    record(make(), sizes(7), length=None)
    assert calibration_size(path, 8) > 0
    with pytest.raises(InvalidSignal, match=r"expected \(B, L, D\)"):
        make().store_truth(0, torch.ones(4), torch.ones(4), torch.ones(4))


def test_branches_are_measured_apart_and_fitted_together(make: Make, path: Path) -> None:
    cache = make()
    for step, size in enumerate(sizes(7)):
        for branch, factor in (("cond", 1.0), ("uncond", 100.0)):
            signal = torch.full((1, 6, 4), factor * size, dtype=torch.float64)
            cache.store_truth(step, signal, LATENT, LATENT + size, 8, branch=branch)
    cache.clear_cache()
    (config,) = cache_json.read(path, ["m"])
    assert config.calibration_size == 12
    assert max(x for x, _ in config.points) < 0.4


def test_a_step_left_out_gives_no_point(make: Make, path: Path) -> None:
    cache = make()
    for step in (0, 1, 2, 3, 5, 6, 7):
        cache.store_truth(step, torch.full((1, 4), 1.0 + step), LATENT, LATENT + 1 + step, 8)
    cache.clear_cache()
    assert calibration_size(path) == 5


def test_two_forwards_a_step_without_branches_are_an_error(make: Make) -> None:
    cache = make()
    record(cache, sizes(2))
    with pytest.raises(StepOrderError, match="branch='uncond'"):
        cache.store_truth(1, torch.ones(4), LATENT, LATENT, 8)
    cache.store_truth(2, torch.ones(4), LATENT, LATENT, 8)
    with pytest.raises(StepOrderError, match="step 1 came after step 2"):
        cache.store_truth(1, torch.ones(4), LATENT, LATENT, 8)


def test_a_change_from_zero_teaches_nothing_and_nan_is_an_error(make: Make, path: Path) -> None:
    cache = make()
    record(cache, [0.0, 0.0, *sizes(7)])
    cache.clear_cache()
    # Nothing changed from the first step to the second, and the third grew from nothing.
    assert calibration_size(path) == 7
    assert all(x < 1 for x, _ in cache_json.read(path, ["m"])[0].points)
    for name, arguments in {
        "t_mod": (torch.full((4,), float("nan")), LATENT + 1),
        "output_latent": (torch.ones(4), LATENT * float("nan")),
    }.items():
        broken = make()
        broken.store_truth(0, torch.ones(4), LATENT, LATENT + 1, 8)
        with pytest.raises(InvalidSignal, match=f"{name}: holds NaN at step 1"):
            broken.store_truth(1, arguments[0], LATENT, arguments[1], 8)


def test_tensors_that_are_changed_in_place_later_are_recorded_as_they_were(make: Make, path: Path) -> None:
    values = sizes(8)
    signal, output = torch.empty(1, 4, dtype=torch.float64), torch.empty(1, 8, 4, dtype=torch.float64)
    cache = make()
    for step, size in enumerate(values):
        cache.store_truth(step, signal.fill_(size), LATENT, output.fill_(size**2), 8)
    cache.clear_cache()
    points = cache_json.read(path, ["m"])[0].points
    assert [x for x, _ in points] == pytest.approx([b / a - 1 for a, b in itertools.pairwise(values)])


def test_another_shape_gives_no_point(make: Make, path: Path) -> None:
    cache = make()
    record(cache, sizes(7))
    cache.store_truth(7, torch.ones(2, 4), LATENT, LATENT, 8)
    cache.store_truth(8, torch.ones(2, 4), torch.zeros(2, 8, 4), torch.ones(2, 8, 4), 8)
    cache.clear_cache()
    assert calibration_size(path) == 6


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"m": 3}x'])
def test_a_file_that_cannot_be_read_stops_before_the_first_step(make: Make, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InvalidCalibration, match=r"cache\.json"):
        make()
    assert path.read_bytes() == content


@pytest.mark.parametrize("fits", [5, {"64": {"meta_data": {"coefficients": []}}}, {"64": {"meta_data": 1}}])
def test_a_damaged_fit_under_its_keys_stops_before_the_first_step(make: Make, path: Path, fits: object) -> None:
    content = json.dumps({"m": fits, "another": {"model": 5}})
    path.write_text(content)
    with pytest.raises(InvalidCalibration, match=r"cache\.json: m"):
        make()
    assert path.read_text() == content
    make(model_keys=["another"])


def test_a_file_that_is_damaged_meanwhile_is_not_overwritten_and_no_point_is_lost(make: Make, path: Path) -> None:
    cache = make()
    record(cache, sizes(8))
    good = path.read_bytes()
    path.write_bytes(good[:40])
    with pytest.raises(InvalidCalibration, match="not overwritten"):
        cache.clear_cache()
    assert path.read_bytes() == good[:40]
    path.write_bytes(good)
    cache.clear_cache()
    assert calibration_size(path) == 7


def test_two_caches_add_to_one_fit(make: Make, path: Path) -> None:
    caches = [make(), make()]
    for seed, cache in enumerate(caches):
        record(cache, sizes(7, seed=seed))
    for cache in caches:
        cache.clear_cache()
    assert calibration_size(path) == 12


def test_a_copy_records_for_itself(make: Make, path: Path) -> None:
    cache = make()
    record(cache, sizes(5))
    other = copy.deepcopy(cache)
    record(other, sizes(4))
    for one in (cache, other):
        one.clear_cache()
    # Four points and three, neither enough alone: the copy holds none of the other's.
    assert not path.exists()
    record(cache, sizes(7))
    record(other, sizes(7))
    del one, cache, other
    assert calibration_size(path) == 4 + 6 + 3 + 6


def test_solve_mode_computes_everything_and_has_no_policy(make: Make) -> None:
    cache = make(threshold=9.0)
    record(cache, sizes(6))
    assert cache.solving
    assert not cache.session.driven
    assert cache.current_speedup_rate() == 1
    assert repr(cache) == "TeaCache(solve mode)"
    cache.set_range(9, 0, 9.0)
    assert not cache.check(6, torch.ones(4))


def test_a_disabled_solver_touches_no_file_until_it_is_enabled(make: Make, path: Path) -> None:
    path.write_bytes(b"damaged")
    cache = make(enable=False)
    record(cache, sizes(7))
    assert path.read_bytes() == b"damaged"
    with pytest.raises(InvalidCalibration):
        cache.enable = True


def test_what_solve_mode_filed_speed_mode_applies(make: Make, path: Path, drive: Make) -> None:
    cache = make()
    record(cache, sizes(20))
    cache.clear_cache()
    fast = TeaCache(-1, 0, None, 0.9, None, "m", path)
    reused = drive(fast, [torch.full((1, 6, 4), s, dtype=torch.float64) for s in sizes(20)], sequence_length=8)
    assert 0.3 < sum(reused) / 20 < 0.9
    predicted = [step.predicted for step in fast.statistics()["default"].steps if step.predicted is not None]
    x = [step.distance for step in fast.statistics()["default"].steps if step.distance is not None]
    assert predicted == pytest.approx([(1 + d) ** 2 - 1 for d in x], rel=1e-3)
