"""The oracle of `tools/bench/oracle.py` on a measure that is known: it ends at the best schedule within reach of its moves."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.search.measured import Measured
from easyteacache.solver.search.planner import Plan

STEPS, RUNS = 20, 12
BEST = (0, 4, 9, 15)


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("bench/oracle.py")


class Valley:
    """The further a schedule is from ``BEST``, the larger the error; the first runs may think otherwise."""

    def __init__(self, *, misled: bool = False) -> None:
        self.misled, self.asked = misled, list[int]()

    def __call__(self, runs: Any, plan: Plan, *, batches: int | None = None) -> Measured:
        assert plan.filling.weights is not None
        self.asked.append(len(runs))
        distance = sum(abs(a - b) for a, b in zip(plan.computed, BEST, strict=True))
        sign = -1.0 if self.misled and len(runs) < RUNS else 1.0
        return Measured(plan.filling.weights, np.full(len(runs), 0.01 * np.exp(sign * 0.1 * distance)))


class FewRuns(list[int]):
    num_steps = STEPS

    def take(self, indices: Any) -> FewRuns:
        return FewRuns(self[i] for i in indices)


def found(tool: ModuleType, measure: Valley, monkeypatch: pytest.MonkeyPatch, *, known: Any) -> float:
    weights = ((1.0,),) * STEPS
    begin = Plan(Filling("linear", weights=weights), (0, 6, 8, 12))
    monkeypatch.setattr(tool, "FittedPlans", lambda measure, effort: SimpleNamespace(plans=lambda *_: {4: begin}))
    monkeypatch.setattr(tool, "StateFit", lambda runs: SimpleNamespace(weights=lambda schedule: weights))
    oracle = tool.Oracle(FewRuns(range(RUNS)), measure, lambda message: None)
    return float(oracle.best(4, known)[1].errors[0])


def policy(schedule: tuple[int, ...] | None) -> Any:
    return SimpleNamespace(
        schedule=schedule, forecaster="linear", coordinate="step", applied_to="residual", weights=None
    )


def test_moves_lead_to_the_best_schedule(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Valley()
    assert found(tool, measure, monkeypatch, known=policy(None)) == pytest.approx(0.01)
    # Moves are screened on the first runs, and few of them sampled on all.
    assert measure.asked.count(tool.SCREENED) > 2 * measure.asked.count(RUNS)


def test_a_move_that_only_the_first_runs_like_is_not_made(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(tool, Valley(misled=True), monkeypatch, known=policy(None)) == pytest.approx(0.01 * np.exp(0.6))


def test_the_record_s_own_schedule_is_one_to_begin_with(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for known in (policy(BEST), policy((0, 4, 9))):
        error = found(tool, Valley(misled=True), monkeypatch, known=known)
        assert (error == pytest.approx(0.01)) == (known.schedule == BEST)
