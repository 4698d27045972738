"""What outputs answer to disturbances: expected over matched noise, corrected by what plans show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.replay.propagation import APART, responses
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.search.answers import COUNTED, FIRST_SQUARE, LEAST_OF_NOISE, PLAUSIBLE, Answers

Array = NDArray[np.float64]
MakeSet = Callable[..., TraceSet]


def shifted(shift: float, steps: int = 20) -> Array:
    u = np.linspace(1.0, 0.0, steps + 1)
    return np.asarray(shift * u / (1.0 + (shift - 1.0) * u))


def of_values(runs: Runs, values: float, sigmas: Array) -> Runs:
    """The same runs as if their first output had so many values, over other noise levels."""
    assert runs.output is not None
    first = runs.output[:, 0, 0]
    scale = FIRST_SQUARE * values / np.median(first)
    return replace(runs, sigmas=sigmas, output=runs.output * scale)


@pytest.fixture(scope="module")
def runs(make_set: MakeSet) -> Runs:
    return Runs.stack(make_set(5, steps=20).runs)


def test_at_the_size_and_levels_that_were_measured_what_was_measured_is_expected(runs: Runs) -> None:
    known = of_values(runs, 1024.0, shifted(3.0))
    found = Answers.expected(known)
    assert found.values == pytest.approx(1024.0)
    assert found.levels == pytest.approx(tuple(known.sigmas[:-1]))
    least = LEAST_OF_NOISE / known.sigmas[:-1]
    for view, values in zip(PLAUSIBLE, found.plausible(), strict=True):
        assert values == pytest.approx(COUNTED * np.maximum(responses(known.sigmas, view=view) / APART, least))
    assert found.curve == pytest.approx(np.maximum(responses(known.sigmas) / APART, least))


def test_towards_the_end_of_a_run_what_is_answered_goes_by_the_noise_level_alone(runs: Runs) -> None:
    for shift, values in ((3.0, 300.0), (0.35, 300.0), (0.35, 4096.0)):
        known = of_values(runs, values, shifted(shift, 50))
        curve = Answers.expected(known).curve
        late = known.sigmas[:-1] < 0.1
        assert late.any()
        assert curve[late] * known.sigmas[:-1][late] == pytest.approx(LEAST_OF_NOISE)


def test_larger_samples_answer_at_higher_noise_as_smaller_ones_do_at_lower(runs: Runs) -> None:
    """Four times the values at shift 3 are like the same values at shift 1.5: σ/(1 − σ) grows with their root."""
    large, small = of_values(runs, 4096.0, shifted(3.0)), of_values(runs, 1024.0, shifted(1.5))
    early = small.sigmas[:-1] > 0.5
    assert Answers.expected(large).curve[early] == pytest.approx(Answers.expected(small).curve[early])
    other = Answers.expected(of_values(runs, 1024.0, shifted(3.0))).plausible()
    assert not np.allclose(Answers.expected(large).plausible(), other)


def test_what_plans_show_replaces_what_is_expected_in_all_views(runs: Runs) -> None:
    expected = Answers.expected(of_values(runs, 1024.0, shifted(3.0)))
    steps = list(range(2, 20, 3))
    found = expected.observed(steps, [2.0 * expected.curve[step] for step in steps])
    assert found.plausible() == pytest.approx(2.0 * expected.plausible())
    assert expected.observed(steps, [expected.curve[step] for step in steps]) == expected
    # In any order.
    assert expected.observed(steps[::-1], [2.0 * expected.curve[s] for s in steps[::-1]]).ratios == found.ratios


def test_between_observed_steps_answers_are_drawn_out_and_one_odd_step_is_not_believed(runs: Runs) -> None:
    expected = Answers.expected(of_values(runs, 1024.0, shifted(3.0)))
    steps = [4, 8, 12, 16]
    found = expected.observed(steps, [(3.0 if step > 8 else 1.0) * expected.curve[step] for step in steps])
    assert (np.diff(found.ratios) >= -1e-12).all()
    assert found.ratios[0] == pytest.approx(1.0)
    assert found.ratios[-1] == pytest.approx(3.0)
    odd = expected.observed(steps, [(1e6 if step == 8 else 1.0) * expected.curve[step] for step in steps])
    assert max(odd.ratios) < 2.0
