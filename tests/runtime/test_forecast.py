"""Predictors as weight vectors, against independent statements of the same methods."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easyteacache.runtime.branch_state import BranchState
from easyteacache.runtime.predictors import Predictor, UnknownPredictor, predictor, predictors
from easyteacache.runtime.predictors.foca import FoCa
from easyteacache.runtime.predictors.taylor import Taylor

gaps = st.lists(st.floats(0.5, 8.0), min_size=1, max_size=5)


def predict(method: Predictor, anchors: list[float], values: list[float], at: float, reused: list[float]) -> float:
    weights = method.weights(anchors, at, reused=reused)
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


def places(gaps_between: list[float], *, descending: bool) -> list[float]:
    """Anchors and, last, the coordinate to predict, at unequal gaps."""
    found = [10.0]
    for gap in gaps_between:
        found.append(found[-1] + (-gap if descending else gap))
    return found


@pytest.mark.parametrize("name", [n for n in predictors() if n != "spectrum"])
@settings(max_examples=30)
@given(gaps, st.booleans(), st.integers(0, 3))
def test_weights_of_all_but_spectrum_add_up_to_one(
    name: str, between: list[float], descending: bool, steps_between: int
) -> None:
    method = predictor(name)
    *anchors, at = places(between, descending=descending)
    anchors = anchors[-method.history :]
    reused = [
        a + (b - a) * k / (steps_between + 1)
        for a, b in zip(anchors, [*anchors[1:], at], strict=True)
        for k in range(1, steps_between + 1)
    ]
    weights = method.weights(anchors, at, reused=reused)
    assert len(weights) == len(anchors)
    assert sum(weights) == pytest.approx(1.0, abs=1e-6 * max(1.0, *map(abs, weights)))


@pytest.mark.parametrize(("name", "order"), [("hold", 0), ("linear", 1), ("quadratic", 2), ("cubic", 3)])
@settings(max_examples=30)
@given(st.lists(st.floats(0.5, 4.0), min_size=4, max_size=4), st.booleans())
def test_a_polynomial_of_its_order_is_exact_at_unequal_gaps(
    name: str, order: int, between: list[float], descending: bool
) -> None:
    method = predictor(name)
    *anchors, at = places(between, descending=descending)
    anchors = anchors[-method.history :]

    def f(t: float) -> float:
        return sum((k + 1) * (t - 10.0) ** k for k in range(order + 1))

    assert method.history == order + 1
    assert predict(method, anchors, [f(a) for a in anchors], at, []) == pytest.approx(f(at), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    "name", ["linear", "quadratic", "cubic", "taylor-1", "taylor-2", "taylor-3", "taylor-4", "foca"]
)
@pytest.mark.parametrize("descending", [False, True])
def test_a_straight_line_is_exact_however_many_anchors_there_are(name: str, descending: bool) -> None:
    method = predictor(name)
    for count in range(2, method.history + 1):
        *anchors, at = places([*[1.0, 3.0, 2.0, 5.0, 4.0][: count - 1], 1.5], descending=descending)
        assert predict(method, anchors, [3.0 - 2.0 * a for a in anchors], at, []) == pytest.approx(3.0 - 2.0 * at)


def test_with_one_anchor_everything_holds() -> None:
    assert all(
        predictor(name).weights([4.0], 7.0, reused=[5.0, 6.0]) == (1.0,) for name in predictors() if name != "spectrum"
    )


def test_hold_takes_the_last_anchor_and_mean_the_middle_of_two() -> None:
    assert predictor("hold").weights([1.0, 4.0], 5.0) == (0.0, 1.0)
    assert predictor("mean").weights([1.0, 4.0], 5.0) == (0.5, 0.5)


def test_taylor_equals_the_paper_s_series_at_equal_gaps() -> None:
    # arXiv 2503.06923: D^i by repeated differences over the interval N, prediction Σ D^i F / i! · m^i.
    interval, values = 3.0, [5.0, -1.0, 2.5, 4.0]
    anchors = [interval * k for k in range(4)]
    differences, last = [values], [values[-1]]
    for _ in range(3):
        previous = differences[-1]
        differences.append([(b - a) / interval for a, b in itertools.pairwise(previous)])
        last.append(differences[-1][-1])
    for m in (1.0, 2.0):
        series = last[0] + last[1] * m + last[2] * m**2 / 2 + last[3] * m**3 / 6
        assert predict(Taylor("taylor-3", 3), anchors, values, anchors[-1] + m, []) == pytest.approx(series)


def literal_foca(values: dict[int, float], until: int) -> dict[int, float]:
    """arXiv 2508.16211, eqs. 6-8, on scalars with step 1; ``values`` are the computed steps, the first two adjacent."""
    history: dict[int, float] = {}
    computed: list[int] = []
    for k in range(min(values), until + 1):
        if k in values:
            history[k] = values[k]
            computed.append(k)
            continue
        full, before = computed[-1], computed[-2]
        slope_at_full = (values[full] - values[before]) / (full - before)
        f0, f1 = history[k - 1], history[k - 2]
        predictor = 4 / 3 * f0 - 1 / 3 * f1 + 2 / 3 * (f0 - f1)
        end_slope = (3 * predictor - 4 * f0 + f1) / 2
        history[k] = f0 + 0.5 * (slope_at_full + end_slope)
    return history


@settings(max_examples=40)
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.integers(1, 6))
def test_foca_is_the_paper_s_recursion(values: list[float], interval: int) -> None:
    anchors = [0, 1, 1 + interval]
    last = anchors[-1] + interval
    expected = literal_foca(dict(zip(anchors, values, strict=True)), last)
    reused = [float(k) for k in range(2, anchors[-1])]
    for at in range(anchors[-1] + 1, last + 1):
        found = predict(FoCa(), [float(a) for a in anchors], values, float(at), reused)
        assert found == pytest.approx(expected[at], abs=1e-9)
        reused.append(float(at))


@pytest.mark.parametrize("anchors", [[2, 6], [1, 2, 6], [-2, 2, 6]])
def test_foca_continues_a_straight_line_with_a_computed_step_every_fourth(anchors: list[int]) -> None:
    reused = [float(k) for k in range(anchors[0], 6) if k not in anchors]
    for at in (7.0, 8.0, 9.0):
        places_so_far = [float(a) for a in anchors]
        assert predict(FoCa(), places_so_far, places_so_far, at, reused) == pytest.approx(at)
        reused.append(at)


def test_foca_does_not_care_about_the_unit_of_its_axis() -> None:
    anchors, reused, values = [0.0, 1.0, 5.0], [2.0, 3.0, 4.0], [1.0, 4.0, -2.0]
    expected = predict(FoCa(), anchors, values, 7.0, [*reused, 6.0])
    for scale in (0.001, 1000.0, -20.0):
        found = predict(FoCa(), [scale * a for a in anchors], values, scale * 7.0, [scale * r for r in [*reused, 6.0]])
        assert found == pytest.approx(expected)


def test_an_unknown_name_says_which_there_are() -> None:
    for name in ("", "Hold", "taylor-5", "taylor-0", "magic"):
        with pytest.raises(UnknownPredictor, match="expected auto, hold"):
            predictor(name)


@pytest.mark.parametrize(
    ("name", "coordinate"), [(n, a) for n in predictors() for a in predictor(n).axes if a != "sigma"]
)
def test_the_runtime_s_forecast_is_the_weighted_sum_of_the_computed_residuals(
    name: str, coordinate: str, make_policy: Any
) -> None:
    schedule = (0, 1, 2, 5, 7, 8, 12)
    levels = tuple(1 - step / 16 for step in range(17))
    found = predictor(name).over(levels)
    plan = make_policy(schedule=schedule, forecaster=name, coordinate=coordinate, run_levels=levels)
    state = BranchState("b", plan)
    times = [1000.0 - 3.0 * step - step**2 for step in range(16)]
    place = times if coordinate == "timestep" else [float(step) for step in range(16)]
    latent, residuals, reused, checked = torch.randn(2, 5, 4, dtype=torch.float64), {}, [], 0
    for step in range(16):
        if not state.check(step, None):
            residuals[step] = torch.randn_like(latent)
            state.store_truth(step, None, latent, latent + residuals[step], coordinate=times[step])
            continue
        anchors = list(residuals)[-found.history :]
        since = [place[k] for k in reused if k > anchors[0]]
        weights = found.weights([place[k] for k in anchors], place[step], reused=since)
        expected = latent + sum(w * residuals[k] for w, k in zip(weights, anchors, strict=True))
        assert torch.allclose(latent + state.residual(coordinate=times[step]), expected)
        assert torch.allclose(state.update(None, latent, coordinate=times[step]), expected)
        reused.append(step)
        checked += 1
    assert checked == 9


def test_a_forecaster_is_told_of_the_reused_steps_since_its_first_anchor(make_policy: Any) -> None:
    class Told:
        name, history, axes = "told", 2, ("step",)

        def __init__(self) -> None:
            self.calls: list[tuple[list[float], float, list[float]]] = []

        def weights(self, anchors: list[float], at: float, *, reused: list[float] = []) -> tuple[float, ...]:  # noqa: B006
            self.calls.append((list(anchors), at, list(reused)))
            return (*(0.0 for _ in anchors[:-1]), 1.0)

    state = BranchState("b", make_policy(schedule=(0, 3, 5), forecaster="linear"))
    told = state.predictor = Told()
    latent = torch.zeros(1, 4, 2)
    for step in range(7):
        if state.check(step, None):
            state.update(None, latent)
        else:
            state.store_truth(step, None, latent, latent)
    assert told.calls == [
        ([0.0], 1.0, []),
        ([0.0], 2.0, [1.0]),
        ([0.0, 3.0], 4.0, [1.0, 2.0]),
        ([3.0, 5.0], 6.0, [4.0]),
    ]
