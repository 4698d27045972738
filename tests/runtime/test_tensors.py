"""What tensors may be, what is kept of them, and for how long."""

from __future__ import annotations

import copy
import itertools
import pickle
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from easyteacache.branch import BranchState
from easyteacache.errors import InvalidCalibration, InvalidSignal
from easyteacache.forecast import forecaster, names
from easyteacache.rescale import Polynomial, SigmaProfile
from easyteacache.teacache import TeaCache

Make = Callable[..., Any]
ONE = torch.ones(1, 6, 4)
LATENT = torch.zeros(1, 8, 4)


def start(cache: TeaCache, latent: torch.Tensor = LATENT, *, signal: torch.Tensor = ONE) -> TeaCache:
    cache.check(0, signal)
    cache.store_truth(0, signal, latent, latent + 1)
    return cache


# Shapes, number types, devices ---------------------------------------------------------------------------------------


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


# Autograd, inference mode, in-place changes --------------------------------------------------------------------------


def test_nothing_that_is_kept_holds_an_autograd_graph(make_cache: Make) -> None:
    weight = torch.ones(4, requires_grad=True)
    cache = make_cache(threshold=9.0, forecaster="quadratic", max_consecutive_skips=2)
    saved = []
    for step in range(4):
        # The graph of a product holds on to its factors.
        factor, other = LATENT + 1, ONE + 1
        saved += [weakref.ref(factor), weakref.ref(other)]
        latent, signal = factor * weight, other * weight
        if cache.check(step, signal):
            output = cache.update(signal, latent)
        else:
            output = latent * 2
            cache.store_truth(step, signal, latent, output)
        del factor, other, latent, signal, output
    assert all(factor() is None for factor in saved)
    held = cache._run.known("default")
    assert all(not residual.requires_grad for _, residual in held._anchors)


def test_a_reused_step_lets_gradients_through_its_input(make_cache: Make) -> None:
    cache = start(make_cache(threshold=9.0))
    latent = LATENT.clone().requires_grad_()
    assert cache.check(1, ONE)
    cache.update(ONE, latent).sum().backward()
    assert torch.equal(latent.grad, torch.ones_like(latent))


@pytest.mark.parametrize("modes", list(itertools.product([torch.no_grad, torch.inference_mode, nullcontext], repeat=3)))
def test_modes_may_change_from_step_to_step(make_cache: Make, modes: Any) -> None:
    cache = make_cache(threshold=9.0, forecaster="linear", max_consecutive_skips=2)
    weight = torch.ones(4, requires_grad=True)
    reused = []
    for step, mode in enumerate([*modes, *modes, *modes]):
        with mode():
            signal, latent = ONE * weight, (LATENT + 1) * weight
            if cache.check(step, signal):
                reused.append(step)
                assert torch.allclose(cache.update(signal, latent), 3 * latent)
            else:
                cache.store_truth(step, signal, latent, 3 * latent)
    assert reused == [1, 2, 4, 5, 7, 8]


def test_update_returns_a_new_tensor_and_leaves_its_input_alone(make_cache: Make) -> None:
    for name in names():
        cache = make_cache(threshold=9.0, forecaster=name)
        latent = torch.randn(1, 8, 4)
        for step in range(3):
            cache.store_truth(step, ONE, latent, latent + step)
        before = latent.clone()
        assert cache.check(3, ONE)
        output = cache.update(ONE, latent)
        output.zero_()
        assert torch.equal(latent, before)
        assert cache.check(4, ONE)
        assert not torch.equal(cache.update(ONE, latent), output)


def test_changing_inputs_in_place_after_the_call_changes_nothing(make_cache: Make) -> None:
    cache = make_cache(threshold=0.25)
    signal, latent, output = ONE.clone(), torch.ones(1, 8, 4), torch.full((1, 8, 4), 3.0)
    cache.check(0, signal)
    cache.store_truth(0, signal, latent, output)
    for tensor in (signal, latent, output):
        tensor.fill_(100.0)
    assert cache.check(1, ONE * 1.125)
    assert cache.statistics()["default"].steps[0].distance is None
    filled = cache.update(ONE * 1.125, LATENT)
    assert filled.unique().tolist() == [2.0]
    assert cache.statistics()["default"].distances == (None, 0.125)


def test_a_model_may_overwrite_its_input_buffer_at_every_step(make_cache: Make, signal: Make) -> None:
    fresh, reused_buffer = make_cache(threshold=0.25), make_cache(threshold=0.25)
    buffer, latent = torch.empty(1, 6, 4), torch.empty(1, 8, 4)
    sizes = [1.0, 1.1, 1.2, 1.3, 1.4, 1.6]
    for step, size in enumerate(sizes):
        answers = []
        for cache, t_mod in ((fresh, signal(size)), (reused_buffer, buffer.fill_(size))):
            answers.append(cache.check(step, t_mod))
            if answers[-1]:
                cache.update(t_mod, latent.fill_(0.0))
            else:
                cache.store_truth(step, t_mod, latent.fill_(0.0), latent + step)
        assert answers[0] == answers[1]
    assert fresh.statistics()["default"].pattern == "█··█··"


# Memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_no_more_residuals_live_than_the_forecaster_looks_at(make_cache: Make, name: str) -> None:
    cache = make_cache(schedule=(0, 1, 2, 3, 4, 5, 8), forecaster=name)
    latent = torch.zeros(1, 8, 4)
    alive: list[weakref.ref[torch.Tensor]] = []
    for step in range(10):
        if cache.check(step, None):
            cache.update(None, latent)
        else:
            cache.store_truth(step, None, latent, latent + step)
            alive.append(weakref.ref(cache._run.known("default")._anchors[-1][1]))
        assert sum(ref() is not None for ref in alive) <= forecaster(name).history
        assert cache.nbytes <= forecaster(name).history * latent.nbytes
    cache.clear_cache()
    assert all(ref() is None for ref in alive)


def test_room_is_made_before_the_next_residual(make_cache: Make) -> None:
    cache = make_cache(schedule=(0, 1, 2))
    latent, watched = torch.zeros(1, 8, 4), []

    class Watching(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function in (torch.Tensor.__sub__, torch.Tensor.sub, torch.sub):
                watched.append(len(cache._run.known("default")._anchors))
            return function(*args, **(kwargs or {}))

    for step in range(3):
        with Watching():
            cache.store_truth(step, None, latent, latent)
    assert watched == [0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "sigma"),
    [
        ({"schedule": (0, 2)}, None),
        ({"threshold": 0.0}, None),
        ({"last_skip_step": 0}, None),
        ({"first_skip_step": 9}, None),
        ({"max_consecutive_skips": 0}, None),
        ({"profile": SigmaProfile((1.0, 0.0), (0.0, 1.0))}, 0.9),
        ({"needs_sigma": True}, None),
    ],
    ids=["schedule", "off", "after", "before", "consecutive", "profile", "needs-sigma"],
)
def test_no_signal_is_kept_that_no_answer_can_depend_on(make_cache: Make, changes: Any, sigma: float | None) -> None:
    cache = make_cache(**{"threshold": 9.0, **changes})
    for step in range(3):
        if cache.check(step, ONE, sigma=sigma):
            cache.update(ONE, LATENT)
        else:
            cache.store_truth(step, ONE, LATENT, LATENT + 1)
        assert cache._run.known("default")._signal is None


def test_the_kept_signal_is_written_over_and_not_made_again(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    places = set()
    for step in range(5):
        if cache.check(step, ONE):
            cache.update(ONE, LATENT)
        else:
            cache.store_truth(step, ONE, LATENT, LATENT)
        places.add(cache._run.known("default")._signal.data_ptr())
    assert len(places) == 1


# Waiting for the device ----------------------------------------------------------------------------------------------


class Waits(TorchFunctionMode):
    """Counts the calls that have to wait for a device's result."""

    NAMES = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in self.NAMES:
            self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_waits_once_inside_the_window_and_never_outside(make_cache: Make, dtype: torch.dtype) -> None:
    cache = make_cache(threshold=9.0, first_skip_step=3, last_skip_step=6, max_consecutive_skips=2)
    signal, latent = ONE.to(dtype), LATENT.to(dtype)
    waits = []
    for step in range(9):
        with Waits() as counted:
            skip = cache.check(step, signal)
        waits.append(counted.count)
        with Waits() as counted:
            cache.update(signal, latent) if skip else cache.store_truth(step, signal, latent, latent)
        assert counted.count == 0
    # Step 5 is forced by the longest allowed run.
    assert waits == [0, 0, 0, 1, 1, 0, 1, 0, 0]


def test_a_schedule_and_a_profile_never_wait(make_cache: Make) -> None:
    profile = SigmaProfile((1.0, 0.0), (0.0, 1.0))
    for cache, sigmas in (
        (make_cache(schedule=(0, 3)), [None] * 6),
        (make_cache(threshold=0.35, profile=profile), [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]),
    ):
        with Waits() as counted:
            for step, sigma in enumerate(sigmas):
                if cache.check(step, None, sigma=sigma):
                    cache.update(None, LATENT)
                else:
                    cache.store_truth(step, None, LATENT, LATENT)
        assert counted.count == 0
        assert "·" in cache.statistics()["default"].pattern


# Axes and profiles ---------------------------------------------------------------------------------------------------


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
    with pytest.raises(InvalidSignal, match=f"{axis}: is None; the forecaster 'linear' extrapolates along it: pass"):
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


# Copies --------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))], ids=["deepcopy", "pickle"])
def duplicate(request: pytest.FixtureRequest) -> Callable[[TeaCache], TeaCache]:
    return request.param


def test_a_copy_has_the_settings_and_no_run(make_cache: Make, drive: Make, duplicate: Any) -> None:
    cache = make_cache(threshold=0.25)
    cache.reduce = lambda sums: sums
    sizes = [ONE * size for size in (1.0, 1.1, 1.2, 1.3, 1.4)]
    drive(cache, sizes)
    other = duplicate(cache)
    assert (other.policy, other.nbytes, other.statistics(), other.reduce) == (cache.policy, 0, {}, None)
    drive(other, sizes)
    assert other.statistics() == cache.statistics()
    assert cache.check(5, ONE * 1.45)
    assert cache.nbytes > 0


def test_a_copy_of_a_registry_cache_resolves_for_itself(duplicate: Any) -> None:
    cache = TeaCache.from_registry("wan2.1/t2v-14b", threshold=0.1)
    other = duplicate(cache)
    other.begin_run(num_steps=20, sequence_length=4096)
    assert (other.policy.num_steps, cache.policy.num_steps) == (20, None)
    assert repr(duplicate(cache)) == repr(cache)
