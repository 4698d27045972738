"""Matched noise: the coordinate, matched shifts, and what is carried by them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from easyteacache.errors import InvalidPlan
from easyteacache.policy import matched_noise as mn
from easyteacache.policy.carry import carried, shifted_levels
from easyteacache.policy.curves import SigmaProfile

LEMICA = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 18, 21, 25, 29, 34, 38, 42, 45, 47, 48, 49)


def test_coordinate_is_the_log_ratio_less_half_the_log_length() -> None:
    assert mn.matched_noise(0.5, 256) == 0.0
    assert mn.matched_noise(0.75, 1024) == pytest.approx(math.log(3.0) - 0.5 * math.log(4.0))
    assert mn.matched_noise(1.0, 99) == math.inf
    assert mn.matched_noise(0.0, 99) == -math.inf


@pytest.mark.parametrize("sigma", [0.0, 1e-9, 0.2, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("length", [1, 64, 256, 32_760])
def test_noise_level_inverts_the_coordinate(sigma: float, length: int) -> None:
    assert mn.noise_level(mn.matched_noise(sigma, length), length) == pytest.approx(sigma, rel=1e-12, abs=1e-300)


def test_first_level_of_a_run_may_be_rounded_to_just_above_one() -> None:
    levels = shifted_levels(50, 0.2)
    assert levels[0] > 1.0
    assert mn.matched_noise(levels[0], 256) == math.inf
    assert mn.carry_plan(LEMICA, levels, levels, sequence_length=256, to=256) == LEMICA


def test_coordinates_far_out_give_levels_at_the_ends_without_overflow() -> None:
    assert mn.noise_level(800.0, 256) == 1.0
    assert mn.noise_level(-800.0, 256) == pytest.approx(0.0, abs=1e-300)


def test_matched_shift_falls_with_the_root_of_the_length() -> None:
    assert mn.matched_shift(3.0, 576, to=256) == pytest.approx(2.0)
    assert mn.matched_shift(5.0, 32_760) == pytest.approx(5.0 * math.sqrt(256 / 32_760))
    assert mn.matched_shift(mn.matched_shift(3.0, 576), 256, to=576) == pytest.approx(3.0)


def test_levels_of_matched_shifts_are_carried_onto_each_other() -> None:
    long, short = shifted_levels(50, 3.0), shifted_levels(50, mn.matched_shift(3.0, 576, to=256))
    assert [mn.carried_level(sigma, 576, to=256) for sigma in long] == pytest.approx(list(short))


def test_profile_is_carried_along_its_noise_axis_alone() -> None:
    profile = SigmaProfile((1.0, 0.5, 0.0), (0.0, 1.0, 3.0))
    moved = mn.carry_profile(profile, 256, to=1024)
    assert moved.sigmas == pytest.approx((1.0, 2.0 / 3.0, 0.0))
    assert moved.distances == profile.distances
    assert mn.carry_profile(profile, 256, to=256).sigmas == pytest.approx(profile.sigmas)
    assert mn.carry_profile(profile, 256, to=1024, exponent=0.0).sigmas == pytest.approx(profile.sigmas)


def test_plan_is_its_own_at_the_matched_shift() -> None:
    matched = shifted_levels(50, mn.matched_shift(5.0, 1024))
    found = mn.carry_plan(LEMICA, shifted_levels(50, 5.0), matched, sequence_length=1024, to=256)
    assert found == LEMICA


def test_plan_at_the_same_shift_lies_earlier_on_the_longer_sequence() -> None:
    levels = shifted_levels(50, 3.0)
    longer = mn.carry_plan(tuple(range(0, 50, 2)), levels, levels, sequence_length=256, to=4096)
    assert sum(longer) < sum(range(0, 50, 2)) - 25 * 5


def test_plan_is_carried_by_noise_level_alone_without_an_exponent() -> None:
    own, other = shifted_levels(50, 5.0), shifted_levels(30, 3.0)
    found = mn.carry_plan(LEMICA, own, other, sequence_length=256, to=9999, exponent=0.0)
    assert found == carried(LEMICA, own, other)
    assert len(found) == 15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mn.matched_noise(1.5, 256), "noise level"),
        (lambda: mn.matched_noise(math.nan, 256), "noise level"),
        (lambda: mn.matched_noise(0.5, 0), "sequence_length"),
        (lambda: mn.noise_level(math.nan, 256), "coordinate"),
        (lambda: mn.noise_level(0.0, math.nan), "sequence_length"),
        (lambda: mn.carried_level(0.5, 256, to=-1), "sequence_length"),
        (lambda: mn.matched_shift(0.0, 256), "shift"),
        (lambda: mn.matched_shift(math.inf, 256), "shift"),
        (lambda: mn.matched_shift(3.0, 256, to=math.inf), "sequence_length"),
    ],
)
def test_numbers_out_of_range_are_refused(call: Callable[[], float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("computed", [(), (1, 2), (0, 0, 1), (0, 10), (0, 2, 1)])
def test_plans_that_are_none_are_refused(computed: tuple[int, ...]) -> None:
    levels = shifted_levels(10, 3.0)
    with pytest.raises(InvalidPlan, match="computed steps"):
        mn.carry_plan(computed, levels, levels, sequence_length=256, to=256)
