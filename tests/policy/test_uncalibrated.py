"""The universal plan: exact for its profile, early on real models' settings, late where a small model runs at a large shift."""

from __future__ import annotations

import itertools
import math

import pytest

from easyteacache.policy import uncalibrated
from easyteacache.policy.carry import shifted_levels
from easyteacache.policy.uncalibrated import even_plan, least_error_plan, universal_plan

#: LeMiCa's plans of Wan2.1-T2V-14B (arXiv 2511.00090), UniPC at shift 5, 50 steps.
LEMICA_25 = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 18, 21, 25, 29, 34, 38, 42, 45, 47, 48, 49)
LEMICA_17 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 12, 16, 22, 29, 36, 43, 47, 49)
WAN = shifted_levels(50, 5.0)
WAN_TOKENS = 32_760


def apart(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def linear_error(outputs: list[list[float]], weights: list[float], plan: tuple[int, ...]) -> float:
    """Sum over segments of ‖Σ weight · (forecast − output)‖ to the power that plans are searched with, by brute force."""
    total = 0.0
    for position, (last, end) in enumerate(zip(plan, (*plan[1:], len(outputs)), strict=True)):
        missed = [0.0] * len(outputs[0])
        for step in range(last + 1, end):
            for axis, known in enumerate(outputs[last]):
                slope = 0.0
                if position:
                    before = plan[position - 1]
                    slope = (known - outputs[before][axis]) / (last - before)
                missed[axis] += weights[step] * (known + slope * (step - last) - outputs[step][axis])
        total += math.hypot(*missed) ** uncalibrated.POWER
    return total


def test_plan_is_the_best_of_all_plans() -> None:
    outputs = [[math.sin(0.9 * step), 0.1 * step * step, math.exp(-step)] for step in range(10)]
    weights = [-0.1 * (1 + 0.3 * step) for step in range(10)]
    for computed in range(3, 10):
        plans = [(0, *rest) for rest in itertools.combinations(range(1, 10), computed - 1)]
        best = min(linear_error(outputs, weights, plan) for plan in plans)
        found = least_error_plan(outputs, weights, computed)
        assert linear_error(outputs, weights, found) == pytest.approx(best)


@pytest.mark.parametrize(("computed", "published"), [(25, LEMICA_25), (17, LEMICA_17)])
def test_plan_for_wan_is_like_the_published_one(computed: int, published: tuple[int, ...]) -> None:
    found = universal_plan(WAN, WAN_TOKENS, computed)
    assert apart(found, published) < 2.5 < apart(even_plan(50, computed), published)


def test_plan_turns_late_where_a_small_model_runs_at_a_large_shift() -> None:
    small = universal_plan(shifted_levels(50, 3.0), 64, 17, values=4)
    assert sum(step >= 25 for step in small) > sum(step < 25 for step in small)
    real = universal_plan(shifted_levels(50, 3.0), 4096, 17)
    assert sum(step < 25 for step in real) > sum(step >= 25 for step in real)


def test_a_longer_sequence_computes_earlier_steps() -> None:
    levels = shifted_levels(50, 3.0)
    centres = [sum(universal_plan(levels, tokens, 20)) for tokens in (16, 64, 256, 1024)]
    assert centres == sorted(centres, reverse=True)


def test_what_counts_is_tokens_times_what_they_stand_for() -> None:
    levels = shifted_levels(40, 3.0)
    assert universal_plan(levels, 4096, 16, values=4) == universal_plan(levels, 256, 16, values=64)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 25, 50, 100])
@pytest.mark.parametrize("shift", [0.2, 1.0, 12.0])
def test_any_number_of_steps_can_be_computed(steps: int, shift: float) -> None:
    for computed in {1, 2, steps // 3, steps // 2, steps - 1, steps} & set(range(1, steps + 1)):
        found = universal_plan(shifted_levels(steps, shift), 4096, computed)
        assert found[0] == 0
        assert len(found) == computed
        assert list(found) == sorted(set(found))
        assert found[-1] < steps


@pytest.mark.parametrize("computed", [2, 50, 333, 999, 1000])
def test_long_runs_are_planned_too(computed: int) -> None:
    found = universal_plan(shifted_levels(1000, 3.0), 4096, computed)
    assert len(set(found)) == computed
    assert found[0] == 0
    assert found[-1] < 1000


def test_no_gap_is_longer_than_the_limit() -> None:
    for computed in (12, 17, 25):
        found = universal_plan(WAN, WAN_TOKENS, computed)
        longest = max(after - before for before, after in itertools.pairwise((*found, 50)))
        assert longest <= math.ceil(uncalibrated.LONGEST_GAP * 50 / computed)


def test_levels_at_both_ends_of_the_axis_are_fine() -> None:
    assert universal_plan((1.0, 1.0 - 1e-16, 0.5, 1e-300, 0.0), 4096, 3)[0] == 0
    assert len(universal_plan((1.0, 0.5, 0.0), 10**9, 2)) == 2


@pytest.mark.parametrize(
    ("levels", "tokens", "computed", "message"),
    [
        ((1.0, 0.5, 0.0), 256, 0, "1 to 2"),
        ((1.0, 0.5, 0.0), 256, 3, "1 to 2"),
        ((1.0, 1.0, 0.0), 256, 1, "fall within"),
        ((1.0, math.nan, 0.0), 256, 1, "fall within"),
        ((2.0, 1.0, 0.0), 256, 1, "fall within"),
        ((1.0, 0.5, -0.1), 256, 1, "fall within"),
        ((1.0, 0.5, 0.0), 0, 1, "sequence_length"),
        ((1.0,), 256, 1, "1 to 0"),
        ((), 256, 1, "computed"),
    ],
)
def test_what_is_no_run_is_refused(levels: tuple[float, ...], tokens: int, computed: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        universal_plan(levels, tokens, computed)


def test_even_plan_spaces_its_steps_evenly() -> None:
    assert even_plan(10, 5) == (0, 2, 4, 6, 8)
    assert even_plan(7, 7) == tuple(range(7))
    for steps, computed in ((50, 17), (30, 29), (9, 4)):
        gaps = {after - before for before, after in itertools.pairwise((*even_plan(steps, computed), steps))}
        assert max(gaps) - min(gaps) <= 1
    with pytest.raises(ValueError, match="1 to 4"):
        even_plan(4, 5)
