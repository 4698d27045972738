"""The original project's constructor and methods, in its order and with its defaults."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from easyteacache import TeaCache, TeaCacheConfig
from easyteacache.errors import InvalidCalibration, StepOrderError, UnknownModelKey

Make = Callable[..., Any]
ONE = torch.ones(1, 6, 4)
LATENT = torch.zeros(1, 8, 4)
KEYS = ["mymodel", "function"]
IDENTITY = TeaCacheConfig(1, (1.0, 0.0), 8)


def test_the_signature_is_the_original_s() -> None:
    parameters = list(inspect.signature(TeaCache).parameters.values())
    positional = [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [
        ("max_skip_step", inspect.Parameter.empty),
        ("min_skip_step", 0),
        ("max_consecutive_skip", 2),
        ("threshold", 0.0),
        ("configs", None),
        ("model_keys", None),
        ("cache_path", "config/teacache/cache.json"),
        ("speedup_mode", True),
        ("enable", True),
        ("enable_vt_predictor", False),
    ]
    verbs = {name: list(inspect.signature(getattr(TeaCache, name)).parameters) for name in ("check", "store_truth")}
    assert verbs["check"][:4] == ["self", "step", "t_mod", "sequence_length"]
    assert verbs["store_truth"][:7] == [
        *("self", "step", "t_mod", "input_latent", "output_latent", "sequence_length", "timestep")
    ]
    changed = inspect.signature(TeaCache.set_range).parameters.values()
    assert [(p.name, p.default) for p in changed][2:] == [
        ("min_skip_step", 0),
        ("threshold", 0),
        ("max_consecutive_skip", None),
    ]


def test_every_argument_may_be_positional(seed_json: Make) -> None:
    path = seed_json({8: (1.0, 0.0)})
    cache = TeaCache(48, 2, 3, 0.04, None, KEYS, path, True, True, True)
    policy = cache.policy
    assert (policy.first_skip_step, policy.last_skip_step, policy.max_consecutive_skips) == (2, 48, 3)
    assert (policy.threshold, policy.forecaster, policy.model_key) == (0.04, "mean", "mymodel/function")


def test_the_defaults_compute_everything_and_need_no_file(drive: Make) -> None:
    cache = TeaCache(48)
    assert not any(drive(cache, [ONE] * 4))
    assert cache.current_speedup_rate() == 1
    assert "no policy" in cache.summary()
    with pytest.raises(InvalidCalibration, match="no policy"):
        cache.policy  # noqa: B018


@pytest.mark.parametrize(
    "keys", ["mymodel", ["mymodel"], ("a", "b", "c"), ["model with blanks", "Ünïcode/slash", "1024", "..", "x" * 300]]
)
def test_keys_are_any_strings_at_any_depth(seed_json: Make, drive: Make, keys: Any) -> None:
    path = seed_json({8: (1.0, 0.0)}, [keys] if isinstance(keys, str) else keys)
    cache = TeaCache(9, threshold=0.5, model_keys=keys, cache_path=path)
    assert drive(cache, [ONE] * 4) == [False, True, True, False]


@pytest.mark.parametrize("keys", [["meta_data"], [3], ["a", None], ["k"] * 99, [], None])
def test_keys_that_no_file_can_hold_are_refused(tmp_path: Path, keys: Any) -> None:
    for mode in (True, False):
        with pytest.raises(InvalidCalibration, match="model_keys"):
            TeaCache(9, threshold=0.5, model_keys=keys, cache_path=tmp_path / "c.json", speedup_mode=mode)


# The window ----------------------------------------------------------------------------------------------------------


def reused(cache: TeaCache, steps: int) -> list[int]:
    for step in range(steps):
        if cache.check(step, ONE):
            cache.update(ONE, LATENT)
        else:
            cache.store_truth(step, ONE, LATENT, LATENT)
    return list(cache.statistics()["default"].hits)


def test_the_window_is_inclusive_and_two_in_a_row_is_the_default() -> None:
    assert reused(TeaCache(6, 2, threshold=0.5, configs=IDENTITY), 10) == [2, 3, 5, 6]


def test_minus_one_means_to_the_end_from_the_first_run_on() -> None:
    assert reused(TeaCache(-1, 0, 9, 0.5, IDENTITY), 5) == [1, 2, 3, 4]


def test_a_negative_end_counts_from_a_known_end() -> None:
    cache = TeaCache(-3, 0, 9, 0.5, IDENTITY, num_steps=6)
    assert reused(cache, 6) == reused(cache, 6) == [1, 2, 3]


def test_a_negative_end_is_known_from_the_second_run_on() -> None:
    cache = TeaCache(-2, 0, 9, 0.5, IDENTITY)
    assert reused(cache, 5) == []
    assert any("Pass num_steps=" in note for note in cache.policy.notes)
    assert reused(cache, 5) == [1, 2, 3]
    assert not cache.policy.notes
    cache.clear_cache()
    # One step more than was seen: its end is not known to be the end.
    assert reused(cache, 6) == [1, 2, 3]
    assert reused(cache, 6) == [1, 2, 3, 4]


def test_a_cancelled_run_only_makes_the_next_one_more_cautious() -> None:
    cache = TeaCache(-2, 0, 9, 0.5, IDENTITY)
    reused(cache, 8)
    reused(cache, 4)
    assert reused(cache, 8) == [1, 2]
    assert reused(cache, 8) == [1, 2, 3, 4, 5, 6]


def test_an_empty_window_computes_everything_and_says_so() -> None:
    for arguments in ({"max_skip_step": 1, "min_skip_step": 3}, {"max_skip_step": -9, "num_steps": 5}):
        cache = TeaCache(threshold=0.5, configs=IDENTITY, **arguments)  # type: ignore[arg-type]
        assert reused(cache, 5) == []
        assert any("skip window is empty" in note for note in cache.policy.notes)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"threshold": "0.1"}, "threshold"),
        ({"min_skip_step": -1}, "min_skip_step"),
        ({"min_skip_step": 1.5}, "min_skip_step"),
        ({"max_skip_step": 1.5}, "max_skip_step"),
        ({"max_skip_step": True}, "max_skip_step"),
        ({"max_consecutive_skip": -1}, "max_consecutive_skips"),
        ({"num_steps": 0}, "num_steps"),
    ],
)
def test_an_argument_out_of_range_is_named(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        TeaCache(**{"max_skip_step": 9, **arguments})


# set_range, enable, clear_cache, speed-up ----------------------------------------------------------------------------


def test_set_range_changes_the_runs_to_come() -> None:
    cache = TeaCache(9, 0, 5, 0.5, IDENTITY)
    assert reused(cache, 6) == [1, 2, 3, 4, 5]
    cache.set_range(4, 3, 0.5)
    assert cache.policy.max_consecutive_skips == 5
    assert reused(cache, 6) == [3, 4]
    cache.set_range(4, 1, 0.5, 1)
    assert reused(cache, 6) == [1, 3]
    cache.set_range(9)
    assert reused(cache, 6) == []
    with pytest.raises(ValueError, match="threshold"):
        cache.set_range(9, threshold=-1)


def test_set_range_drops_what_the_running_run_remembers() -> None:
    cache = TeaCache(9, 0, 5, 0.5, IDENTITY)
    reused(cache, 3)
    cache.set_range(9, 0, 0.5)
    assert not cache.check(3, ONE)


def test_set_range_loads_the_fit_when_the_threshold_first_needs_it(seed_json: Make, tmp_path: Path) -> None:
    cache = TeaCache(9, model_keys=KEYS, cache_path=seed_json({8: (1.0, 0.0)}))
    cache.set_range(9, 0, 0.5)
    assert reused(cache, 4) == [1, 2]
    missing = TeaCache(9, model_keys=KEYS, cache_path=tmp_path / "missing.json")
    with pytest.raises(InvalidCalibration, match="does not exist"):
        missing.set_range(9, 0, 0.5)


def test_enable_may_be_switched_later(seed_json: Make, tmp_path: Path) -> None:
    cache = TeaCache(9, threshold=0.5, model_keys=KEYS, cache_path=seed_json({8: (1.0, 0.0)}), enable=False)
    assert not cache.check(0, ONE)
    cache.enable = True
    assert reused(cache, 4) == [1, 2]
    cache.enable = False
    assert not cache.check(0, ONE)
    missing = TeaCache(9, threshold=0.5, model_keys=KEYS, cache_path=tmp_path / "missing.json", enable=False)
    with pytest.raises(InvalidCalibration, match="does not exist"):
        missing.enable = True


def test_the_speed_up_is_that_of_the_current_run_and_survives_clear_cache() -> None:
    cache = TeaCache(9, 0, 1, 0.5, IDENTITY)
    assert cache.current_speedup_rate() == 1
    reused(cache, 6)
    assert cache.current_speedup_rate() == 2.0
    cache.clear_cache()
    assert cache.current_speedup_rate() == 2.0
    cache.check(0, ONE)
    cache.store_truth(0, ONE, LATENT, LATENT)
    assert cache.current_speedup_rate() == 1.0


def test_the_vt_predictor_is_the_mean_of_the_last_two_residuals() -> None:
    cache = TeaCache(9, 2, 2, 0.5, IDENTITY, enable_vt_predictor=True)
    for step, size in enumerate([4.0, 10.0]):
        cache.store_truth(step, ONE, LATENT, LATENT + size)
    assert cache.check(2, ONE)
    assert cache.update(ONE, LATENT).unique().tolist() == [7.0]


def test_update_needs_an_admitting_check_here_too() -> None:
    cache = TeaCache(9, 0, 5, 0.5, IDENTITY)
    assert not cache.check(0, ONE)
    with pytest.raises(StepOrderError):
        cache.update(ONE, LATENT)


# Fits ----------------------------------------------------------------------------------------------------------------


def test_the_nearest_fit_length_is_used_and_named(seed_json: Make) -> None:
    path = seed_json({100: (0.0, 1.0), 1000: (0.0, 2.0), 5000: (0.0, 3.0)})
    cache = TeaCache(9, 0, 5, 0.5, None, KEYS, path)
    for length, fitted in ((1, 100), (549, 100), (551, 1000), (1000, 1000), (2999, 1000), (99_999, 5000)):
        cache.check(0, ONE, length)
        cache.store_truth(0, ONE, LATENT, LATENT)
        assert cache.policy.buckets[0].sequence_length == fitted
        assert cache.policy.curve(0.3) == {100: 1.0, 1000: 2.0, 5000: 3.0}[fitted]
        assert bool(cache.policy.notes) == (length != fitted)


def test_the_original_s_polynomial_is_evaluated_as_it_stands(seed_json: Make) -> None:
    coefficients = (2.0, -3.0, 0.5, 1.0, -0.25)
    cache = TeaCache(9, 0, 5, 0.5, None, KEYS, seed_json({8: coefficients}))
    for x in (0.0, 0.1, 2.0):
        expected = sum(c * x**k for k, c in enumerate(reversed(coefficients)))
        assert cache.policy.curve(x) == pytest.approx(expected)


@pytest.mark.parametrize("configs", [IDENTITY, [IDENTITY], (IDENTITY, TeaCacheConfig(0, (9.0,), 999))])
def test_fits_may_be_given_instead_of_a_file(configs: Any) -> None:
    assert reused(TeaCache(9, threshold=0.5, configs=configs), 4) == [1, 2]


@pytest.mark.parametrize("configs", [[], [TeaCacheConfig()]])
def test_given_fits_need_coefficients(configs: Any) -> None:
    with pytest.raises(InvalidCalibration, match="each with coefficients"):
        TeaCache(9, threshold=0.5, configs=configs)


def test_keys_the_file_does_not_hold_name_the_nearest(seed_json: Make) -> None:
    path = seed_json({8: (1.0, 0.0)})
    for keys, near in ((["mymodle", "function"], "mymodel"), (["mymodel", "functoin"], "mymodel/function")):
        with pytest.raises(UnknownModelKey, match=near):
            TeaCache(9, threshold=0.5, model_keys=keys, cache_path=path)
    with pytest.raises(UnknownModelKey, match="mymodel/function"):
        TeaCache(9, threshold=0.5, model_keys=["mymodel"], cache_path=path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidCalibration, match="speedup_mode=False"):
        TeaCache(9, threshold=0.5, model_keys=KEYS, cache_path=tmp_path / "none.json")


def test_a_file_is_read_once_and_not_again(seed_json: Make, drive: Make) -> None:
    path = seed_json({8: (1.0, 0.0)})
    cache = TeaCache(9, threshold=0.5, model_keys=KEYS, cache_path=path)
    path.unlink()
    assert drive(cache, [ONE] * 4) == [False, True, True, False]


def test_repr_and_summary_show_what_is_applied(seed_json: Make, drive: Make) -> None:
    cache = TeaCache(-1, threshold=0.5, model_keys=KEYS, cache_path=seed_json({8: (1.0, 0.0)}))
    drive(cache, [ONE] * 4, sequence_length=9)
    for part in ("mymodel/function", "threshold 0.5", "'file'", "window=[0, None]", "8×1.00", "1 notes"):
        assert part in repr(cache)
    assert "2 computed, 2 reused of 4 steps (2.00x)" in cache.summary()
    assert max(map(len, cache.summary().splitlines())) <= 80


def test_the_original_s_file_stays_as_it_is_in_speed_mode(seed_json: Make, drive: Make) -> None:
    path = seed_json({8: (1.0, 0.0)})
    before = path.read_bytes()
    drive(TeaCache(9, threshold=0.5, model_keys=KEYS, cache_path=path), [ONE] * 4)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert json.loads(before)["mymodel"]["function"]["8"]["meta_data"]["calibration_size"] == 200
