"""What tensors, noise levels and coordinates may be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from easyteacache.errors import InvalidCalibration, InvalidSignal
from easyteacache.policy.curves import Polynomial, SigmaProfile
from easyteacache.runtime.branch_state import BranchState
from easyteacache.teacache import TeaCache

Make = Callable[..., Any]
ONE = torch.ones(1, 6, 4)
LATENT = torch.zeros(1, 8, 4)


def start(cache: TeaCache, latent: torch.Tensor = LATENT, *, signal: torch.Tensor = ONE) -> TeaCache:
    cache.check(0, signal)
    cache.store_truth(0, signal, latent, latent + 1)
    return cache


# Shapes, number types, devices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_floating_dtype_keeps_its_dtype(make_cache: Make, dtype: torch.dtype, batch: int) -> None:
    latent = torch.randn(batch, 8, 4).to(dtype)
    signal = torch.rand(batch, 6, 4).to(dtype) + 1
    cache = make_cache(threshold=9.0, forecaster="quadratic")
    for step in range(3):
        cache.store_truth(step, signal, latent, latent * (2 + step))
    assert cache.check(3, signal * 1.01)
    output = cache.update(signal, latent)
    assert output.dtype == dtype
    assert torch.allclose(output, latent * 5, rtol=4 * torch.finfo(dtype).eps, atol=1e-2 if dtype.itemsize == 2 else 0)


def test_a_batch_gets_one_decision_from_its_mean_change(make_cache: Make, drive: Make) -> None:
    before = torch.ones(2, 6, 4)
    after = before.clone()
    after[1] += 0.4
    cache = make_cache(threshold=0.25)
    assert drive(cache, [before, after]) == [False, True]
    assert cache.statistics()["default"].distances[1] == pytest.approx(0.2)


@pytest.mark.parametrize(
    "changed",
    [torch.ones(2, 6, 4), torch.ones(1, 6, 5), ONE.double(), ONE.half(), torch.ones(1, 6, 4, device="meta")],
    ids=["batch", "width", "double", "half", "device"],
)
def test_another_shape_dtype_or_device_of_the_signal_computes(make_cache: Make, changed: torch.Tensor) -> None:
    cache = start(make_cache(threshold=9.0))
    assert not cache.check(1, changed)
    cache.store_truth(1, changed, LATENT, LATENT + 2)
    assert cache.statistics()["default"].steps[-1].reason == "changed"


def test_after_a_change_of_the_signal_reuse_goes_on_with_the_new_one(make_cache: Make) -> None:
    cache = start(make_cache(threshold=9.0))
    double = ONE.double()
    assert not cache.check(1, double)
    cache.store_truth(1, double, LATENT, LATENT + 2)
    assert cache.check(2, double)
    assert cache.update(double, LATENT).unique().tolist() == [2.0]


def test_signals_without_numbers_compute(make_cache: Make, drive: Make) -> None:
    cache = make_cache(threshold=9.0)
    assert not any(drive(cache, [torch.ones(1, 6, 4, device="meta")] * 3))
    assert [record.reason for record in cache.statistics()["default"].steps] == ["start", *["unpredictable"] * 2]


@pytest.mark.parametrize(
    "latent",
    [torch.zeros(1, 9, 4), torch.zeros(2, 8, 4), LATENT.double(), torch.zeros(1, 8, 4, device="meta")],
    ids=["length", "batch", "dtype", "device"],
)
def test_reusing_for_another_latent_is_an_error_and_the_step_may_still_be_computed(
    make_cache: Make, latent: torch.Tensor
) -> None:
    cache = start(make_cache(threshold=9.0))
    assert cache.check(1, ONE)
    with pytest.raises(InvalidSignal, match=r"hidden_states: shape .* Pass sequence_length= to check\(\)"):
        cache.update(ONE, latent)
    cache.store_truth(1, ONE, latent, latent + 3)
    assert cache.check(2, ONE)
    assert cache.update(ONE, latent).shape == latent.shape


def test_residuals_of_another_latent_never_enter_a_forecast(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0, forecaster="linear")
    short, long = torch.zeros(1, 4, 4), torch.zeros(1, 6, 4)
    cache.store_truth(0, ONE, short, short + 100)
    cache.store_truth(1, ONE, long, long + 1)
    assert cache.check(2, ONE)
    assert cache.update(ONE, long).unique().tolist() == [1.0]


def test_blocks_that_return_a_wider_dtype_are_filled_in_it(make_cache: Make) -> None:
    latent = torch.zeros(1, 8, 4, dtype=torch.bfloat16)
    cache = make_cache(threshold=9.0)
    cache.store_truth(0, ONE, latent, latent.float() + 0.1)
    assert cache.check(1, ONE)
    output = cache.update(ONE, latent)
    assert (output.dtype, output[0, 0, 0].item()) == (torch.float32, pytest.approx(0.1))


def test_input_and_output_of_the_blocks_must_match(make_cache: Make) -> None:
    for output in (torch.zeros(1, 9, 4), torch.zeros(1, 8, 4, device="meta")):
        with pytest.raises(InvalidSignal, match="does not match input_latent"):
            make_cache().store_truth(0, ONE, LATENT, output)


@pytest.mark.parametrize("bad", [None, 3.0, [[1.0]], torch.zeros(0, 4), torch.ones(2, dtype=torch.complex64)])
def test_what_is_no_usable_tensor_is_refused_by_name(make_cache: Make, bad: Any) -> None:
    cache = start(make_cache(threshold=9.0))
    for name, call in {
        "t_mod": lambda: cache.check(1, bad),
        "input_latent": lambda: cache.store_truth(1, ONE, bad, LATENT),
        "output_latent": lambda: cache.store_truth(1, ONE, LATENT, bad),
    }.items():
        with pytest.raises(InvalidSignal, match=f"{name}: "):
            call()
    assert cache.check(1, ONE)
    with pytest.raises(InvalidSignal, match="hidden_states: "):
        cache.update(ONE, bad)
    assert cache.update(ONE, LATENT).unique().tolist() == [1.0]


def test_whole_numbers_are_no_latents_but_may_be_signals(make_cache: Make, drive: Make) -> None:
    with pytest.raises(InvalidSignal, match="expected floating-point numbers"):
        make_cache().store_truth(0, ONE, LATENT.long(), LATENT.long())
    assert drive(make_cache(threshold=0.15), [torch.full((2,), t) for t in (1000, 980, 960, 700)]) == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("curve", [Polynomial((1.0, 0.0)), Polynomial((-1.0, 0.0)), Polynomial((1.0, 0.0), (0.0, 1.0))])
def test_a_signal_that_is_not_finite_computes(make_cache: Make, drive: Make, bad: float, curve: Polynomial) -> None:
    broken = ONE.clone()
    broken[0, 0, 0] = bad
    cache = make_cache(threshold=9.0, curve=curve)
    assert drive(cache, [ONE, broken, broken, ONE, ONE]) == [False, False, False, False, True]


def test_a_change_from_all_zeros_computes_and_none_at_all_reuses(make_cache: Make, drive: Make) -> None:
    zero = torch.zeros(1, 6, 4)
    assert drive(make_cache(threshold=9.0), [zero, zero, ONE, ONE]) == [False, True, False, True]


# Axes and profiles ----------------------------------------------------------------------------------------------------


def test_a_profile_decides_by_noise_levels(make_cache: Make) -> None:
    profile = SigmaProfile((1.0, 0.5, 0.0), (0.0, 0.1, 1.1))
    cache = make_cache(threshold=0.25, profile=profile, curve=Polynomial((100.0,)))
    reused = []
    for step, sigma in enumerate([1.0, 0.75, 0.5, 0.45, 0.4, 0.35]):
        reused.append(cache.check(step, ONE, sigma=sigma))
        cache.update(ONE, LATENT) if reused[-1] else cache.store_truth(step, ONE, LATENT, LATENT)
    # 0.05 + 0.05 + 0.1 = 0.2, then 0.3; a computed step starts anew.
    assert reused == [False, True, True, True, False, True]


def test_outside_a_profile_s_noise_levels_everything_computes(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0, profile=SigmaProfile((0.8, 0.2), (0.0, 1.0)))
    reused = []
    for step, sigma in enumerate([1.0, 0.9, 0.8, 0.7, 0.1, 0.05, float("nan")]):
        reused.append(cache.check(step, None, sigma=sigma))
        cache.update(None, LATENT) if reused[-1] else cache.store_truth(step, None, LATENT, LATENT)
    assert reused == [False, False, False, True, False, False, False]


def test_without_noise_levels_the_curve_decides_where_it_holds_and_nothing_elsewhere(
    make_cache: Make, drive: Make
) -> None:
    profile = SigmaProfile((1.0, 0.0), (0.0, 1.0))
    assert drive(make_cache(threshold=9.0, profile=profile), [ONE] * 3) == [False, True, True]
    cache = make_cache(threshold=9.0, profile=profile, needs_sigma=True)
    assert drive(cache, [ONE] * 3) == [False] * 3
    assert cache.statistics()["default"].steps[-1].reason == "unpredictable"


def test_a_distance_that_is_known_without_the_signal_is_taken_where_the_curve_holds(make_policy: Make) -> None:
    for changes, admitted in (({}, True), ({"needs_sigma": True}, False), ({"curve": Polynomial((10.0,))}, False)):
        state = BranchState("b", make_policy(threshold=9.0, **changes))
        state.store_residual(0, None, LATENT)
        assert state.check(1, None, distance=0.5) is admitted
    state = BranchState("b", make_policy(threshold=9.0))
    state.store_residual(0, None, LATENT)
    assert not state.check(1, None, distance=float("nan"))
    assert not state.check(1, None)


@pytest.mark.parametrize("axis", ["timestep", "sigma"])
def test_a_forecast_along_another_axis_needs_it(make_cache: Make, axis: str) -> None:
    cache = make_cache(schedule=(0, 1), coordinate=axis, forecaster="linear")
    cache.check(0, None)
    with pytest.raises(InvalidSignal, match=f"{axis}: is None; the predictor 'linear' extrapolates along it: pass"):
        cache.store_truth(0, None, LATENT, LATENT)
    for step, place in enumerate([10.0, 8.0, 2.0]):
        skip = cache.check(step, None, sigma=place if axis == "sigma" else None)
        time = place if axis == "timestep" else None
        if not skip:
            cache.store_truth(step, None, LATENT, LATENT + place, timestep=time)
            continue
        with pytest.raises(InvalidSignal, match="timestep") if axis == "timestep" else nullcontext():
            cache.update(None, LATENT)
        if axis == "timestep":
            assert cache.update(None, LATENT, time).unique().tolist() == [2.0]


def test_a_sampler_that_turns_back_is_held_and_not_extrapolated(make_cache: Make) -> None:
    cache = make_cache(schedule=(0, 1, 3), coordinate="timestep", forecaster="quadratic")
    for step, time in enumerate([900.0, 800.0, 850.0, 800.0, 700.0]):
        if cache.check(step, None):
            assert cache.update(None, LATENT, time).unique().tolist() == [800.0]
        else:
            cache.store_truth(step, None, LATENT, LATENT + time, timestep=time)


def test_the_verbs_refuse_to_forecast_the_model_s_output(make_cache: Make) -> None:
    cache = make_cache(applied_to="output")
    for call in (lambda: cache.check(0, ONE), lambda: cache.store_truth(0, ONE, LATENT, LATENT)):
        with pytest.raises(InvalidCalibration, match=r"use attach\(\)"):
            call()
