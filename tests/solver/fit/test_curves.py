from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from easyteacache.solver.fit import curves
from easyteacache.solver.fit.points import Points


def pairs(x: np.ndarray, y: np.ndarray, *, runs: int = 1) -> Points:
    run = np.repeat(np.arange(runs), len(x))
    return Points(np.tile(x, runs), np.tile(y, runs), run, np.tile(np.arange(1, len(x) + 1), runs))


X = np.linspace(0.01, 0.16, 60)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("fit", [curves.monotone, curves.chebyshev])
def test_fit_recovers_a_known_rising_polynomial(fit: Callable[..., curves.Fitted], order: int) -> None:
    y = 0.02 + 0.5 * X + 3.0 * X**order
    fitted = fit(pairs(X, y), order)
    assert fitted.predict(X) == pytest.approx(y, rel=1e-5)
    assert len(fitted.coefficients or ()) == order + 1


def test_teacache_is_plain_polyfit_of_degree_four() -> None:
    y = np.sin(20 * X) ** 2
    assert curves.teacache(pairs(X, y)).coefficients == pytest.approx(tuple(np.polyfit(X, y, 4)))


def test_teacache_is_not_floored_because_the_paper_does_not() -> None:
    fitted = curves.teacache(pairs(X, X**2 - 0.01))
    assert fitted.predict(np.array([0.01])).min() < 0
    assert fitted.domain is None


def test_power_law_recovers_its_exponent() -> None:
    fitted = curves.power(pairs(X, 2.0 * X**0.7))
    assert fitted.predict(np.array([0.05, 0.5])) == pytest.approx([2.0 * 0.05**0.7, 2.0 * 0.5**0.7], rel=1e-6)


def test_monotone_fit_of_falling_data_is_flat() -> None:
    fitted = curves.monotone(pairs(X, 1.0 - X), 4)
    values = fitted.predict(np.linspace(0.0, 0.3, 500))
    assert np.ptp(values) < 1e-6
    assert values.mean() == pytest.approx(np.mean(1.0 - X), rel=1e-4)


@pytest.mark.parametrize("order", [1, 3, 5])
def test_monotone_fit_of_noise_never_falls_and_is_never_negative_on_a_fine_grid(order: int) -> None:
    y = np.random.default_rng(order).uniform(-0.05, 0.1, len(X)).clip(0.0)
    fitted = curves.monotone(pairs(X, y), order)
    values = fitted.predict(np.linspace(-0.1, 0.5, 5001))
    assert np.all(np.diff(values) >= -1e-12)
    assert values.min() >= 0.0


def test_prediction_beyond_the_domain_is_that_of_its_end() -> None:
    fitted = curves.monotone(pairs(X, X), 2)
    assert fitted.predict(np.array([-1.0, 9.0])) == pytest.approx(fitted.predict(np.array([X[0], X[-1]])))


def test_the_runtime_evaluates_the_same_curve() -> None:
    fitted = curves.monotone(pairs(X, X**2), 3)
    curve = fitted.curve()
    grid = np.linspace(0.0, 0.3, 50)
    assert [curve(x) for x in grid.tolist()] == pytest.approx(fitted.predict(grid).tolist())


def test_robust_fit_ignores_a_run_that_went_wrong() -> None:
    y = 0.5 * X
    spoiled = y.copy()
    spoiled[::10] += 1.0
    plain = curves.monotone(pairs(X, spoiled), 1)
    robust = curves.monotone(pairs(X, spoiled), 1, robust=True)
    assert np.abs(robust.predict(X) - y).max() < 0.1 * np.abs(plain.predict(X) - y).max()


def test_repeating_every_run_does_not_move_the_fit() -> None:
    y = np.sqrt(X)
    assert curves.monotone(pairs(X, y, runs=5), 3).coefficients == pytest.approx(
        curves.monotone(pairs(X, y), 3).coefficients, rel=1e-6
    )


def test_isotonic_fit_is_a_ceiling_for_monotone_ones() -> None:
    y = np.where(X > 0.08, 1.0, 0.1)
    points = pairs(X, y)
    assert (
        np.abs(curves.isotonic(points).predict(X) - y).sum() < np.abs(curves.monotone(points, 5).predict(X) - y).sum()
    )


def test_one_distinct_distance_gives_a_constant_curve() -> None:
    points = pairs(np.full(10, 0.05), np.linspace(0.1, 0.3, 10))
    assert curves.monotone(points, 2).predict(np.array([0.05])) == pytest.approx([0.2], rel=1e-6)
    assert curves.power(points).predict(np.array([0.05])) == pytest.approx([0.2])
