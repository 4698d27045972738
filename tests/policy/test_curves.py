"""The rescale polynomial, blended curves and the sigma profile: exact where they must be, bounded everywhere."""

import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from easyteacache.policy.curves import Blend, Polynomial, SigmaProfile, log_weight
from easyteacache.records.calibration import load
from easyteacache.registry import index

REGISTRY = Path(__file__).parent.parent.parent / "registry"
VALID = Path(__file__).parent.parent / "fixtures" / "records" / "valid"
DISTANCES = [0.0, 1e-9, 0.003, 0.05, 0.1234567, 0.3, 1.0, 1.7]
WAN_1_3B = (2396.76752, -1311.10545, 201.331979, -8.29855975, 0.137887774)

finite = st.floats(-1e3, 1e3)
check = settings(max_examples=200, deadline=None, derandomize=True)


def _published():
    files = [path for _, path in index.record_paths(REGISTRY)] + list(VALID.iterdir())
    for path in sorted(files):
        for bucket in load(path).buckets:
            if bucket.coefficients is not None and path.stem != "extreme-numbers":
                yield pytest.param(bucket.coefficients, id=f"{path.parent.name}/{path.stem}-{bucket.setting}")


@pytest.mark.parametrize("coefficients", list(_published()))
def test_every_list_of_the_registry_is_evaluated_as_numpy_evaluates_it(coefficients):
    curve = Polynomial(coefficients)
    assert [curve(x) for x in DISTANCES] == [float(np.polyval(coefficients, x)) for x in DISTANCES]


@given(st.lists(finite, min_size=1, max_size=8), st.floats(0, 2))
@check
def test_horner_is_within_rounding_of_the_exact_value(coefficients, x):
    exact = sum(Fraction(c) * Fraction(x) ** k for k, c in enumerate(reversed(coefficients)))
    size = sum(abs(Fraction(c)) * Fraction(x) ** k for k, c in enumerate(reversed(coefficients)))
    error = abs(Fraction(Polynomial(tuple(coefficients))(x)) - exact)
    # Higham, Accuracy and Stability of Numerical Algorithms, section 5.1: at most 2n unit roundoffs of the sum of sizes.
    assert error <= 2 * len(coefficients) * Fraction(2) ** -53 * size + Fraction(2) ** -1000


@pytest.mark.parametrize("x", [0.0, 0.5, 100.0, -3.0])
def test_order_0_is_a_constant(x):
    assert Polynomial((0.25,))(x) == 0.25


def test_without_a_domain_numbers_are_evaluated_exactly_as_published():
    wan = Polynomial(WAN_1_3B)
    assert wan(0.0) == 0.137887774
    assert Polynomial((-5.0,))(1.0) == -5.0
    assert wan(5.0) == np.polyval(WAN_1_3B, 5.0)


@pytest.mark.parametrize(("post", "expected"), [("none", -2.0), ("abs", 2.0), ("clip", 0.0)])
def test_the_sources_own_treatment_of_negative_values_is_kept(post, expected):
    assert Polynomial((1.0, -3.0), post=post)(1.0) == expected


@given(st.lists(finite, min_size=1, max_size=6), st.floats(-10, 10))
@check
def test_outside_its_domain_a_curve_stays_at_the_ends_and_never_falls_below_zero(coefficients, x):
    curve = Polynomial(tuple(coefficients), domain=(0.1, 0.4))
    bare = Polynomial(tuple(coefficients))
    nearest = min(max(x, 0.1), 0.4)
    assert curve(x) == max(bare(nearest), 0.0)
    assert curve(-1.0) == curve(0.1)
    assert curve(math.inf) == curve(0.4)


def test_abs_is_applied_after_the_domain_and_needs_no_floor():
    assert Polynomial((1.0, -1.0), domain=(0.0, 0.5), post="abs")(9.0) == 0.5


def test_a_distance_that_is_no_number_gives_no_number_instead_of_a_plausible_one():
    for curve in (
        Polynomial((1.0, 2.0)),
        Polynomial((1.0, 2.0), domain=(0.0, 1.0)),
        Polynomial((1.0, 2.0), post="clip"),
        Blend(Polynomial((1.0, 2.0), domain=(0.0, 1.0)), Polynomial((3.0, 1.0), domain=(0.0, 1.0)), 0.5),
    ):
        assert math.isnan(curve(math.nan))


def test_a_blend_at_its_ends_is_one_curve_and_between_them_a_mean():
    lower, upper = Polynomial((1.0, 0.0)), Polynomial((3.0, 1.0))
    for x in DISTANCES:
        assert Blend(lower, upper, 0.0)(x) == lower(x)
        assert Blend(lower, upper, 1.0)(x) == upper(x)
        assert Blend(lower, upper, 0.25)(x) == pytest.approx(0.75 * lower(x) + 0.25 * upper(x), rel=1e-15)


def test_each_curve_of_a_blend_keeps_its_own_domain():
    lower = Polynomial((10.0, 0.0), domain=(0.0, 0.1))
    upper = Polynomial((1.0, 0.0), domain=(0.2, 0.3))
    assert Blend(lower, upper, 0.5)(0.5) == pytest.approx((1.0 + 0.3) / 2)
    assert Blend(lower, upper, 0.5)(0.0) == pytest.approx((0.0 + 0.2) / 2)


@given(st.floats(0, 1), st.lists(finite, min_size=1, max_size=4), st.lists(finite, min_size=1, max_size=4))
@check
def test_a_blend_lies_between_its_curves(weight, first, second):
    lower, upper = Polynomial(tuple(first), domain=(0.0, 1.0)), Polynomial(tuple(second), domain=(0.0, 1.0))
    for x in (0.0, 0.4, 1.0):
        low, high = sorted((lower(x), upper(x)))
        assert low - 1e-9 <= Blend(lower, upper, weight)(x) <= high + 1e-9


def test_the_weight_is_linear_in_the_logarithm_of_the_length():
    assert log_weight(1560, lower=1560, upper=32760) == 0.0
    assert log_weight(32760, lower=1560, upper=32760) == 1.0
    assert log_weight(math.sqrt(1560 * 32760), lower=1560, upper=32760) == pytest.approx(0.5)
    # Twice the length is the same step of weight wherever it starts: log 2 of log 8.
    steps = [log_weight(2.0**k, lower=1, upper=8) for k in range(4)]
    assert steps == pytest.approx([0, 1 / 3, 2 / 3, 1])


@given(st.lists(st.integers(1, 10**8), min_size=3, max_size=3, unique=True))
@check
def test_the_weight_of_a_length_between_two_buckets_lies_between_0_and_1(lengths):
    lower, length, upper = sorted(lengths)
    assert 0.0 <= log_weight(length, lower=lower, upper=upper) <= 1.0


PROFILE = SigmaProfile(sigmas=(1.0, 0.75, 0.4, 0.0), distances=(0.0, 0.2, 0.2, 0.9))


def test_a_profile_is_exact_at_its_knots_and_linear_between_them():
    assert [PROFILE(sigma) for sigma in PROFILE.sigmas] == list(PROFILE.distances)
    assert PROFILE(0.875) == pytest.approx(0.1)
    assert PROFILE(0.5) == 0.2
    assert PROFILE(0.1) == pytest.approx(0.2 + 0.75 * 0.7)


def test_a_profile_is_constant_beyond_its_ends():
    assert (PROFILE(2.0), PROFILE(-1.0)) == (0.0, 0.9)


def test_the_distance_of_a_step_is_what_accumulates_between_its_ends_and_never_negative():
    assert PROFILE.between(1.0, 0.0) == 0.9
    assert PROFILE.between(0.75, 0.4) == 0.0
    assert PROFILE.between(0.4, 0.75) == 0.0
    steps = [1.0, 0.9, 0.6, 0.3, 0.2, 0.0]
    total = sum(PROFILE.between(before, after) for before, after in pairwise(steps))
    assert total == pytest.approx(0.9)


@st.composite
def profiles(draw):
    sigmas = draw(st.lists(st.floats(0, 100), min_size=2, max_size=12, unique=True))
    distances = draw(st.lists(st.floats(0, 10), min_size=len(sigmas), max_size=len(sigmas)))
    return SigmaProfile(tuple(sorted(sigmas, reverse=True)), tuple(sorted(distances)))


@given(profiles(), st.lists(st.floats(0, 120), min_size=2, max_size=20))
@example(SigmaProfile((1.0, 0.0), (1.2245252670853168, 5.262047093921745)), [0.0, 1e-45])
@check
def test_any_profile_is_exact_at_its_knots_and_never_rises_with_sigma(profile, asked):
    assert [profile(sigma) for sigma in profile.sigmas] == list(profile.distances)
    values = [profile(sigma) for sigma in sorted([*asked, *profile.sigmas], reverse=True)]
    assert values == sorted(values)
    assert profile.distances[0] <= min(values)
    assert max(values) <= profile.distances[-1]
