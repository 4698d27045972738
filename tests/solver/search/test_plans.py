"""Which plans a record offers: none that is worse than a cheaper one, or than sampling with fewer steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.fit.sigma_profile import fit_profile
from easyteacache.solver.replay import baselines
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.replay import Replay
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.replay.segment_objective import typical
from easyteacache.solver.search import plans as offer
from easyteacache.solver.search.planner import Plan
from easyteacache.solver.search.plans import make_plans, undominated, worst_tenth

MakeSet = Callable[..., TraceSet]
REFERENCE_TRACES = Path(__file__).parents[2] / "fixtures" / "traces" / "reference" / "steps-25.safetensors"

WEIGHTS = ((1.0,),) * 4
CORRECTED = Filling("linear", "step", "residual", WEIGHTS)
RESIDUAL, OUTPUT = Filling("linear"), Filling("linear", "step", "output")
THREE, TWO = (0, 1, 2), (0, 2)


@pytest.mark.parametrize(
    ("dearer", "cheaper", "left_out"),
    [
        (Plan(RESIDUAL, THREE), Plan(RESIDUAL, TWO), True),
        (Plan(OUTPUT, THREE), Plan(RESIDUAL, TWO), True),
        (Plan(CORRECTED, THREE), Plan(RESIDUAL, TWO), True),
        (Plan(CORRECTED, THREE), Plan(CORRECTED, TWO), True),
        (Plan(RESIDUAL, THREE, 0.1), Plan(RESIDUAL, TWO, 0.2), True),
        # Who sees the block stack alone has no other.
        (Plan(RESIDUAL, THREE), Plan(OUTPUT, TWO), False),
        (Plan(RESIDUAL, THREE), Plan(CORRECTED, TWO), False),
        # A threshold holds at other step counts, too.
        (Plan(RESIDUAL, THREE, 0.1), Plan(RESIDUAL, TWO), False),
        (Plan(RESIDUAL, THREE), Plan(RESIDUAL, TWO, 0.1), False),
        (Plan(RESIDUAL, THREE), Plan(CORRECTED, THREE), False),
    ],
)
def test_a_dearer_plan_that_is_no_better_is_left_out_where_the_cheaper_one_serves(
    dearer: Plan, cheaper: Plan, left_out: bool
) -> None:
    worse, better = np.array([0.2, 0.3]), np.array([0.1, 0.2])
    for errors in ([worse, better], [better, better]):
        found = undominated([dearer, cheaper], errors)
        assert found == ([cheaper] if left_out else [dearer, cheaper])
    assert undominated([dearer, cheaper], [better, worse]) == [dearer, cheaper]


def test_the_worst_tenth_is_the_largest_of_few() -> None:
    assert worst_tenth(np.array([1.0, 4.0, 2.0])) == pytest.approx(np.log(4.0))
    assert worst_tenth(np.arange(1.0, 21.0)) == pytest.approx(np.log([19.0, 20.0]).mean())


def test_of_recorded_runs_no_offered_plan_is_worse_than_a_cheaper_one_of_its_kind() -> None:
    calibration, heldout = TraceSet.load(REFERENCE_TRACES).split_heldout()
    setting = calibration.settings()[0]
    runs, unseen = (Runs.stack(side.group(*setting).runs) for side in (calibration, heldout))
    found = make_plans(runs, fit_profile(runs.traces), unseen=unseen)
    assert len(found) > 5
    kinds: dict[object, list[tuple[int, float]]] = {}
    for plan in found:
        kind = (plan.threshold is None, plan.filling.applied_to, plan.filling.weights is None)
        errors = baselines.fixed(Replay(runs), plan.computed, plan.filling)
        kinds.setdefault(kind, []).append((len(plan.computed), float(typical(errors))))
        judged = baselines.fixed(Replay(unseen), plan.computed, plan.filling)
        fewer = baselines.fewer_steps(Replay(unseen), len(plan.computed))
        assert np.log(judged).mean() <= np.log(fewer).mean()
        assert worst_tenth(judged) <= worst_tenth(fewer)
    for points in kinds.values():
        for count, value in points:
            assert all(other > value for fewer, other in points if fewer < count)


@pytest.mark.parametrize(("overstated", "offered"), [(1.1, True), (1.3, False)])
def test_a_corrected_plan_gives_way_only_to_one_that_is_clearly_better(
    make_set: MakeSet, monkeypatch: pytest.MonkeyPatch, overstated: float, offered: bool
) -> None:
    runs = Runs.stack(make_set(6, steps=16).runs)
    corrected = Plan(Filling("linear", weights=((1.0,),) * 16), (0, 4, 8, 12))
    plain = Plan(Filling("linear"), (0, 4, 8, 12))
    errors = {corrected: np.full(6, overstated * 0.01), plain: np.full(6, 0.01)}
    monkeypatch.setattr(offer, "_errors", lambda plan, _: errors[plan])
    assert offer._better(corrected, [plain], Replay(runs)) is offered


@pytest.mark.parametrize(
    ("errors", "fewer", "left_out"),
    [
        ([0.1, 0.1, 0.5], [0.4, 0.4, 0.4], True),  # worse in the worst run alone
        ([0.3, 0.3, 0.4], [0.1, 0.1, 0.5], True),  # worse in the mean alone
        ([0.1, 0.1, 0.3], [0.4, 0.4, 0.4], False),
    ],
)
def test_a_plan_that_held_out_runs_find_below_fewer_steps_is_not_offered(
    make_set: MakeSet, monkeypatch: pytest.MonkeyPatch, errors: list[float], fewer: list[float], left_out: bool
) -> None:
    runs = Runs.stack(make_set(8, steps=16).runs)
    unseen, originals = runs.take(range(3)), (baselines.fixed, baselines.fewer_steps)
    everything = make_plans(runs, fit_profile(runs.traces))
    assert everything

    def fixed(replay: Replay, *arguments: Any) -> Any:
        return np.array(errors) if replay.runs is unseen else originals[0](replay, *arguments)

    def fewer_steps(replay: Replay, *arguments: Any) -> Any:
        return np.array(fewer) if replay.runs is unseen else originals[1](replay, *arguments)

    monkeypatch.setattr(offer.baselines, "fixed", fixed)
    monkeypatch.setattr(offer.baselines, "fewer_steps", fewer_steps)
    assert make_plans(runs, fit_profile(runs.traces), unseen=unseen) == ([] if left_out else everything)
