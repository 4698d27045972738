"""What a user must notice is a warning: once a cache and reason, at the caller's own line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from easyteacache import TeaCache
from easyteacache.errors import EasyTeaCacheWarning
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.source import FixedPolicy
from easyteacache.runtime.notices import speedup_apart
from easyteacache.runtime.session import Session

Make = Callable[..., Any]
SAME = torch.ones(1, 6, 4)


@pytest.fixture
def asking(make_policy: Make) -> Callable[..., TeaCache]:
    """A cache that was asked for twice the speed, whatever its policy does."""

    def make(**changes: Any) -> TeaCache:
        policy = make_policy(num_steps=20, **changes)
        return TeaCache(-1, _session=Session(FixedPolicy(policy), Request(speedup=2.0), RunContext(num_steps=20)))

    return make


@pytest.mark.parametrize(
    ("computed", "told"),
    [(range(0, 20, 2), False), ((0, 10), True), (range(8), False), (range(7), True), (range(20), True)],
)
def test_another_speed_up_than_was_asked_for_is_told_at_the_end_of_the_run(
    asking: Make, drive: Make, computed: Any, told: bool
) -> None:
    cache = asking(schedule=tuple(computed))
    if not told:
        drive(cache, [SAME] * 20)
        return
    with pytest.warns(EasyTeaCacheWarning, match=r"a speed-up of 2 was asked for, and the run reached \d"):
        drive(cache, [SAME] * 20)
    # Once a cache.
    drive(cache, [SAME] * 20)


def test_a_run_that_was_broken_off_says_nothing_of_the_speed_up(asking: Make, drive: Make) -> None:
    cache = asking(schedule=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
    drive(cache, [SAME] * 10)
    cache.clear_cache()


def test_what_applies_to_nothing_is_told_once_and_of_the_speed_up_nothing_more(asking: Make, drive: Make) -> None:
    cache = asking(threshold=0.0, refusal="Nothing holds.", warnings=("Nothing holds.",))
    with pytest.warns(EasyTeaCacheWarning, match="^toy: Nothing holds\\.$"):
        drive(cache, [SAME] * 20)
    drive(cache, [SAME] * 20)


def test_a_threshold_under_which_nothing_could_be_reused_is_told_of(drive: Make) -> None:
    """Wan2.1's polynomial is below 0 at distances of 0.12 to 0.33."""
    cache = TeaCache.from_registry("wan2.1/t2v-14b", threshold=0.2, num_steps=20)
    signals = [torch.full((1, 6, 4), 1.2**step) for step in range(20)]
    with pytest.warns(EasyTeaCacheWarning, match=r"no step of the run was reused: at \d+ of its 20 forwards"):
        drive(cache, signals)
    assert cache.current_speedup_rate() == 1.0
    drive(cache, signals)


def test_two_caches_each_say_it_and_so_does_a_copy(asking: Make, drive: Make) -> None:
    import copy

    first = asking(warnings=("Mind.",), schedule=tuple(range(0, 20, 2)))
    for cache in (first, copy.deepcopy(first)):
        with pytest.warns(EasyTeaCacheWarning, match="toy: Mind"):
            drive(cache, [SAME] * 20)


def test_a_warning_points_outside_this_package(asking: Make) -> None:
    cache = asking(warnings=("Mind.",))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache.check(0, SAME)
    assert [one.filename for one in caught] == [__file__]


def test_warnings_as_errors_stop_a_run_at_its_first_step(asking: Make) -> None:
    cache = asking(warnings=("Mind.",))
    with warnings.catch_warnings():
        warnings.simplefilter("error", EasyTeaCacheWarning)
        with pytest.raises(EasyTeaCacheWarning, match="Mind"):
            cache.check(0, SAME)


@pytest.mark.parametrize(("reached", "apart"), [(2.0, False), (2.5, False), (2.51, True), (1.6, False), (1.59, True)])
def test_a_quarter_more_or_less_is_what_was_asked_for(reached: float, apart: bool) -> None:
    assert speedup_apart(2.0, reached) == apart
