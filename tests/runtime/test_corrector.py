"""One corrector, three drivers: tensors of a branch, guided outputs of many runs, rows of weights in replay."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyteacache.integrations.diffusers.recording.trajectory_fit import Refit
from easyteacache.records.sampler import euler_map
from easyteacache.runtime.branch_state import BranchState
from easyteacache.runtime.corrector import tensor_corrector
from easyteacache.runtime.sampler_steps import SamplerSteps
from easyteacache.solver.replay.fitted_weights import matrix
from easyteacache.solver.replay.handed import handed_rows

STEPS = 9
LEVELS = [1.0 - 0.05 * step - 0.005 * step * (step - 1) for step in range(STEPS + 1)]


def multistep_map() -> np.ndarray:
    """A sampler that corrects its last step with the output it is handed, and continues the last two: of UniPC's kind."""
    sizes, states = np.diff(LEVELS), [np.eye(STEPS + 1)[0]]
    outputs = np.eye(STEPS + 1)[1:]
    right = states[0]
    for step, size in enumerate(sizes):
        if step:
            right = right + sizes[step - 1] * 0.5 * (outputs[step] + outputs[step - 1])
        slope = outputs[step] - outputs[step - 1] if step else 0.0 * outputs[step]
        states.append(right + size * (outputs[step] + 0.5 * slope))
    return np.stack(states)


MAPS = {"euler": euler_map(LEVELS), "multistep": multistep_map()}
EULER = SamplerSteps.of(MAPS["euler"])


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


def by_branch(make_policy: Any, schedule: Any, rows: Any, sampler: Any) -> list[torch.Tensor]:
    """What ``forward`` hands on: reused steps hold the last output."""
    state = BranchState("b", make_policy(schedule=schedule, weights=rows, forecaster="hold", applied_to="output"))
    found = []
    for step, value in enumerate(outputs()):
        reused = state.check(step, None)
        found.append(state.handed(step, state.residual() if reused else value, sampler, reused=reused))
        if reused:
            state.reuse(None)
        else:
            state.store_residual(step, None, value)
    return found


def by_measuring(schedule: Any, rows: Any, sampler_map: Any) -> list[torch.Tensor]:
    """What sampling a plan again hands on, with the weights as they are."""
    driver, found, last = Refit(None, sampler_map, schedule, rows, fills=False), [], None
    state = torch.zeros(2, 5, dtype=torch.float64)
    for step, value in enumerate(outputs()):
        last = value if step in schedule else last
        assert last is not None
        found.append(driver.handed(step, last, state))
    return found


@pytest.mark.parametrize("name", MAPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans())
def test_forward_measuring_and_replay_hand_on_the_same(make_policy: Any, name: str, plan: Any) -> None:
    (schedule, rows), steps = plan, SamplerSteps.of(MAPS[name])
    replayed = handed_rows(schedule, rows, filled_by_hold(schedule), steps)
    expected = np.einsum("st,tab->sab", replayed, outputs().numpy())
    for found in (by_branch(make_policy, schedule, rows, steps), by_measuring(schedule, rows, MAPS[name])):
        np.testing.assert_allclose(torch.stack(found).numpy(), expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("name", MAPS)
@settings(max_examples=60, deadline=None)
@given(plan=plans())
def test_the_state_of_the_next_computed_step_is_where_the_rows_say(name: str, plan: Any) -> None:
    schedule, rows = plan
    moves, said = MAPS[name][:, 1:], matrix(schedule, rows, STEPS)
    handed = handed_rows(schedule, rows, filled_by_hold(schedule), SamplerSteps.of(MAPS[name]))
    for step, state in itertools.pairwise((*schedule[1:], STEPS)):
        # Were the steps in between filled as their rows say.
        both = np.vstack((handed[: step + 1], said[step + 1 :]))
        np.testing.assert_allclose(moves[state] @ both, moves[state] @ said, atol=1e-8)


@pytest.mark.parametrize("name", MAPS)
def test_a_state_follows_from_those_after_any_step(name: str) -> None:
    steps, moves = SamplerSteps.of(MAPS[name]), MAPS[name][:, 1:]
    assert steps is not None
    for step in range(STEPS):
        for state in range(step + 1, STEPS + 1):
            ahead = np.vstack((moves, np.zeros((STEPS, STEPS))))[step + 1 : step + 1 + steps.memory, : step + 1]
            np.testing.assert_allclose(steps.reaching(step, state) @ ahead, moves[state, : step + 1], atol=1e-12)


@pytest.mark.parametrize(("name", "memory"), [("euler", 1), ("multistep", 3)])
def test_a_sampler_s_memory_follows_from_its_map(name: str, memory: int) -> None:
    steps = SamplerSteps.of(MAPS[name])
    assert steps is not None
    assert steps.memory == memory


def test_euler_s_steps_are_those_of_its_map() -> None:
    assert EULER is not None
    plain = SamplerSteps.euler(LEVELS)
    np.testing.assert_allclose(EULER.moves, plain.moves)
    np.testing.assert_allclose(EULER.follows[1:-1], plain.follows[1:-1])
    assert EULER.least == pytest.approx(plain.least)


def test_no_short_memory_explains_a_map_of_noise() -> None:
    drawn = np.tril(np.random.default_rng(0).normal(size=(40, 40)))
    assert SamplerSteps.of(drawn) is None


@settings(max_examples=40, deadline=None)
@given(plan=plans())
def test_rows_that_fill_are_handed_on_as_they_are(plan: Any) -> None:
    schedule, rows = plan
    corrected = tensor_corrector(rows, schedule, fills=True)
    computed: list[int] = []
    for step, value in enumerate(outputs()):
        computed += [step] if step in schedule else []
        found = corrected.handed(step, value, EULER, computed=step in schedule)
        expected = sum(w * outputs()[k] for w, k in zip(rows[step], computed[-len(rows[step]) :], strict=True))
        torch.testing.assert_close(found, expected)


def test_what_a_fit_changes_is_what_is_handed_on() -> None:
    seen = []

    def refine(step: int, size: float, total: list[float]) -> list[float]:
        seen.append((step, size, list(total)))
        return [0.0] * (len(total) - 1) + [2.0 * size]

    corrected = tensor_corrector(((1.0,), (1.0,), (-1.0, 2.0)), (0, 2), refine=refine)
    first, last, sampler = torch.ones(3), torch.full((3,), 5.0), SamplerSteps.euler([1.0, 0.9, 0.7, 0.3])
    assert corrected.handed(0, first, sampler, computed=True) is first
    assert corrected.handed(1, first, sampler, computed=False) is first
    handed = corrected.handed(2, last, sampler, computed=True)
    # The step before has moved the sample by −0.2 already, which the fit's weights do not want.
    torch.testing.assert_close(handed, (2.0 * -0.4 * last + 0.2 * first) / -0.4)
    assert seen == [(2, pytest.approx(-0.4), pytest.approx([-0.2 + 0.4, -0.8]))]


def test_a_corrector_keeps_no_more_outputs_than_its_longest_row() -> None:
    rows = tuple((0.0,) * min(2, step) + (1.0,) for step in range(6))
    corrected = tensor_corrector(rows, range(6))
    for step, value in itertools.islice(enumerate(outputs()), 6):
        corrected.handed(step, value, EULER, computed=True)
        assert len(corrected.tensors) == min(3, step + 1)
    corrected.clear()
    assert corrected.tensors == []


def test_a_gradient_of_the_computed_output_goes_through_its_correction() -> None:
    corrected = tensor_corrector(((1.0,), (-0.5, 1.5)), (0, 1))
    first, second = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    corrected.handed(0, first, EULER, computed=True)
    corrected.handed(1, second, EULER, computed=True).sum().backward()
    assert first.grad is None
    torch.testing.assert_close(second.grad, torch.full((3,), 1.5))
