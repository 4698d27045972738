"""One corrector, three drivers: tensors of a branch, guided outputs of many runs, rows of weights in replay."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from easyteacache.solver.replay.corrected import handed_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyteacache.integrations.diffusers.recording.trajectory_fit import Refit
from easyteacache.runtime.branch_state import BranchState
from easyteacache.runtime.corrector import CorrectedOutputs, Corrector, wanted
from easyteacache.runtime.predictors import PlannedRows
from easyteacache.solver.replay.fitted_weights import matrix

STEPS = 9
SIZES = [-0.05 - 0.01 * step for step in range(STEPS)]


@st.composite
def plans(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[tuple[float, ...], ...]]:
    """Computed steps, the first of them 0, and a row of at most three weights for every step."""
    schedule = (0, *sorted(draw(st.sets(st.integers(1, STEPS - 1), min_size=1))))
    number = st.floats(-3.0, 3.0)
    rows = [
        tuple(draw(number) for _ in range(min(3, sum(place <= step for place in schedule)))) for step in range(STEPS)
    ]
    return schedule, ((1.0,), *rows[1:])


def outputs() -> torch.Tensor:
    return torch.randn(STEPS, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def filled_by_hold(schedule: tuple[int, ...]) -> np.ndarray:
    rows = np.zeros((STEPS, STEPS))
    for step in range(STEPS):
        rows[step, max(place for place in schedule if place <= step)] = 1.0
    return rows


def by_branch(make_policy: Any, schedule: Any, rows: Any) -> list[torch.Tensor]:
    """What ``forward`` hands on: reused steps hold the last output."""
    state = BranchState("b", make_policy(schedule=schedule, weights=rows, forecaster="hold", applied_to="output"))
    found = []
    for step, value in enumerate(outputs()):
        reused = state.check(step, None)
        found.append(state.handed(step, state.residual() if reused else value, SIZES[step], reused=reused))
        if reused:
            state.reuse(None)
        else:
            state.store_residual(step, None, value)
    return found


def by_measuring(schedule: Any, rows: Any) -> list[torch.Tensor]:
    """What sampling a plan again hands on, with the weights as they are."""
    driver, found, last = Refit(None, SIZES, schedule, rows, fills=False), [], None
    state = torch.zeros(2, 5, dtype=torch.float64)
    for step, value in enumerate(outputs()):
        last = value if step in schedule else last
        assert last is not None
        found.append(driver.handed(step, last, state))
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans())
def test_forward_measuring_and_replay_hand_on_the_same(make_policy: Any, plan: Any) -> None:
    schedule, rows = plan
    replayed = handed_rows(schedule, rows, filled_by_hold(schedule), np.array(SIZES))
    expected = np.einsum("st,tab->sab", replayed, outputs().numpy())
    for found in (by_branch(make_policy, schedule, rows), by_measuring(schedule, rows)):
        np.testing.assert_allclose(torch.stack(found).numpy(), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(plan=plans())
def test_after_every_computed_step_the_sample_is_where_the_rows_say(plan: Any) -> None:
    schedule, rows = plan
    sizes = np.array(SIZES)[:, None]
    handed = np.cumsum(sizes * handed_rows(schedule, rows, filled_by_hold(schedule), np.array(SIZES)), axis=0)
    said = np.cumsum(sizes * matrix(schedule, rows, STEPS), axis=0)
    for step in schedule:
        np.testing.assert_allclose(handed[step], said[step], atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(plan=plans())
def test_rows_that_fill_are_handed_on_as_they_are(plan: Any) -> None:
    schedule, rows = plan
    corrected = CorrectedOutputs(Corrector(rows, schedule, fills=True))
    computed: list[int] = []
    for step, value in enumerate(outputs()):
        computed += [step] if step in schedule else []
        found = corrected.handed(step, value, SIZES[step], computed=step in schedule)
        expected = sum(w * outputs()[k] for w, k in zip(rows[step], computed[-len(rows[step]) :], strict=True))
        torch.testing.assert_close(found, expected)


def test_what_a_fit_changes_is_what_is_handed_on() -> None:
    seen = []

    def refine(step: int, size: float, total: list[float]) -> list[float]:
        seen.append((step, size, list(total)))
        return [0.0] * (len(total) - 1) + [2.0 * size]

    corrected = CorrectedOutputs(Corrector(((1.0,), (1.0,), (-1.0, 2.0)), (0, 2), refine=refine))
    first, last = torch.ones(3), torch.full((3,), 5.0)
    assert corrected.handed(0, first, -0.1, computed=True) is first
    assert corrected.handed(1, first, -0.2, computed=False) is first
    handed = corrected.handed(2, last, -0.4, computed=True)
    # The step before has moved the sample by −0.2 already, which the fit's weights do not want.
    torch.testing.assert_close(handed, (2.0 * -0.4 * last + 0.2 * first) / -0.4)
    assert seen == [(2, -0.4, pytest.approx([-0.2 + 0.4, -0.8]))]


def test_weights_of_several_steps_add_up_by_their_sizes() -> None:
    plan = PlannedRows(((1.0,), (1.5,), (-1.0, 2.0)), (0, 2))
    assert wanted(plan, [(1, -0.1), (2, -0.2)], [0, 2]) == pytest.approx([-0.15 + 0.2, -0.4])
    assert wanted(plan, [(2, -0.2)], [1, 2]) is None


def test_a_corrector_keeps_no_more_outputs_than_its_longest_row() -> None:
    rows = tuple((0.0,) * min(2, step) + (1.0,) for step in range(6))
    corrected = CorrectedOutputs(Corrector(rows, range(6)))
    for step, value in itertools.islice(enumerate(outputs()), 6):
        corrected.handed(step, value, -0.1, computed=True)
        assert len(corrected.tensors) == min(3, step + 1)
    corrected.clear()
    assert corrected.tensors == []


def test_a_gradient_of_the_computed_output_goes_through_its_correction() -> None:
    corrected = CorrectedOutputs(Corrector(((1.0,), (-0.5, 1.5)), (0, 1)))
    first, second = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    corrected.handed(0, first, -0.1, computed=True)
    corrected.handed(1, second, -0.1, computed=True).sum().backward()
    assert first.grad is None
    torch.testing.assert_close(second.grad, torch.full((3,), 1.5))
