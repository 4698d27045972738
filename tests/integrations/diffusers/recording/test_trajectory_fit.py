"""Weights fitted along the trajectory that uses them, on a velocity field that is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from easyteacache.integrations.diffusers.recording.trajectory_fit import Refit
from easyteacache.records.sampler import euler_map

STEPS, RUNS, SIZE, HISTORY = 12, 5, 40, 4
LEVELS = torch.linspace(1.0, 0.0, STEPS + 1).tolist()
SIZES = [after - before for before, after in itertools.pairwise(LEVELS)]
EULER = euler_map(LEVELS)
SCHEDULES = [(0, 3, 6, 9), (0, 1, 2, 5, 6, 10), (0, 4, 11), tuple(range(STEPS))]

Handed = Callable[[int, Tensor, Tensor], Tensor]


def noise(seed: int = 0) -> Tensor:
    return torch.randn(RUNS, 2, SIZE // 2, generator=torch.Generator().manual_seed(seed))


def velocity(state: Tensor, step: int) -> Tensor:
    return torch.sin(2.0 * state) + (1.0 + LEVELS[step]) * state.roll(1, dims=-1)


def sampled(start: Tensor, schedule: Sequence[int], handed: Handed) -> list[Tensor]:
    """States of an Euler run whose reused steps repeat the last computed output, unless it is handed something else."""
    states, output = [start], velocity(start, 0)
    for step, size in enumerate(SIZES):
        output = velocity(states[-1], step) if step in schedule else output
        states.append(states[-1] + size * handed(step, output, states[-1]))
    return states


def as_it_is(step: int, output: Tensor, state: Tensor) -> Tensor:
    return output


def with_rows(rows: Sequence[Sequence[float]], schedule: Sequence[int], fills: bool) -> Handed:
    """As a calibration's weights are used: the state after a computed step is what all rows up to it say."""
    outputs: list[Tensor] = []
    base: list[Tensor] = []
    moved = torch.zeros(())

    def handed(step: int, output: Tensor, state: Tensor) -> Tensor:
        nonlocal moved
        if step in schedule:
            outputs.append(output)
        row = rows[step]
        total = sum(weight * held for weight, held in zip(row, outputs[-len(row) :], strict=True))
        if not base:
            base.append(state)
            moved = torch.zeros_like(state)
        moved = moved + SIZES[step] * total
        return (base[0] + moved - state) / SIZES[step] if fills or step in schedule else output

    return handed


def error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    return float((found[-1] - exact[-1]).norm() / exact[-1].norm())


def holding(schedule: Sequence[int]) -> list[tuple[float, ...]]:
    """Weights that hold the last output, over as many outputs as there are up to ``HISTORY``."""
    seen = [len([place for place in schedule if place <= step]) for step in range(STEPS)]
    return [(0.0,) * (min(HISTORY, count) - 1) + (1.0,) for count in seen]


@pytest.fixture(scope="module")
def exact() -> list[Tensor]:
    return sampled(noise(), range(STEPS), as_it_is)


@pytest.mark.parametrize("fills", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rows_say_what_was_handed_to_the_sampler(
    exact: list[Tensor], schedule: tuple[int, ...], fills: bool
) -> None:
    refit = Refit(exact, EULER, schedule, holding(schedule), fills=fills)
    found = sampled(noise(), schedule, refit.handed)
    assert len(refit.rows) == STEPS
    seen = [len([place for place in schedule if place <= step]) for step in range(STEPS)]
    assert [len(row) for row in refit.rows] == [min(HISTORY, count) for count in seen]
    again = sampled(noise(), schedule, with_rows(refit.rows, schedule, fills))
    for a, b in zip(found, again, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("fills", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES[:3])
def test_they_bring_new_runs_nearer_too(schedule: tuple[int, ...], fills: bool, exact: list[Tensor]) -> None:
    refit = Refit(exact, EULER, schedule, holding(schedule), fills=fills)
    own = error(sampled(noise(), schedule, refit.handed), exact)
    others = sampled(noise(1), range(STEPS), as_it_is)
    fitted = error(sampled(noise(1), schedule, with_rows(refit.rows, schedule, fills)), others)
    plain = error(sampled(noise(1), schedule, as_it_is), others)
    assert own < plain
    assert fitted < 0.7 * plain


def test_a_run_that_computes_everything_is_left_where_it_is(exact: list[Tensor]) -> None:
    refit = Refit(exact, EULER, range(STEPS), holding(range(STEPS)), fills=False)
    assert error(sampled(noise(), range(STEPS), refit.handed), exact) < 1e-6
    for row in refit.rows:
        assert row == pytest.approx((0.0,) * (len(row) - 1) + (1.0,), abs=1e-4)


def test_runs_count_by_their_relative_error(exact: list[Tensor]) -> None:
    # The same runs with one of them a thousand times as large: its share in the fit stays one of five.
    factor = torch.ones(RUNS, 1, 1)
    factor[0] = 1000.0
    plain = Refit(exact, EULER, (0, 3), holding((0, 3)), fills=True)
    scaled = Refit([state * factor for state in exact], EULER, (0, 3), holding((0, 3)), fills=True)
    for step in range(5):
        output, state = velocity(exact[step], step), exact[step]
        plain.handed(step, output, state)
        scaled.handed(step, output * factor, state * factor)
    for a, b in zip(plain.rows, scaled.rows, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_outputs_that_say_nothing_are_handed_on(value: float, exact: list[Tensor]) -> None:
    refit = Refit(exact, EULER, (0, 2), holding((0, 2)), fills=True)
    for step in range(4):
        found = refit.handed(step, torch.full_like(exact[0], value), exact[step])
        assert found.shape == exact[0].shape
        assert found.isnan().all() or not found.isnan().any()
    assert all(all(abs(weight) < 1e3 for weight in row) for row in refit.rows)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_sampler_is_handed_its_own_number_type(dtype: torch.dtype, exact: list[Tensor]) -> None:
    refit = Refit(exact, EULER, (0, 2), holding((0, 2)), fills=False)
    for step in range(3):
        assert refit.handed(step, velocity(exact[step], step).to(dtype), exact[step]).dtype == dtype
