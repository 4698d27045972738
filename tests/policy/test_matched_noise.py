"""Matched noise: the coordinate, matched shifts, and what is carried by them."""

from __future__ import annotations

import math

import pytest

from easyteacache.policy import matched_noise as mn
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


def test_coordinates_far_out_give_levels_at_the_ends_without_overflow() -> None:
    assert mn.noise_level(800.0, 256) == 1.0
    assert mn.noise_level(-800.0, 256) == pytest.approx(0.0, abs=1e-300)


def test_matched_shift_falls_with_the_root_of_the_length() -> None:
    assert mn.matched_shift(3.0, 576, to=256) == pytest.approx(2.0)
    assert mn.matched_shift(5.0, 32_760) == pytest.approx(5.0 * math.sqrt(256 / 32_760))
    assert mn.matched_shift(mn.matched_shift(3.0, 576), 256, to=576) == pytest.approx(3.0)


def test_levels_of_matched_shifts_are_carried_onto_each_other() -> None:
    long, short = mn.flow_levels(3.0, 50), mn.flow_levels(mn.matched_shift(3.0, 576, to=256), 50)
    assert [mn.carried_level(sigma, 576, to=256) for sigma in long] == pytest.approx(list(short))


def test_flow_levels_run_from_noise_to_data() -> None:
    assert mn.flow_levels(1.0, 4) == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert mn.flow_levels(3.0, 2) == (1.0, 0.75, 0.0)


def test_profile_is_carried_along_its_noise_axis_alone() -> None:
    profile = SigmaProfile((1.0, 0.5, 0.0), (0.0, 1.0, 3.0))
    carried = mn.carry_profile(profile, 256, to=1024)
    assert carried.sigmas == pytest.approx((1.0, 2.0 / 3.0, 0.0))
    assert carried.distances == profile.distances
    assert mn.carry_profile(profile, 256, to=256).sigmas == pytest.approx(profile.sigmas)
    assert mn.carry_profile(profile, 256, to=1024, exponent=0.0).sigmas == pytest.approx(profile.sigmas)


def test_plan_is_its_own_at_the_matched_shift() -> None:
    carried = mn.carry_plan(
        LEMICA,
        levels=mn.flow_levels(5.0, 50),
        sequence_length=32_760,
        to_levels=mn.flow_levels(mn.matched_shift(5.0, 32_760), 50),
        to_length=256,
    )
    assert carried == LEMICA


def test_plan_carried_to_fewer_steps_keeps_its_speedup_and_its_shape() -> None:
    levels = mn.flow_levels(5.0, 50)
    carried = mn.carry_plan(
        LEMICA, levels=levels, sequence_length=256, to_levels=mn.flow_levels(5.0, 30), to_length=256
    )
    assert len(carried) == 15
    assert carried[0] == 0
    assert sum(step < 9 for step in carried) > sum(step >= 21 for step in carried)


def test_plan_carried_to_a_larger_shift_turns_later() -> None:
    early, late = mn.flow_levels(0.35, 50), mn.flow_levels(3.0, 50)
    carried = mn.carry_plan(LEMICA, levels=early, sequence_length=256, to_levels=late, to_length=256, count=17)
    assert len(carried) == 17
    assert sum(carried) / 17 > sum(LEMICA) / 25 + 5


@pytest.mark.parametrize("count", [1, 2, 9, 10])
def test_any_number_of_computed_steps_can_be_asked_for(count: int) -> None:
    levels = mn.flow_levels(3.0, 10)
    carried = mn.carry_plan(
        (0, 1, 2), levels=levels, sequence_length=64, to_levels=levels, to_length=9_999, count=count
    )
    assert len(set(carried)) == count
    assert carried[0] == 0
    assert list(carried) == sorted(carried)
    assert carried[-1] < 10


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ((0.0, 0.2, 0.4), (0, 1, 2)),
        ((0.0, 4.4, 4.6), (0, 3, 4)),
        ((0.0, 1.6, 4.9), (0, 2, 4)),
        ((0.7, 0.8, 3.0), (0, 1, 3)),
    ],
)
def test_places_are_rounded_to_different_steps(places: tuple[float, ...], expected: tuple[int, ...]) -> None:
    assert mn.distinct_steps(places, 5) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mn.matched_noise(1.5, 256), "noise level"),
        (lambda: mn.matched_noise(math.nan, 256), "noise level"),
        (lambda: mn.matched_noise(0.5, 0), "sequence_length"),
        (lambda: mn.matched_shift(0.0, 256), "shift"),
        (lambda: mn.matched_shift(3.0, 256, to=math.inf), "sequence_length"),
        (lambda: mn.flow_levels(-1.0, 10), "shift"),
        (lambda: mn.flow_levels(3.0, 0), "num_steps"),
    ],
)
def test_numbers_out_of_range_are_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("computed", [(), (1, 2), (0, 0, 1), (0, 10), (0, 2, 1)])
def test_plans_that_are_none_are_refused(computed: tuple[int, ...]) -> None:
    levels = mn.flow_levels(3.0, 10)
    with pytest.raises(ValueError, match="computed steps"):
        mn.carry_plan(computed, levels=levels, sequence_length=256, to_levels=levels, to_length=256)


@pytest.mark.parametrize("levels", [(1.0,), (1.0, 1.0, 0.0), (0.0, 1.0), (2.0, 1.0, 0.0), (1.0, -0.1)])
def test_levels_that_do_not_fall_from_one_to_zero_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="noise level"):
        mn.carry_plan((0,), levels=levels, sequence_length=256, to_levels=(1.0, 0.5, 0.0), to_length=256)


@pytest.mark.parametrize("count", [0, 11])
def test_more_steps_than_there_are_are_refused(count: int) -> None:
    levels = mn.flow_levels(3.0, 10)
    with pytest.raises(ValueError, match="1 to 10"):
        mn.carry_plan((0,), levels=levels, sequence_length=256, to_levels=levels, to_length=256, count=count)
