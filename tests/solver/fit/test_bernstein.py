from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyteacache.solver.fit import bernstein

INCREMENTS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=7)
STARTS = st.floats(0.0, 0.2)
WIDTHS = st.floats(0.01, 2.0)


@given(INCREMENTS, STARTS, WIDTHS)
def test_stored_coefficients_give_the_bernstein_form(increments: list[float], start: float, width: float) -> None:
    control = np.cumsum(increments)
    domain = (start, start + width)
    coefficients = bernstein.to_coefficients(control, domain)
    # Half a unit for storing each coefficient, two for each of Horner's steps and three for x: of the terms, which are large where
    # powers of x cancel, and not of their sum.
    terms = np.polyval(np.abs(coefficients), domain[1])
    unit = np.finfo(float).eps * 4 * len(increments)
    assert bernstein.rounding_error(coefficients, control, domain) <= unit * (1.0 + terms / max(control[-1], 1e-300))


@given(INCREMENTS)
def test_non_negative_increments_never_fall(increments: list[float]) -> None:
    u = np.linspace(0.0, 1.0, 301)
    values = bernstein.increasing_basis(u, len(increments) - 1) @ np.array(increments)
    assert np.all(np.diff(values) >= -1e-12)
    assert np.all(values >= 0.0)


@pytest.mark.parametrize("order", range(7))
def test_the_basis_adds_up_to_one(order: int) -> None:
    u = np.linspace(0.0, 1.0, 11)
    assert bernstein.basis(u, order).sum(axis=1) == pytest.approx(1.0)


def test_a_straight_line_keeps_its_coefficients() -> None:
    control = np.array([3.0 * 0.1 + 1.0, 3.0 * 0.4 + 1.0])
    assert bernstein.to_coefficients(control, (0.1, 0.4)) == pytest.approx((3.0, 1.0))
