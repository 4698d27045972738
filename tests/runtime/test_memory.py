"""What is kept of tensors, for how long, and when the device is waited for."""

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

from easyteacache.policy.curves import SigmaProfile
from easyteacache.runtime.predictors import predictor, predictors
from easyteacache.teacache import TeaCache

Make = Callable[..., Any]
ONE = torch.ones(1, 6, 4)
LATENT = torch.zeros(1, 8, 4)


def start(cache: TeaCache, latent: torch.Tensor = LATENT, *, signal: torch.Tensor = ONE) -> TeaCache:
    cache.check(0, signal)
    cache.store_truth(0, signal, latent, latent + 1)
    return cache


# Autograd, inference mode, in-place changes ---------------------------------------------------------------------------


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
    held = cache.session.known("default")
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
    for name in predictors():
        # Without noise levels, those that need them reuse nothing.
        if predictor(name).needs_levels:
            continue
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


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", predictors())
def test_no_more_residuals_live_than_the_forecaster_looks_at(make_cache: Make, name: str) -> None:
    cache = make_cache(schedule=(0, 1, 2, 3, 4, 5, 8), forecaster=name)
    latent = torch.zeros(1, 8, 4)
    alive: list[weakref.ref[torch.Tensor]] = []
    for step in range(10):
        if cache.check(step, None):
            cache.update(None, latent)
        else:
            cache.store_truth(step, None, latent, latent + step)
            alive.append(weakref.ref(cache.session.known("default")._anchors[-1][1]))
        assert sum(ref() is not None for ref in alive) <= predictor(name).history
        assert cache.nbytes <= predictor(name).history * latent.nbytes
    cache.clear_cache()
    assert all(ref() is None for ref in alive)


def test_room_is_made_before_the_next_residual(make_cache: Make) -> None:
    cache = make_cache(schedule=(0, 1, 2))
    latent, watched = torch.zeros(1, 8, 4), []

    class Watching(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function in (torch.Tensor.__sub__, torch.Tensor.sub, torch.sub):
                watched.append(len(cache.session.known("default")._anchors))
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
        assert cache.session.known("default")._signal is None


def test_the_kept_signal_is_written_over_and_not_made_again(make_cache: Make) -> None:
    cache = make_cache(threshold=9.0)
    places = set()
    for step in range(5):
        if cache.check(step, ONE):
            cache.update(ONE, LATENT)
        else:
            cache.store_truth(step, ONE, LATENT, LATENT)
        places.add(cache.session.known("default")._signal.data_ptr())
    assert len(places) == 1


# Waiting for the device -----------------------------------------------------------------------------------------------


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


# Copies ---------------------------------------------------------------------------------------------------------------


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
