from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.propagation import gains
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.replay.segment_objective import Objective, typical
from easyteacache.solver.search import schedules
from easyteacache.solver.search.planner import Planner, changes, computed_steps

MakeSet = Callable[..., TraceSet]
FILLINGS = [Filling("hold"), Filling("linear"), Filling("quadratic", "timestep", "output"), Filling("foca")]


def objective(runs: Runs, filling: Filling) -> Objective:
    return Objective(runs, filling, gains(runs.sigmas))


def value(found: Objective, plan: tuple[int, ...]) -> float:
    return float(typical(found.errors(plan)))


def searched_value(found: Objective, plan: tuple[int, ...]) -> float:
    """What the local search itself minimises."""
    return float(typical(found.errors_of([found.segments(plan)]))[0])


@pytest.mark.parametrize("computed", [1, 2, 7, 19, 20])
def test_constructions_compute_as_many_steps_as_asked_from_step_zero(computed: int) -> None:
    table = np.linspace(1.0, 5.0, 19)
    for plan in (schedules.uniform(20, computed), schedules.equalised(table, computed)):
        assert len(plan) == computed
        assert plan[0] == 0
        assert list(plan) == sorted(set(plan))
        assert plan[-1] < 20


def test_equalised_computes_where_things_change() -> None:
    table = np.concatenate([np.full(10, 0.01), np.full(9, 1.0)])
    assert sum(step >= 10 for step in schedules.equalised(table, 10)) >= 8


@pytest.mark.parametrize("filling", FILLINGS, ids=str)
def test_value_of_moves_is_that_of_the_whole_schedules(make_set: MakeSet, filling: Filling) -> None:
    found = objective(Runs.stack(make_set(4).runs), filling)
    base = (0, 2, 5, 6, 11, 15)
    each = [(old, new) for old in base[1:] for new in (*range(1, 20), None) if new not in base]
    moves = [*each, *((old, old) for old in base[1:])]
    whole = [tuple(sorted({*base} - {old} | ({new} if new else set()))) for old, new in moves]
    assert [schedules.moved(base, *move) for move in moves] == whole
    assert schedules.values(found, base, moves) == pytest.approx([searched_value(found, move) for move in whole])


@pytest.mark.parametrize("filling", FILLINGS, ids=str)
def test_elimination_gives_a_schedule_for_every_count(make_set: MakeSet, filling: Filling) -> None:
    plans = schedules.eliminate(objective(Runs.stack(make_set(4).runs), filling), 3)
    assert sorted(plans) == list(range(3, 21))
    assert all(len(plan) == count and plan[0] == 0 for count, plan in plans.items())


@pytest.mark.parametrize("filling", FILLINGS, ids=str)
def test_local_search_never_makes_a_schedule_worse(make_set: MakeSet, filling: Filling) -> None:
    found = objective(Runs.stack(make_set(4).runs), filling)
    for count in (4, 8, 14):
        start = schedules.uniform(20, count)
        better = schedules.improve(found, start)
        assert len(better) == count
        assert searched_value(found, better) <= searched_value(found, start)


@pytest.mark.parametrize("filling", FILLINGS[:3], ids=str)
def test_search_comes_within_five_percent_of_the_best_of_all_schedules(make_set: MakeSet, filling: Filling) -> None:
    found = objective(Runs.stack(make_set(4, steps=14).runs), filling)
    everything = [(0, *rest) for rest in itertools.combinations(range(1, 14), 5)]
    best = min(value(found, plan) for plan in everything)
    starts = [schedules.eliminate(found, 6)[6], schedules.uniform(14, 6), schedules.equalised(changes(found.runs), 6)]
    assert min(value(found, schedules.improve(found, start)) for start in starts) <= best + np.log(1.05)


@pytest.mark.parametrize("speedup", [1.25, 1.5, 2.0, 3.0, 4.0, 5.0])
def test_searched_plan_is_never_worse_than_uniform_or_greedy_on_runs_it_has_not_seen(
    make_set: MakeSet, speedup: float
) -> None:
    traces = make_set(24, steps=30)
    calibration, heldout = (Runs.stack(side.runs) for side in traces.split_heldout())
    plan = Planner(calibration).scheduled(computed_steps(30, speedup))
    judge = objective(heldout, plan.filling)
    count = len(plan.computed)
    assert value(judge, plan.computed) <= value(judge, schedules.uniform(30, count))
    assert value(judge, plan.computed) <= value(judge, schedules.equalised(changes(calibration), count))


def test_the_search_looks_at_the_worst_runs_too() -> None:
    calm = np.array([0.1, 0.1, 0.1, 0.1, 0.1])
    wild = np.array([0.09, 0.09, 0.09, 0.09, 0.5])
    assert np.log(wild).mean() < np.log(calm).mean() + 0.25
    assert typical(calm) < typical(wild)


def test_the_error_of_a_plan_does_not_depend_on_the_other_runs(make_set: MakeSet) -> None:
    runs = Runs.stack(make_set(5).runs)
    plan = (0, 1, 4, 9, 13)
    together = objective(runs, Filling("linear", "step", "output")).errors(plan)
    alone = [objective(runs.take([i]), Filling("linear", "step", "output")).errors(plan)[0] for i in range(5)]
    assert together == pytest.approx(alone)


def test_early_errors_weigh_more() -> None:
    levels = np.linspace(1.0, 0.0, 11)
    assert gains(levels, early=3.0)[0] == pytest.approx(3.0)
    assert np.all(np.diff(gains(levels)) < 0)
    assert gains(levels, early=1.0) == pytest.approx(1.0)
