"""Computed steps carried over the noise level."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyteacache.errors import InvalidPlan
from easyteacache.policy.carry import _nearest, carried, places, shifted_levels
from easyteacache.policy.carry_limits import why_not
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.sampler import SamplerRecord


@st.composite
def plans(draw: st.DrawFn) -> tuple[tuple[int, ...], int]:
    num_steps = draw(st.integers(2, 60))
    return (0, *sorted(draw(st.sets(st.integers(1, num_steps - 1))))), num_steps


shifts = st.floats(0.5, 12.0)


@given(plans(), shifts)
def test_a_plan_carried_to_its_own_levels_is_itself(plan: tuple[tuple[int, ...], int], shift: float) -> None:
    computed, num_steps = plan
    levels = shifted_levels(num_steps, shift)
    assert carried(computed, levels, levels) == computed


@given(plans(), st.integers(2, 60), shifts, shifts)
def test_the_share_of_computed_steps_is_kept(
    plan: tuple[tuple[int, ...], int], target: int, own: float, other: float
) -> None:
    computed, num_steps = plan
    found = carried(computed, shifted_levels(num_steps, own), shifted_levels(target, other))
    assert found[0] == 0
    assert all(a < b for a, b in itertools.pairwise(found))
    assert found[-1] < target
    expected = 1 if len(computed) == 1 else max(round(len(computed) * target / num_steps), 2)
    assert len(found) == min(expected, target)


def test_steps_keep_their_noise_levels_when_the_shift_changes() -> None:
    # Shift 1 has ten steps above σ = 0.8; at shift 4 levels fall later, so that the same levels lie at later steps.
    own, other = shifted_levels(50, 1.0), shifted_levels(50, 4.0)
    computed = (0, 10, 20, 30, 40)
    found = carried(computed, own, other)
    assert found[1:] == tuple(
        min(
            range(50),
            key=lambda step: abs(math.log(other[step] / (1 - other[step] + 1e-12)) - math.log(own[k] / (1 - own[k]))),
        )
        for k in computed[1:]
    )
    assert all(b > a for a, b in zip(computed[1:], found[1:], strict=True))


def test_every_second_of_fifty_steps_is_every_second_of_twenty_five() -> None:
    computed = tuple(range(0, 50, 2))
    found = carried(computed, shifted_levels(50, 3.0), shifted_levels(25, 3.0))
    assert len(found) == 12
    assert (found[0], found[-1]) == (0, 24)
    assert {b - a for a, b in itertools.pairwise(found)} == {2, 3}


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=5), st.integers(0, 4))
def test_steps_are_the_best_of_all_ascending_choices(wanted: list[float], more: int) -> None:
    there = sorted({round(x, 3) for x in (*[-6.0], *[k * 1.3 - 4 for k in range(len(wanted) + more)])})
    found = _nearest(wanted, there)

    def cost(steps: tuple[int, ...]) -> float:
        return sum(abs(there[step] - place) for step, place in zip(steps[1:], wanted[1:], strict=True))

    others = [(0, *rest) for rest in itertools.combinations(range(1, len(there)), len(wanted) - 1)]
    assert found in others
    assert cost(found) == pytest.approx(min(map(cost, others)))


def test_places_of_noise_sizes_are_logarithms() -> None:
    assert places([14.6, 2.0, 0.5, 0.0]) == pytest.approx([-math.log(14.6), -math.log(2.0), math.log(2.0)])
    assert places([1.0, 0.5, 0.0]) == pytest.approx([math.log(1e-3 / (1 - 1e-3)), 0.0])


def test_a_sample_left_at_the_last_calls_level_is_carried_as_any_other() -> None:
    levels = shifted_levels(20, 3.0)
    left = (*levels[:-1], levels[-2])
    assert carried((0, 1, 2, 5, 9), shifted_levels(20, 3.0), left) == (0, 1, 2, 5, 9)
    run = RunContext(num_steps=20, begun=True, sampler=SamplerRecord.euler(left))
    assert why_not((), Request(speedup=2.0), run) is None
    twice = (*levels[:5], levels[4], *levels[6:])
    run = RunContext(num_steps=20, begun=True, sampler=SamplerRecord.euler(twice))
    assert "more than once at one noise level" in str(why_not((), Request(speedup=2.0), run))


@pytest.mark.parametrize(
    ("computed", "levels", "message"),
    [
        ((1, 2), shifted_levels(5), "ascending indices below 5 that begin with 0"),
        ((0, 5), shifted_levels(5), "ascending indices below 5"),
        ((), shifted_levels(5), "ascending indices below 5"),
        ((0, 1), [1.0, 0.5, 0.5, 0.0], "strictly falling"),
        ((0,), [1.0], "two or more"),
    ],
)
def test_what_cannot_be_carried_is_refused(computed: tuple[int, ...], levels: list[float], message: str) -> None:
    with pytest.raises(InvalidPlan, match=message):
        carried(computed, levels, shifted_levels(5))
