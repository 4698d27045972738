"""How errors travel, against the same sums on tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from easyteacache.runtime.predictors import predictors
from easyteacache.solver.replay.error_propagation import Travel
from easyteacache.solver.replay.fitted_weights import StateFit, matrix
from easyteacache.solver.replay.plan_errors import PlanErrors
from easyteacache.solver.replay.predictor_rows import Filling, Rows
from easyteacache.solver.replay.propagation import VIEWS, responses
from easyteacache.solver.replay.runs import Runs

Array = NDArray[np.float64]
SCHEDULES = [(0, 1, 2, 5, 9, 10, 16), (0, 7, 8, 19), (0, 3, 6, 9, 12, 15, 18), (0,)]


@pytest.fixture(scope="module")
def made(make_run: Callable[..., Any]) -> list[Any]:
    return [make_run(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def runs(made: list[Any]) -> Runs:
    return Runs.stack([one.trace for one in made])


def outputs(made: list[Any], runs: Runs) -> Array:
    return np.stack([one.outputs["guided"] for one in made]) / runs.displacement[:, None, None]


def recursion(values: Array, sizes: Array, handed: Array, schedule: tuple[int, ...], answers: Array) -> Array:
    """Sizes of the states' errors (R,) with the tensors (R, S, D) in our hands, and of the final sample last."""
    steps = len(sizes)
    before: dict[int, Array] = {}
    for step in (*schedule[1:], steps):
        moved = np.einsum("s,st,rtd->rd", sizes[:step], handed[:step] - np.eye(steps)[:step], values)
        inside = sizes[:step] @ handed[:step]
        size = np.linalg.norm(moved, axis=1) + 1e-12
        before[step] = size + abs(sum(inside[k] * answers[k] * before[k] for k in schedule[1:] if k < step))
    return before[steps]


@pytest.mark.parametrize("name", predictors())
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_responses_the_final_error_is_the_norm_of_what_was_missed(
    made: list[Any], runs: Runs, schedule: tuple[int, ...], name: str
) -> None:
    filling = Filling(name, "step", "output")
    plans = PlanErrors(runs, view=np.zeros(runs.num_steps))
    rows = Rows(filling, runs).matrix(schedule)
    difference = np.einsum("s,st,rtd->rd", runs.moves[-1], rows, outputs(made, runs))
    assert plans.errors(schedule, filling) == pytest.approx(np.linalg.norm(difference, axis=1), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_held_outputs_travel_as_written_down(made: list[Any], runs: Runs, schedule: tuple[int, ...]) -> None:
    handed = np.zeros((20, 20))
    for step in range(20):
        handed[step, max(k for k in schedule if k <= step)] = 1.0
    expected = recursion(outputs(made, runs), runs.moves[-1], handed, schedule, responses(runs.sigmas))
    found = PlanErrors(runs).errors(schedule, Filling("hold", "step", "output"))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_fitted_weights_travel_as_written_down(
    made: list[Any], runs: Runs, schedule: tuple[int, ...], view: str
) -> None:
    fit = StateFit(runs, view=view)
    weights = fit.weights(schedule)
    handed, answers = matrix(schedule, weights, 20), responses(runs.sigmas, view=view)
    expected = recursion(outputs(made, runs), runs.moves[-1], handed, schedule, answers)
    # What cancels in the sum of tensors is lost in that of their products.
    assert fit.errors_of(schedule, weights) == pytest.approx(expected, rel=1e-4, abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 19), st.floats(0.0, 10.0), st.sampled_from(SCHEDULES), st.sampled_from(["hold", "linear", "foca"])
)
def test_a_stronger_response_never_lowers_an_error(
    runs: Runs, step: int, more: float, schedule: tuple[int, ...], name: str
) -> None:
    filling, answers = Filling(name, "step", "output"), responses(runs.sigmas)
    before = PlanErrors(runs).errors(schedule, filling)
    after = PlanErrors(runs, view=answers + more * (np.arange(20) == step)).errors(schedule, filling)
    # Outputs that are held have weights of one sign; where signs differ, one answer takes back a part of another.
    assert name != "hold" or (after >= before).all()
    # The first step is computed on the noise itself, and a reused step answers nothing.
    if step == 0 or step not in schedule:
        assert np.array_equal(after, before)


def test_what_a_forecast_takes_back_of_an_earlier_answer_does_not_count_twice(runs: Runs) -> None:
    # Outputs 4 and 8 are off by the same; a linear forecast from them hands on 2.5 of the second less 1.5 of the first at step 14.
    handed = np.eye(20)
    handed[9:] = 0.0
    for step in range(9, 20):
        handed[step, [4, 8]] = -(step - 8) / 4, 1.0 + (step - 8) / 4
    missed = np.zeros((20, 20))
    missed[3, 3] = 1e-3
    travel = Travel(runs, "output", view=np.full(20, 0.5))
    found = travel.errors(missed, handed, (0, 1, 2, 4, 8))
    held = np.where(handed < 0.0, 0.0, handed)
    assert (found < travel.errors(missed, np.abs(handed), (0, 1, 2, 4, 8))).all()
    assert (found < travel.errors(missed, held, (0, 1, 2, 4, 8))).all()


@pytest.mark.parametrize("target", ["residual", "output"])
@pytest.mark.parametrize("name", ["hold", "cubic", "foca"])
def test_computing_every_step_has_no_error(runs: Runs, name: str, target: Any) -> None:
    assert PlanErrors(runs).errors(tuple(range(20)), Filling(name, "step", target)) == pytest.approx(0.0, abs=1e-9)


def test_errors_do_not_depend_on_the_scale_of_a_run(make_run: Callable[..., Any], runs: Runs) -> None:
    trace = make_run(1).trace
    larger = dataclasses.replace(trace, grams={name: 9.0 * gram for name, gram in trace.grams.items()})
    filling = Filling("linear", "step", "output")
    both = PlanErrors(Runs.stack([trace, larger])).errors(SCHEDULES[0], filling)
    assert both[0] == pytest.approx(both[1], rel=1e-9)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_answers_at_every_noise_level(runs: Runs, view: str) -> None:
    found = responses(runs.sigmas, view=view)
    assert found.shape == (20,)
    assert (found > 0).all()
    assert np.array_equal(responses(2.0 * runs.sigmas, view=view), found)


def test_travel_wants_a_view_it_knows(runs: Runs) -> None:
    with pytest.raises(KeyError):
        Travel(runs, "output", view="none")
