"""Fitted weights against least squares on the tensors themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from easyteacache.errors import InvalidTrace
from easyteacache.records.sampler import EULER
from easyteacache.records.trace_set import Trace, TraceSet
from easyteacache.runtime.predictors import predictors
from easyteacache.solver.replay.fitted_weights import HISTORY, RIDGE, StateFit, correctable, matrix
from easyteacache.solver.replay.predictor_rows import Filling, Rows
from easyteacache.solver.replay.propagation import VIEWS
from easyteacache.solver.replay.runs import Runs

Array = NDArray[np.float64]
SCHEDULES = [
    (0, 1, 2, 5, 9, 10, 16),
    (0, 7, 8, 19),
    (0, 3, 6, 9, 12, 15, 18),
    (0, 1, 2, 3, 4, 5, 12),
    (0, 10),
    (0,),
    tuple(range(20)),
]


@pytest.fixture(scope="module")
def made(make_run: Callable[..., Any]) -> list[Any]:
    return [make_run(seed, sampler=EULER) for seed in range(6)]


@pytest.fixture(scope="module")
def runs(made: list[Any]) -> Runs:
    return Runs.stack([one.trace for one in made])


def scaled(made: list[Any], runs: Runs) -> Array:
    """(R, S, D) guided outputs in units of how far the sampler moves the noise."""
    return np.stack([one.outputs["guided"] for one in made]) / runs.displacement[:, None, None]


def nearest(outputs: Array, recent: list[int], missing: Array) -> Array:
    """Weights of the ``recent`` outputs (R, S, D) nearest to what is ``missing`` (R, D), by ``lstsq``; small ones."""
    count = len(outputs)
    columns = outputs[:, recent].transpose(0, 2, 1).reshape(-1, len(recent)) / np.sqrt(count)
    ridge = RIDGE * np.square(columns).sum() / len(recent)
    columns = np.vstack((columns, np.sqrt(ridge) * np.eye(len(recent))))
    found, *_ = np.linalg.lstsq(columns, np.append(missing / np.sqrt(count), np.zeros(len(recent))), rcond=None)
    return np.asarray(found)


def least_squares(outputs: Array, moves: Array, schedule: tuple[int, ...]) -> list[Array]:
    """The rows of every step, by ``lstsq`` on the outputs (R, S, D): every reused output is met best, and the state of every computed step."""
    rows, handed = list[Array](), outputs.copy()
    for position, (step, end) in enumerate(zip(schedule, (*schedule[1:], len(moves) - 1), strict=True)):
        recent = list(schedule[: position + 1][-HISTORY:])
        last = np.eye(len(recent))[-1]
        gap = [last + nearest(outputs, recent, outputs[:, each] - outputs[:, step]) for each in range(step + 1, end)]
        for each, row in enumerate(gap, step + 1):
            handed[:, each] = np.einsum("k,rkd->rd", row, outputs[:, recent])
        own = last
        if step:
            missing = np.einsum("s,rsd->rd", moves[end, :end], outputs[:, :end] - handed[:, :end])
            own = last + nearest(outputs, recent, missing) / moves[end, step]
            handed[:, step] = np.einsum("k,rkd->rd", own, outputs[:, recent])
        rows += [own, *gap]
    return rows


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda plan: f"{len(plan)} steps from {plan[:3]}")
def test_weights_are_the_least_squares_solution_on_the_tensors(
    made: list[Any], runs: Runs, schedule: tuple[int, ...]
) -> None:
    found = StateFit(runs).weights(schedule)
    expected = least_squares(scaled(made, runs), runs.moves, schedule)
    assert [len(row) for row in found] == [len(row) for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-4 * np.abs(other).max())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rows_begin_plainly_and_look_at_no_more_than_was_computed(runs: Runs, schedule: tuple[int, ...]) -> None:
    rows = StateFit(runs).weights(schedule)
    assert len(rows) == runs.num_steps
    assert rows[0] == (1.0,)
    for step, row in enumerate(rows):
        assert len(row) == min(HISTORY, sum(k <= step for k in schedule))


def test_computing_every_step_needs_no_correction(runs: Runs) -> None:
    fit, schedule = StateFit(runs), tuple(range(20))
    for row in fit.weights(schedule):
        assert row == (*(0.0 for _ in row[:-1]), 1.0)
    assert fit.errors(schedule) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_errors_of_fitted_weights_are_those_of_the_schedule(
    runs: Runs, schedule: tuple[int, ...], view: str
) -> None:
    # The search jumps over a gap at once where weights predict every step of it, each with a ridge of its own.
    fit = StateFit(runs, view=view)
    assert fit.errors_of(schedule, fit.weights(schedule)) == pytest.approx(fit.errors(schedule), rel=0.25, abs=1e-6)


def test_schedules_that_begin_alike_share_what_was_found_and_change_nothing(runs: Runs) -> None:
    shared = StateFit(runs)
    for schedule in SCHEDULES:
        assert shared.errors(schedule) == pytest.approx(StateFit(runs).errors(schedule), rel=1e-12)
    before = shared.errors(SCHEDULES[0])
    shared.forget()
    assert np.array_equal(shared.errors(SCHEDULES[0]), before)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("schedule", [(0, 5, 10, 15), (0, 1, 4, 9, 13, 18), (0, 3, 6, 9, 12, 19)])
def test_outputs_that_are_a_cubic_end_exactly(
    make_run: Callable[..., Any], schedule: tuple[int, ...], degree: int
) -> None:
    outputs, runs = polynomial(make_run, degree)
    assert missed(outputs, runs, schedule) < 1e-3
    if degree == 3:
        harder, others = polynomial(make_run, 9)
        assert missed(harder, others, schedule) > 10 * missed(outputs, runs, schedule)


def polynomial(make_run: Callable[..., Any], degree: int) -> tuple[Array, Runs]:
    """Runs whose outputs are polynomials of the step, and these outputs."""
    made = [make_run(seed, sampler=EULER) for seed in range(4)]
    place = np.linspace(-1.0, 1.0, 20)
    basis = np.polynomial.chebyshev.chebvander(place, degree)
    outputs = np.stack([basis @ np.random.default_rng(seed).normal(size=(degree + 1, 48)) for seed in range(4)])
    traces = [
        dataclasses.replace(one.trace, grams={**one.trace.grams, "output:guided": values @ values.T})
        for one, values in zip(made, outputs, strict=True)
    ]
    return outputs, Runs.stack(traces)


def missed(outputs: Array, runs: Runs, schedule: tuple[int, ...]) -> float:
    """Greatest relative distance between the final samples, the plan's against the exact one."""
    handed = matrix(schedule, StateFit(runs).weights(schedule), 20)
    difference = np.einsum("s,st,rtd->rd", runs.moves[-1], handed - np.eye(20), outputs)
    return float(np.max(np.linalg.norm(difference, axis=1) / runs.displacement))


def test_runs_that_the_fit_has_not_seen_are_met_nearly_as_well(make_set: Callable[..., TraceSet]) -> None:
    traces = make_set(32, sampler=EULER).runs
    seen, unseen = Runs.stack(traces[:24]), Runs.stack(traces[24:])
    fit = StateFit(seen)
    for schedule in SCHEDULES[:4]:
        weights = fit.weights(schedule)
        own, other = fit.errors_of(schedule, weights).mean(), StateFit(unseen).errors_of(schedule, weights).mean()
        assert own / 2 < other < 2 * own


@pytest.mark.parametrize("schedule", SCHEDULES[:2])
def test_on_runs_that_the_fit_has_not_seen_it_ends_nearer_than_any_forecast(
    make_run: Callable[..., Any], schedule: tuple[int, ...]
) -> None:
    made = [make_run(seed, sampler=EULER) for seed in range(24, 32)]
    unseen = Runs.stack([one.trace for one in made])
    weights = StateFit(Runs.stack([make_run(seed, sampler=EULER).trace for seed in range(24)])).weights(schedule)

    def end(errors: Array) -> float:
        difference = np.einsum("s,st,rtd->rd", unseen.moves[-1], errors, scaled(made, unseen))
        return float(np.linalg.norm(difference, axis=1).mean())

    fitted = end(matrix(schedule, weights, 20) - np.eye(20))
    assert all(
        fitted < 0.95 * end(Rows(Filling(name, "step", "output"), unseen).matrix(schedule)) for name in predictors()
    )


# Refusals -----------------------------------------------------------------------------------------------------------------


def test_a_matrix_takes_one_row_a_step(runs: Runs) -> None:
    weights = StateFit(runs).weights(SCHEDULES[0])
    assert matrix(SCHEDULES[0], weights, 20).shape == (20, 20)
    for wrong in (weights[:-1], (*weights, (1.0,)), ()):
        with pytest.raises(InvalidTrace, match=f"{len(wrong)} rows for runs of 20 steps"):
            matrix(SCHEDULES[0], wrong, 20)
        with pytest.raises(InvalidTrace, match="rows for runs"):
            StateFit(runs).errors_of(SCHEDULES[0], wrong)


def test_a_matrix_has_every_row_at_the_steps_it_looks_at() -> None:
    rows = matrix((0, 2), ((1.0,), (2.0,), (3.0, 4.0), (5.0,)), 4)
    assert rows.tolist() == [[1, 0, 0, 0], [2, 0, 0, 0], [3, 0, 4, 0], [0, 0, 5, 0]]


def changed(trace: Trace, **header: Any) -> Runs:
    return Runs.stack([dataclasses.replace(trace, header=trace.header.model_copy(update=header))])


def test_runs_that_cannot_be_corrected_are_told(make_run: Callable[..., Any], runs: Runs) -> None:
    assert correctable(runs)
    trace = make_run(0, sampler=EULER).trace
    assert not correctable(Runs.stack([make_run(0).trace]))
    euler = trace.header.sampler
    for other in (
        None,
        euler.model_copy(update={"name": "UniPCMultistepScheduler"}),
        euler.model_copy(update={"name": f"{EULER} (stochastic)"}),
        euler.model_copy(update={"prediction": "epsilon"}),
        euler.model_copy(update={"prediction": "unknown"}),
    ):
        found = changed(dataclasses.replace(trace, sampler_map=None), sampler=other)
        assert not correctable(found)
        assert not correctable(Runs.stack([*runs.traces, *found.traces]))
    grams = {name: gram for name, gram in trace.grams.items() if name != "output:guided"}
    bare = Runs.stack([dataclasses.replace(trace, grams=grams)])
    assert not correctable(bare)
    with pytest.raises(InvalidTrace, match="no Gram matrix of the model's output"):
        StateFit(bare)
