"""Each published method's recurrence, written out on vectors as its paper or script has it, equals its rows of weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from easyteacache.errors import InvalidPlan
from easyteacache.policy.methods import intervals
from easyteacache.policy.methods.l2p import l2p_rows
from easyteacache.policy.methods.meancache import meancache_rows, spans_of_edges
from easyteacache.policy.methods.rows import Rows, aligned, unrolled
from easyteacache.policy.methods.spectrum import SpectrumFit, spectrum_rows
from easyteacache.runtime.predictors import predictor

Array = NDArray[np.float64]
EXACT = 1e-10


@st.composite
def plans(draw: st.DrawFn, least: int = 2, most: int = 40) -> tuple[tuple[int, ...], int]:
    """Computed steps and step count."""
    num_steps = draw(st.integers(least, most))
    others = draw(st.sets(st.integers(1, num_steps - 1)))
    return (0, *sorted(others)), num_steps


@st.composite
def falling(draw: st.DrawFn, num_steps: int) -> list[float]:
    """Noise levels from 1 to 0 with uneven gaps."""
    gaps = np.array(draw(st.lists(st.floats(0.2, 3.0), min_size=num_steps, max_size=num_steps)))
    return [float(level) for level in 1.0 - np.concatenate(([0.0], np.cumsum(gaps) / gaps.sum()))]


def outputs(num_steps: int) -> Array:
    """What each step would give, (S, 3)."""
    return np.random.default_rng(num_steps).normal(size=(num_steps, 3))


def applied(rows: Rows, computed: tuple[int, ...], values: Array) -> Array:
    """Rows times computed outputs, aligned as a record aligns them: the latest computed steps, oldest first."""
    found = []
    for step, row in enumerate(rows):
        latest = [k for k in computed if k <= step][-len(row) :]
        found.append(sum(weight * values[k] for weight, k in zip(row, latest, strict=True)))
    return np.array(found)


def driven(computed: tuple[int, ...], values: Array, fill: Callable[[int, list[Array]], Array]) -> Array:
    """The values of a run that fills what it does not compute."""
    found: list[Array] = []
    for step in range(len(values)):
        found.append(values[step] if step in computed else fill(step, found))
    return np.array(found)


def close(found: Array, expected: Array) -> bool:
    return bool(np.max(np.abs(found - expected)) <= EXACT * max(1.0, float(np.max(np.abs(expected)))))


# Holds and straight lines ---------------------------------------------------------------------------------------------


@given(plans())
def test_hold_as_lemica_and_magcache_reuse_the_last_residual(plan: tuple[tuple[int, ...], int]) -> None:
    computed, num_steps = plan
    values, cache = outputs(num_steps), {}

    def fill(step: int, found: list[Array]) -> Array:
        # LeMiCa's script: `if should_calc: previous_residual = h − ori_h`, else `h = ori_h + previous_residual`.
        cache["previous"] = next(values[k] for k in reversed(range(step)) if k in computed)
        return cache["previous"]

    assert close(applied(predictor("hold").rows(computed, num_steps), computed, values), driven(computed, values, fill))


@given(plans())
def test_dpcache_as_sglang_extrapolates_from_computed_anchors(plan: tuple[tuple[int, ...], int]) -> None:
    computed, num_steps = plan
    values = outputs(num_steps)

    def fill(step: int, found: list[Array]) -> Array:
        anchors = [k for k in computed if k < step]
        if len(anchors) == 1:
            return values[anchors[0]]
        previous, last = anchors[-2:]
        slope = (values[last] - values[previous]) / (last - previous)
        return slope * (step - last) + values[last]

    found = applied(predictor("linear").rows(computed, num_steps), computed, values)
    assert close(found, driven(computed, values, fill))


# TaylorSeer -----------------------------------------------------------------------------------------------------------


@given(plans(), st.integers(1, 4))
def test_taylorseer_lite_as_its_cache_of_factors_does_it(plan: tuple[tuple[int, ...], int], order: int) -> None:
    computed, num_steps = plan
    values = outputs(num_steps)
    cache: dict[int, Array] = {}
    expected = []
    for step in range(num_steps):
        if step in computed:
            position = computed.index(step)
            factors = {0: values[step]}
            for i in range(order):
                if position == 0 or i not in cache:
                    break
                factors[i + 1] = (factors[i] - cache[i]) / (step - computed[position - 1])
            cache = factors
            expected.append(values[step])
        else:
            x = step - max(k for k in computed if k < step)
            expected.append(sum(cache[i] * x**i / math.factorial(i) for i in cache))
    found = applied(predictor(f"taylor-{order}").rows(computed, num_steps), computed, values)
    assert close(found, np.array(expected))


# MeanCache ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.data(), plans(least=3, most=30))
def test_meancache_as_the_script_takes_it_from_latents(data: st.DataObject, plan: tuple[tuple[int, ...], int]) -> None:
    computed, num_steps = plan
    levels = data.draw(falling(num_steps))
    edges = data.draw(st.lists(st.integers(0, 6), min_size=len(computed) - 1, max_size=len(computed) - 1))
    spans = spans_of_edges(computed, edges) | dict.fromkeys(range(computed[-1] + 1, num_steps), 3)
    values, latent = outputs(num_steps), np.array([0.3, -1.0, 2.0])
    log: dict[str, list[Array]] = {"v": [], "before": [], "after": []}
    for step in range(num_steps):
        if step in computed:
            v = values[step]
        else:
            reach = min(max(spans[step], 1), step)
            start, end = step - reach, step - 1
            width = levels[end + 1] - levels[start]
            average = (log["after"][end] - log["before"][start]) / width
            jvp = (log["v"][start] - average) / width
            v = log["v"][-1] - jvp * (levels[step + 1] - levels[step])
        log["before"].append(latent)
        latent = latent + (levels[step + 1] - levels[step]) * v
        log["v"].append(v)
        log["after"].append(latent)
    found = applied(meancache_rows(computed, num_steps, levels, spans), computed, values)
    scale = max(1.0, float(np.max(np.abs(log["v"]))))
    # The script's differences of latents cancel; their rounding is divided by the widths of two narrow spans.
    narrow = min(a - b for a, b in itertools.pairwise(levels))
    assert np.max(np.abs(found - np.array(log["v"]))) <= EXACT * scale * max(1.0, 1e-5 / narrow**2)


@given(st.data(), plans(least=3, most=30), st.integers(2, 6))
def test_meancache_by_name_is_the_recurrence_with_one_span(
    data: st.DataObject, plan: tuple[tuple[int, ...], int], span: int
) -> None:
    computed, num_steps = plan
    levels, values = data.draw(falling(num_steps)), outputs(num_steps)
    named = predictor(f"meancache-{span}").over(levels).rows(computed, num_steps)
    given_rows = meancache_rows(computed, num_steps, levels, span)
    assert close(applied(named, computed, values), applied(given_rows, computed, values))


@given(st.data(), plans(least=3, most=30))
def test_meancache_by_name_has_a_span_for_every_gap(data: st.DataObject, plan: tuple[tuple[int, ...], int]) -> None:
    computed, num_steps = plan
    levels, values = data.draw(falling(num_steps)), outputs(num_steps)
    digits = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=30))
    name = "meancache-" + "".join(map(str, digits))
    gaps = [*computed[1:], num_steps]
    spans = {
        step: digits[min(gap, len(digits) - 1)]
        for gap, (before, after) in enumerate(zip(computed, gaps, strict=True))
        for step in range(before + 1, after)
    }
    named = predictor(name).over(levels).rows(computed, num_steps)
    given_rows = meancache_rows(computed, num_steps, levels, spans)
    assert close(applied(named, computed, values), applied(given_rows, computed, values))


def test_meancache_rows_add_up_to_one_and_hold_at_span_one() -> None:
    levels = [float(x) for x in np.linspace(1.0, 0.0, 21) ** 0.7]
    computed = (0, 1, 2, 5, 9, 14, 19)
    for span in (0, 1):
        assert meancache_rows(computed, 20, levels, span) == ((1.0,),) * 20
    for row in meancache_rows(computed, 20, levels, 4):
        assert sum(row) == pytest.approx(1.0, abs=1e-12)


# L2P ------------------------------------------------------------------------------------------------------------------


@given(plans(), st.integers(0, 2**32 - 1))
def test_l2p_as_its_history_of_outputs_and_forecasts(plan: tuple[tuple[int, ...], int], seed: int) -> None:
    computed, num_steps = plan
    values = outputs(num_steps)
    matrix = np.tril(np.random.default_rng(seed).normal(size=(50, 50))) / 5.0

    def fill(step: int, found: list[Array]) -> Array:
        return np.einsum("k,kd->d", matrix[step - 1, :step], np.array(found))

    assert close(applied(l2p_rows(computed, num_steps, matrix), computed, values), driven(computed, values, fill))


# Spectrum -------------------------------------------------------------------------------------------------------------


@given(plans(most=50), st.integers(0, 6), st.floats(0.01, 10.0), st.floats(0.0, 1.0))
def test_spectrum_as_a_ridge_fit_of_features_blended_with_a_line(
    plan: tuple[tuple[int, ...], int], degree: int, ridge: float, blend: float
) -> None:
    computed, num_steps = plan
    values = outputs(num_steps)

    def fill(step: int, found: list[Array]) -> Array:
        anchors = [k for k in computed if k < step]

        def design(steps: list[int]) -> Array:
            taus = np.array([2.0 * k / 50 - 1.0 for k in steps])
            return np.stack([np.cos(i * np.arccos(taus)) for i in range(degree + 1)], axis=1)

        x = design(anchors)
        coefficients = np.linalg.inv(x.T @ x + ridge * np.eye(degree + 1)) @ x.T @ values[anchors]
        smooth = (design([step]) @ coefficients)[0]
        last = values[anchors[-1]]
        if len(anchors) == 1:
            return blend * smooth + (1.0 - blend) * last
        distance = anchors[-1] - anchors[-2]
        line = last + (step - anchors[-1]) / distance * (last - values[anchors[-2]])
        return blend * smooth + (1.0 - blend) * line

    rows = spectrum_rows(computed, num_steps, SpectrumFit(degree, ridge, blend))
    expected = driven(computed, values, fill)
    assert np.max(np.abs(applied(rows, computed, values) - expected)) <= 1e-9 * max(
        1.0, float(np.max(np.abs(expected)))
    )


@given(plans(most=50))
def test_spectrum_by_name_is_the_published_fit(plan: tuple[tuple[int, ...], int]) -> None:
    computed, num_steps = plan
    values = outputs(num_steps)
    published = applied(spectrum_rows(computed, num_steps), computed, values)
    for name in ("spectrum", "spectrum-4-100-50", "spectrum-4-100-50-50"):
        assert close(applied(predictor(name).rows(computed, num_steps), computed, values), published)


# Schedules by rule ----------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 6))
def test_taylorseer_computes_when_its_counter_says(num_steps: int, interval: int, first: int) -> None:
    counter, expected = 0, []
    for step in range(num_steps):
        # cal_type.py: full when first_steps or cache_counter == fresh_threshold − 1.
        if step < first or counter == interval - 1:
            counter = 0
            expected.append(step)
        else:
            counter += 1
    assert intervals.taylorseer_schedule(num_steps, interval=interval, first_enhance=first) == tuple(expected)


@given(st.integers(1, 80), st.integers(1, 6), st.floats(1.0, 4.0), st.floats(0.0, 3.0))
def test_spectrum_computes_when_its_window_says(num_steps: int, warmup: int, window: float, growth: float) -> None:
    consecutive, current, expected = 0, window, []
    for step in range(num_steps):
        actual = True
        if step >= warmup:
            actual = (consecutive + 1) % math.floor(current) == 0
            if actual:
                current = round(current + growth, 3)
        if actual:
            consecutive = 0
            expected.append(step)
        else:
            consecutive += 1
    found = intervals.spectrum_schedule(num_steps, warmup=warmup, window=window, growth=growth)
    assert found == tuple(expected)


def test_the_published_counts_of_spectrum_are_met() -> None:
    counts = [len(intervals.spectrum_schedule(50, warmup=5, window=2, growth=alpha)) for alpha in (0.75, 3.0)]
    assert counts == [14, 10]


def test_intervals_are_those_of_their_scripts() -> None:
    assert intervals.fora_schedule(30, interval=2) == (*range(0, 30, 2), 29)
    assert intervals.skip_every(9, warmup=3, every=2) == (0, 1, 2, 3, 5, 7)
    assert intervals.compute_every(20, warmup=6, every=4) == (0, 1, 2, 3, 4, 5, 6, 10, 14, 18)
    assert intervals.compute_every(10, warmup=4, every=2, after=1) == (0, 1, 2, 3, 5, 7, 9)
    own = intervals.stride_between(50, start=11, end=45, interval=4)
    assert own == (*range(12), 15, 19, 23, 27, 31, 35, 39, 43, *range(45, 50))


# The row form ---------------------------------------------------------------------------------------------------------


def test_a_row_begins_at_the_oldest_step_that_counts() -> None:
    assert aligned({2: 0.5, 5: 0.5}, [0, 2, 5]) == (0.5, 0.5)
    assert aligned({0: 2.0, 5: -1.0}, [0, 2, 5]) == (2.0, 0.0, -1.0)
    assert aligned({}, [0, 2, 5]) == (0.0,)


def test_a_row_that_reaches_too_far_back_is_refused() -> None:
    matrix = np.tril(np.ones((120, 120)))
    with pytest.raises(InvalidPlan, match="reaches back over 101 computed steps, expected at most 100"):
        l2p_rows(tuple(range(101)), 110, matrix)


@pytest.mark.parametrize("computed", [(), (1, 2), (0, 2, 2), (0, 3, 1), (0, 5)])
def test_what_is_no_plan_is_refused(computed: tuple[int, ...]) -> None:
    with pytest.raises(InvalidPlan, match="expected ascending indices below 5"):
        unrolled(computed, 5, lambda step, known: known[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: meancache_rows((0, 2), 4, [1.0, 0.5, 0.25, 0.0], 2), "4 noise levels for 4 steps; expected 5"),
        (lambda: meancache_rows((0, 2), 3, [1.0, 0.5, 0.5, 0.0], 2), "do not fall"),
        (lambda: meancache_rows((0, 2), 3, [1.0, 0.6, 0.5, 0.0], {2: 1}), "no span is given for step 1"),
        (lambda: spans_of_edges((0, 2, 4), [1]), "1 spans for 3 computed steps; expected 2"),
        (lambda: l2p_rows((0,), 4, [[1.0], [1.0, 2.0]]), "expected a lower triangle of 3"),
        (lambda: SpectrumFit(ridge=0.0), "expected 0 or more, above 0, 0 to 1"),
        (lambda: SpectrumFit(blend=1.5), "expected 0 or more, above 0, 0 to 1"),
        (lambda: intervals.taylorseer_schedule(10, interval=0), "interval is 0, expected at least 1"),
        (lambda: intervals.spectrum_schedule(10, warmup=0, window=2, growth=0), "warmup is 0"),
        (lambda: intervals.spectrum_schedule(10, warmup=1, window=math.nan, growth=0), "window is nan"),
        (lambda: intervals.stride_between(10, start=5, end=3, interval=1), "expected 0 ≤ start ≤ end ≤ 10"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidPlan, match=message):
        call()
