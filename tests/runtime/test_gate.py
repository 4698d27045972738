"""The gate alone, on floats."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyteacache.runtime.gate import Gate


def run(gate: Gate, distances: list[float | None], *, decline: frozenset[int] = frozenset()) -> list[bool]:
    """Drive a gate over steps 0 … n; ``distances[k]`` leads to step k + 1."""
    reused = []
    for step in range(len(distances) + 1):
        admitted = gate.admits(step, lambda step=step: distances[step - 1])
        if admitted and step not in decline:
            gate.reused(step)
        else:
            gate.computed(step)
        reused.append(admitted and step not in decline)
    return reused


def never() -> float:
    raise AssertionError("a distance was asked for although it cannot matter")


def test_the_first_step_is_computed() -> None:
    gate = Gate(threshold=9.0, first=0)
    assert not gate.admits(0, never)
    assert gate.reason == "start"


def test_it_computes_after_the_longest_allowed_run() -> None:
    gate = Gate(threshold=9.0, max_consecutive_skips=2)
    assert run(gate, [0.0] * 6) == [False, True, True, False, True, True, False]


def test_no_skip_in_a_row_means_none_at_all() -> None:
    assert not any(run(Gate(threshold=9.0, max_consecutive_skips=0), [0.0] * 5))


def test_the_caller_s_own_limit_holds_for_a_plan_and_the_record_s_does_not() -> None:
    plan = (0, 5)
    reused = [False, True, True, True, True, False, True, True]
    assert run(Gate(schedule=plan, max_consecutive_skips=1), [None] * 7) == reused
    reused = [False, True, True, False, True, False, True, True]
    assert run(Gate(schedule=plan, wished_limit=2), [None] * 7) == reused
    assert not any(run(Gate(schedule=plan, wished_limit=0), [None] * 7))


def test_the_window_is_inclusive_at_both_ends() -> None:
    assert run(Gate(threshold=9.0, first=2, last=4), [0.0] * 6) == [False, False, True, True, True, False, False]


@pytest.mark.parametrize(
    ("arguments", "step", "reason"),
    [
        ({"threshold": 9.0, "first": 3}, 1, "window"),
        ({"threshold": 9.0, "last": 0}, 1, "window"),
        ({"threshold": 9.0, "max_consecutive_skips": 0}, 1, "consecutive"),
        ({"threshold": 0.0}, 1, "off"),
        ({"threshold": -1.0}, 1, "off"),
        ({"threshold": 9.0}, 2, "gap"),
        ({"schedule": (0, 1)}, 1, "schedule"),
    ],
)
def test_a_forced_step_asks_for_no_distance_and_says_why(arguments: dict[str, Any], step: int, reason: str) -> None:
    gate = Gate(**arguments)
    gate.computed(0)
    assert not gate.admits(step, never)
    assert gate.reason == reason
    assert not gate.measures(step)


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, -math.inf])
def test_a_distance_that_is_not_known_computes(unknown: float | None) -> None:
    gate = Gate(threshold=9.0)
    assert run(gate, [unknown, 0.0]) == [False, False, True]
    gate.reset()
    gate.computed(0)
    gate.admits(1, lambda: unknown)
    assert gate.reason == "unpredictable"


def test_a_negative_prediction_gives_credit() -> None:
    assert run(Gate(threshold=0.3), [0.2, -0.5, 0.5, 0.2]) == [False, True, True, True, False]


def test_asking_twice_does_not_accumulate_twice() -> None:
    gate = Gate(threshold=0.25)
    gate.computed(0)
    for _ in range(5):
        assert gate.admits(1, lambda: 0.2)
    gate.reused(1)
    assert gate.accumulated == 0.2


def test_computing_an_admitted_step_starts_the_sum_anew() -> None:
    gate = Gate(threshold=0.35)
    assert run(gate, [0.2] * 4, decline=frozenset({1})) == [False, False, True, False, True]


def test_a_schedule_computes_its_steps_and_nothing_else() -> None:
    gate = Gate(schedule=(0, 3, 4), max_consecutive_skips=1)
    assert run(gate, [math.nan] * 6) == [False, True, True, False, False, True, True]


def test_a_schedule_reuses_no_more_in_a_row_than_the_caller_wishes() -> None:
    reused = [step for step, done in enumerate(run(Gate(schedule=(0, 4, 5), wished_limit=2), [0.0] * 9)) if done]
    assert reused == [1, 2, 6, 7, 9]
    assert not any(run(Gate(schedule=(0, 4), wished_limit=0), [0.0] * 9))
    gate = Gate(schedule=(0,), wished_limit=1)
    run(gate, [0.0] * 2)
    assert gate.reason == "consecutive"


def test_a_schedule_says_nothing_about_steps_beyond_its_window() -> None:
    assert run(Gate(schedule=(0, 3), last=4), [0.0] * 7) == [False, True, True, False, True, False, False, False]


def test_a_reset_gate_computes_next() -> None:
    gate = Gate(threshold=9.0)
    run(gate, [0.0] * 3)
    gate.reset()
    assert not gate.admits(4, never)
    assert gate.accumulated == 0.0


steps = st.lists(st.floats(-0.5, 2.0), min_size=1, max_size=40)


@settings(max_examples=60)
@given(
    steps,
    st.floats(0.01, 3.0),
    st.integers(0, 5),
    st.one_of(st.none(), st.integers(0, 40)),
    st.one_of(st.none(), st.integers(0, 4)),
)
def test_between_computed_steps_the_sum_stays_below_the_threshold(
    distances: list[float], threshold: float, first: int, last: int | None, limit: int | None
) -> None:
    reused = run(Gate(threshold=threshold, first=first, last=last, max_consecutive_skips=limit), distances)
    total, length = 0.0, 0
    assert not reused[0]
    for step, skipped in enumerate(reused[1:], 1):
        if skipped:
            total, length = total + distances[step - 1], length + 1
            assert total < threshold
            assert step >= first
            assert last is None or step <= last
            assert limit is None or length <= limit
        else:
            total, length = 0.0, 0


@settings(max_examples=60)
@given(steps, st.floats(0.01, 1.0), st.floats(1.0, 3.0))
def test_the_first_computed_step_after_the_start_comes_no_earlier_with_a_higher_threshold(
    distances: list[float], threshold: float, factor: float
) -> None:
    def first_computed(limit: float) -> int:
        reused = run(Gate(threshold=limit), distances)
        return next((step for step, skipped in enumerate(reused) if step and not skipped), len(reused))

    assert first_computed(threshold * factor) >= first_computed(threshold)
