"""The error a replay predicts from Gram matrices is the error that the tensors themselves give."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from easyteacache.policy.curves import Polynomial
from easyteacache.policy.policy import BucketShare, Policy
from easyteacache.records.bucket import OperatingPoint
from easyteacache.records.plan import Plan
from easyteacache.records.trace_set import Trace, TraceSet
from easyteacache.runtime.predictors import predictor, predictors
from easyteacache.solver.fit.bucket_fit import fit_bucket
from easyteacache.solver.fit.sigma_profile import fit_profile
from easyteacache.solver.replay import baselines
from easyteacache.solver.replay.plan_errors import PlanErrors
from easyteacache.solver.replay.predictor_rows import Filling, Rows, coordinates
from easyteacache.solver.replay.replay import Replay, mean_computed, policy_at
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.replay.segment_objective import COHERENCE, Objective
from easyteacache.solver.solve import solve
from easyteacache.teacache import TeaCache

SCHEDULES = [(0, 1, 2, 5, 9, 10, 16), (0, 7, 8, 19), (0, 3, 6, 9, 12, 15, 18), (0,)]


def forecasts(
    vectors: np.ndarray, schedule: tuple[int, ...], filling: Filling, at: list[float], levels: list[float]
) -> np.ndarray:
    """Errors (S, D) of every reused step, with the tensors and the predictor in our hands."""
    fill = predictor(filling.forecaster).over(levels)
    errors = np.zeros_like(vectors)
    for step in range(len(vectors)):
        if step in schedule:
            continue
        anchors = [k for k in schedule if k < step][-fill.history :]
        reused = [at[k] for k in range(anchors[0], step) if k not in anchors]
        weights = fill.weights([at[k] for k in anchors], at[step], reused=reused)
        errors[step] = sum(w * vectors[k] for w, k in zip(weights, anchors, strict=True)) - vectors[step]
    return errors


@pytest.mark.parametrize("target", ["residual", "output"])
@pytest.mark.parametrize(("name", "coordinate"), [(n, axis) for n in predictors() for axis in predictor(n).axes])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_gram_replay_equals_brute_force(
    make_run: Callable[..., Any], schedule: tuple[int, ...], name: str, coordinate: Any, target: Any
) -> None:
    made = make_run(3)
    filling = Filling(name, coordinate, target)
    runs = Runs.stack([made.trace])
    vectors = (made.residuals if target == "residual" else made.outputs)["guided"]
    errors = forecasts(vectors, schedule, filling, coordinates(coordinate, runs), list(runs.sigmas))
    rows = Rows(filling, runs).matrix(schedule)
    local = np.einsum("si,ij,sj->s", rows, runs.gram(target)[0], rows)
    assert np.sqrt(np.maximum(local, 0.0)) == pytest.approx(np.linalg.norm(errors, axis=1), rel=1e-5, abs=1e-5)


def fed_back(
    errors: np.ndarray, schedule: tuple[int, ...], filling: Filling, at: list[float], levels: np.ndarray
) -> np.ndarray:
    """The disturbance (D,) at the end of a run whose outputs answer one with δv = δx / σ, with the tensors in our hands."""
    fill = predictor(filling.forecaster)
    states = [np.zeros(errors.shape[1])]
    answers: dict[int, np.ndarray] = {}
    for step in range(len(errors)):
        if step in schedule:
            answers[step] = change = states[-1] / levels[step]
        else:
            anchors = [k for k in schedule if k < step][-fill.history :]
            reused = [at[k] for k in range(anchors[0], step) if k not in anchors]
            weights = fill.weights([at[k] for k in anchors], at[step], reused=reused)
            change = errors[step] + sum(w * answers[k] for w, k in zip(weights, anchors, strict=True))
        states.append(states[-1] + (levels[step + 1] - levels[step]) * change)
    return states[-1]


@pytest.mark.parametrize("name", ["hold", "quadratic", "taylor-2", "foca"])
def test_predicted_final_error_is_that_of_both_cases_with_tensors(make_run: Callable[..., Any], name: str) -> None:
    made = make_run(5)
    runs, schedule = Runs.stack([made.trace]), (0, 1, 4, 9, 10, 15)
    filling, gains = Filling(name, "sigma" if name != "hold" else "step", "output"), np.linspace(2.0, 1.0, 20)
    at = coordinates(filling.coordinate, runs)
    errors = forecasts(made.outputs["guided"], schedule, filling, at, list(runs.sigmas))
    scaled = (gains * runs.moves[-1])[:, None] * errors
    together, apart = np.sum(scaled.sum(axis=0) ** 2), np.sum(scaled**2)
    growing = COHERENCE * together + (1 - COHERENCE) * apart
    pulled = np.sum(fed_back(errors, schedule, filling, at, runs.sigmas) ** 2)
    moved = np.linalg.norm(runs.moves[-1] @ made.outputs["guided"])
    assert Objective(runs, filling, gains).errors(schedule) == pytest.approx(
        [np.sqrt(growing + pulled) / moved], rel=1e-5
    )


def test_computing_every_step_has_no_error(make_set: Callable[..., TraceSet]) -> None:
    runs = Runs.stack(make_set(3).runs)
    assert Objective(runs, Filling("linear"), np.ones(20)).errors(tuple(range(20))) == pytest.approx(0.0, abs=1e-9)


def policy(**changes: Any) -> Policy:
    plain = Policy(
        model_key="test/smooth",
        revision=1,
        status="draft",
        layer="given",
        signal="modulated_input",
        curve=Polynomial((1.0, 0.0)),
        threshold=0.1,
        first_skip_step=1,
        last_skip_step=None,
        max_consecutive_skips=None,
        buckets=(BucketShare(64, 20, 3.0, 1.0),),
        sequence_length=64,
        num_steps=20,
    )
    return dataclasses.replace(plain, **changes)


def runtime_decisions(chosen: Policy, distances: list[float], sigmas: list[float]) -> tuple[int, ...]:
    """What ``TeaCache`` itself computes when a signal moves by ``distances`` (relative L1)."""
    cache = TeaCache.from_policy(chosen)
    signal, hidden, computed = torch.ones(1, 4, dtype=torch.float64), torch.ones(1, 2, 3), []
    for step, sigma in enumerate(sigmas):
        if step:
            signal = signal * (1.0 + distances[step - 1])
        if cache.check(step, signal, 64, sigma=sigma):
            cache.update(signal, hidden)
        else:
            computed.append(step)
            cache.store_truth(step, signal, hidden, hidden + 1.0, 64)
    return tuple(computed)


@pytest.mark.parametrize(
    "changes", [{}, {"max_consecutive_skips": 2}, {"first_skip_step": 5, "last_skip_step": 15}, {"threshold": 0.4}]
)
def test_replay_decides_as_the_runtime_does_on_a_curve(
    make_set: Callable[..., TraceSet], changes: dict[str, Any]
) -> None:
    traces, chosen = make_set(3), policy(**changes)
    for trace, decided in zip(traces, Replay(Runs.stack(traces.runs)).decide(chosen), strict=True):
        distances = trace.signal_distances["modulated_input"]["cond"].tolist()
        assert decided["cond"] == runtime_decisions(chosen, distances, trace.sigmas[:-1].tolist())


def test_replay_decides_as_the_runtime_does_on_a_profile(make_set: Callable[..., TraceSet]) -> None:
    traces = make_set(3)
    chosen = policy(profile=fit_profile(traces.runs).curve(), threshold=0.2)
    decided = Replay(Runs.stack(traces.runs)).decide(chosen)
    assert decided[0]["cond"] == runtime_decisions(chosen, [9.0] * 19, traces[0].sigmas[:-1].tolist())
    assert 1 < len(decided[0]["cond"]) < 20


@pytest.mark.parametrize("crossed", [True, False])
@pytest.mark.parametrize("target", ["output", "residual"])
def test_branches_that_decide_differently_are_one_guided_error(
    make_run: Callable[..., Any], target: Any, crossed: bool
) -> None:
    made = make_run(2)
    trace = crossed_trace(made) if crossed else made.trace
    runs = Runs.stack([trace])
    filling = Filling("linear", "step", target)
    plans = {"cond": (0, 3, 9, 14), "uncond": (0, 5, 6, 12)}
    values = made.outputs if target == "output" else made.residuals
    missed = np.zeros_like(values["guided"])
    for branch, share in (("cond", 3.0), ("uncond", -2.0)):
        transfer = runs.of_branch(branch).transfer_of(target)[:, None]
        places = coordinates("step", runs)
        missed += share * transfer * forecasts(values[branch], plans[branch], filling, places, list(runs.sigmas))
    expected = np.linalg.norm(runs.moves[-1] @ missed) / runs.displacement[0]
    found = PlanErrors(runs, view=np.zeros(20)).errors(plans, filling)[0]
    # Without the branches' inner products their symmetric part stands for them, from the guided stream.
    assert found == pytest.approx(expected, rel=1e-6 if crossed else 0.1)
    assert Replay(runs).errors([plans], filling)[0] >= found


def test_one_plan_is_one_error_whether_branches_are_asked_for_together_or_apart(make_run: Callable[..., Any]) -> None:
    runs = Runs.stack([crossed_trace(make_run(seed)) for seed in range(3)])
    plan, filling, errors = (0, 3, 9, 14), Filling("linear", "step", "output"), PlanErrors(runs)
    together = errors.errors(plan, filling)
    assert errors.errors(dict.fromkeys(("cond", "uncond"), plan), filling) == pytest.approx(together)
    assert errors._of_branches({"cond": plan, "uncond": plan}, filling) == pytest.approx(together, rel=1e-6)


def crossed_trace(made: Any) -> Trace:
    """The run with the inner products of its branches, as it is recorded today."""
    cross = {
        f"{prefix}cond*{prefix}uncond": values["cond"] @ values["uncond"].T
        for prefix, values in (("", made.residuals), ("output:", made.outputs))
    }
    return dataclasses.replace(made.trace, grams={**made.trace.grams, **cross})


def test_every_operating_point_states_the_error_its_policy_replays_to(make_set: Callable[..., TraceSet]) -> None:
    traces = make_set(12, steps=16)
    record = solve(traces, signal="modulated_input").calibration
    _, heldout = traces.split_heldout()
    replay = Replay(Runs.stack(heldout.runs))
    for point in record.buckets[0].operating_points:
        chosen = policy_at(record, record.buckets[0], point)
        decided = replay.decide(chosen)
        assert mean_computed(decided) == point.computed_steps
        errors = replay.errors(decided, Filling(point.forecaster, point.coordinate, point.applied_to))
        assert point.error is not None
        assert errors.mean() == pytest.approx(point.error.mean, rel=1e-4)


def test_fewer_steps_is_an_euler_sampler_that_keeps_each_output_over_the_skipped_ones(
    make_run: Callable[..., Any],
) -> None:
    made = make_run(1)
    runs = Runs.stack([made.trace])
    coarse = [0, 5, 10, 15]
    outputs = made.outputs["guided"]
    held = sum((runs.sigmas[min(k + 5, 20)] - runs.sigmas[k]) * outputs[k] for k in coarse)
    difference = np.linalg.norm(held - runs.moves[-1] @ outputs) / runs.displacement[0]
    objective = Objective(runs, Filling("hold", "step", "output"), np.ones(20))
    segments = objective.segments(tuple(coarse))
    together = np.linalg.norm(np.sum([s.direction for s in segments], axis=0) @ outputs) / runs.displacement[0]
    assert together == pytest.approx(difference, rel=1e-9)
    assert baselines.fewer_steps(Replay(runs), 4)[0] > 0


def test_identity_baseline_computes_no_more_than_asked(make_set: Callable[..., TraceSet]) -> None:
    replay = Replay(Runs.stack(make_set(4).runs))
    bare = policy()
    assert mean_computed(baselines.at_equal_cost(replay, bare, 8)) <= 8


def test_an_operating_point_of_a_schedule_is_followed_exactly(make_set: Callable[..., TraceSet]) -> None:
    traces = make_set(8, steps=16)
    record = solve(traces, signal="modulated_input").calibration
    point = OperatingPoint(plan=Plan(computed=(0, 2, 5, 9), predictor="hold"))
    bucket = record.buckets[0].model_copy(update={"max_consecutive_skips": None})
    decided = Replay(Runs.stack(traces.runs)).decide(policy_at(record, bucket, point))
    assert {plan for branches in decided for plan in branches.values()} == {(0, 2, 5, 9)}


def test_fit_of_the_deciding_curve_is_used_by_the_gate(make_set: Callable[..., TraceSet]) -> None:
    traces = make_set(6)
    curve = fit_bucket(traces.runs, "modulated_input").chosen.curve()
    replay = Replay(Runs.stack(traces.runs))
    few = mean_computed(replay.decide(policy(curve=curve, threshold=0.5)))
    many = mean_computed(replay.decide(policy(curve=curve, threshold=0.05)))
    assert few < many
