"""The search for schedules with fitted weights, and the choice between its candidates by a model that is at hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from easyteacache.policy.policy import resolve
from easyteacache.policy.request import request_and_run
from easyteacache.records import calibration as records
from easyteacache.records.sampler import EULER, SamplerRecord
from easyteacache.records.trace_set import Trace, TraceHeader, TraceSet
from easyteacache.solver.fit.sigma_profile import fit_profile
from easyteacache.solver.replay.fitted_weights import StateFit, Weights, matrix
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.propagation import responses
from easyteacache.solver.replay.replay import Replay, policy_at
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.replay.segment_objective import typical
from easyteacache.solver.search import plans as offer
from easyteacache.solver.search.answers import Answers
from easyteacache.solver.search.fitted_search import (
    FittedSearch,
    Judge,
    eliminate,
    extend,
    improve,
    least_regret,
    reduce,
)
from easyteacache.solver.search.measured import BY_WEIGHTS, FILLED_BY, QUICK, THOROUGH, FittedPlans, Measured
from easyteacache.solver.search.planner import Plan
from easyteacache.solver.solve import solve
from easyteacache.solver.validation.validate import validate

Array = NDArray[np.float64]
MakeSet = Callable[..., TraceSet]
STEPS, SIZE = 16, 6
REFERENCE_TRACES = Path(__file__).parents[2] / "fixtures" / "traces" / "reference" / "steps-25.safetensors"


# A model that is known: the exact velocity of a mixture of points ---------------------------------------------------------


@dataclass(frozen=True)
class Mixture:
    """Flow matching between noise and a few points: v = (x − E[point | x]) / σ, as a trained model would answer."""

    points: Array

    def velocity(self, state: Array, sigma: float) -> Array:
        distances = np.square(state - (1.0 - sigma) * self.points).sum(axis=1) / (2.0 * sigma**2)
        shares = np.exp(distances.min() - distances)
        return np.asarray((state - shares @ self.points / shares.sum()) / sigma)

    def sample(self, noise: Array, levels: Array, rows: Array, computed: Sequence[int]) -> tuple[Array, Array]:
        """(D,) the sample and (S, D) the outputs of an Euler run that is handed ``rows`` (S, S) times them."""
        state, outputs = noise.copy(), np.zeros((len(rows), len(noise)))
        for step, row in enumerate(rows):
            if step in computed:
                outputs[step] = self.velocity(state, float(levels[step]))
            state = state + (levels[step + 1] - levels[step]) * (row @ outputs)
        return state, outputs


MODEL = Mixture(2.0 * np.random.default_rng(5).normal(size=(4, SIZE)))


def levels_of(steps: int) -> Array:
    u = np.linspace(1.0, 0.0, steps + 1)
    return np.asarray(3.0 * u / (1.0 + 2.0 * u))


def noise_of(seed: int) -> Array:
    return np.random.default_rng([seed, 77]).normal(size=SIZE)


def traced(seed: int, *, steps: int = STEPS, length: int = 64, frames: int = 1) -> Trace:
    levels = levels_of(steps)
    _, outputs = MODEL.sample(noise_of(seed), levels, np.eye(steps), range(steps))
    header = TraceHeader(
        model_key="test/mixture",
        signals=("timestep_projection",),
        branches=("cond",),
        num_steps=steps,
        sequence_length=length,
        frames=frames,
        sampler=SamplerRecord.euler(tuple(levels.tolist())),
        shift=3.0,
        prompt="a point",
        seed=seed,
    )
    gram = outputs @ outputs.T
    gram = (gram + gram.T) / 2
    changes = np.abs(np.diff(outputs, axis=0)).mean(axis=1) / np.abs(outputs[:-1]).mean(axis=1)
    return Trace(
        header=header,
        timesteps=1000.0 * levels[:-1],
        sigmas=levels,
        signal_distances={"timestep_projection": {"cond": np.linspace(0.1, 0.4, steps - 1)}},
        output_distances={"cond": changes},
        residual_distances={"cond": changes},
        grams={"cond": gram, "output:cond": gram},
    )


def stacked(count: int = 12, **settings: Any) -> Runs:
    return Runs.stack([traced(seed, **settings) for seed in range(count)])


def sampled(runs: Runs, plan: Plan) -> Array:
    """Errors of the samples themselves, (R,)."""
    assert plan.filling.weights is not None
    rows = matrix(plan.computed, plan.filling.weights, runs.num_steps)
    found = np.empty(len(runs))
    for number, trace in enumerate(runs.traces):
        noise = noise_of(trace.header.seed or 0)
        exact, _ = MODEL.sample(noise, runs.sigmas, np.eye(runs.num_steps), range(runs.num_steps))
        cached, _ = MODEL.sample(noise, runs.sigmas, rows, plan.computed)
        found[number] = np.linalg.norm(cached - exact) / np.linalg.norm(exact)
    return found


def changed(weights: Weights) -> Weights:
    return tuple((2.0 * row[0], *row[1:]) for row in weights)


def held(schedule: Sequence[int]) -> Weights:
    """The last computed output at every step, and half of one before it."""
    seen = [len([place for place in schedule if place <= step]) for step in range(STEPS)]
    return tuple((1.0,) if count == 1 else (0.5, 1.0) for count in seen)


def bare(plan: Plan) -> Filling:
    return replace(plan.filling, weights=None)


class Counted:
    """A measure that samples honestly, doubles the first weight of every row, and notes what it was asked.

    ``worse`` scales the errors of fillings.
    """

    def __init__(self, **worse: float) -> None:
        self.worse, self.known, self.sizes = worse, dict[Plan, Measured](), list[int | None]()

    @property
    def asked(self) -> list[Plan]:
        return list(self.known)

    def batches(self, runs: Runs) -> int:
        return 1

    def size(self, runs: Runs) -> int:
        return len(runs)

    def seconds(self, runs: Runs) -> float | None:
        return None

    def __call__(self, runs: Runs, plan: Plan, *, batches: int | None = None) -> Measured:
        self.sizes.append(batches)
        return self.known.setdefault(plan, self.sampled(runs, plan))

    def sampled(self, runs: Runs, plan: Plan) -> Measured:
        assert plan.filling.weights == StateFit(runs).weights(plan.computed)
        errors = sampled(runs, plan) * self.worse.get(plan.filling.forecaster, 1.0)
        return Measured(changed(plan.filling.weights), errors)


@pytest.fixture(scope="module")
def runs() -> Runs:
    return stacked()


# Searching ----------------------------------------------------------------------------------------------------------------


def judged(runs: Runs, *views: str) -> Judge:
    return Judge(StateFit(runs, view=np.stack([responses(runs.sigmas, view=view) for view in views])))


@pytest.mark.parametrize("views", [1, 3])
def test_under_views_at_once_repeated_errors_are_added_up_as_if_at_right_angles(runs: Runs, views: int) -> None:
    schedule, answers = (0, 2, 5, 9, 13), np.random.default_rng(3).uniform(0.5, 5.0, (views, STEPS))
    weights, grams = StateFit(runs).weights(schedule), runs.gram("output") / np.square(runs.displacement)[:, None, None]
    totals = np.cumsum(matrix(schedule, weights, STEPS) * np.diff(runs.sigmas)[:, None], axis=0)
    missed = totals - np.tril(np.tile(np.diff(runs.sigmas), (STEPS, 1)))
    found = StateFit(runs, view=answers).errors_of(schedule, weights)
    for position, view in enumerate(answers):
        before: dict[int, Array] = {}
        for step in (*schedule[1:], STEPS):
            own = np.einsum("i,rij,j->r", missed[step - 1], grams, missed[step - 1])
            repeated = sum((totals[step - 1, k] * view[k] * error) ** 2 for k, error in before.items())
            before[step] = np.sqrt(own + repeated)
        assert found[position] == pytest.approx(before[STEPS], rel=1e-6)


@pytest.mark.parametrize("views", [("measured",), ("measured", "earliest")])
def test_elimination_gives_a_schedule_of_every_count_each_within_the_last(runs: Runs, views: tuple[str, ...]) -> None:
    found = eliminate(judged(runs, *views), 3)
    assert sorted(found) == list(range(3, STEPS + 1))
    for count in range(3, STEPS):
        assert len(found[count]) == count
        assert found[count][0] == 0
        assert set(found[count]) < set(found[count + 1])


@pytest.mark.parametrize("computed", [1, 3, 5, 8])
@pytest.mark.parametrize("weights", [None, (1.0, 0.0)])
def test_improving_keeps_count_and_step_zero_and_leaves_no_move_that_gains(
    runs: Runs, computed: int, weights: tuple[float, float] | None
) -> None:
    judge, shares = judged(runs, "measured", "rising"), np.array(weights or (0.5, 0.5))
    even = tuple(sorted({round(k * STEPS / computed) for k in range(computed)}))
    found = improve(judge, even, None if weights is None else shares)
    assert (len(found), found[0], sorted(set(found))) == (computed, 0, list(found))
    assert found[-1] < STEPS
    assert shares @ judge.of(found) <= shares @ judge.of(even)
    # Not even among those that were not tried again after the last move.
    for old in found[1:]:
        for new in {old - 2, old - 1, old + 1, old + 2} & set(range(1, STEPS)) - set(found):
            assert shares @ judge.of(tuple(sorted({*found, new} - {old}))) >= shares @ judge.of(found) - 1e-4


def test_more_steps_are_added_where_they_help_most(runs: Runs) -> None:
    judge = judged(runs, "measured")
    found = extend(judge, (0, 6, 11), 5)
    assert set(found) > {0, 6, 11}
    assert len(found) == 5
    first = extend(judge, (0, 6, 11), 4)
    others = [tuple(sorted((0, 6, 11, step))) for step in range(1, STEPS) if step not in (6, 11)]
    assert judge.of(first).mean() == min(judge.of(other).mean() for other in others)


def test_the_schedule_that_no_view_finds_poor_is_taken() -> None:
    values = {"first": (0.0, 3.0), "second": (3.0, 0.0), "between": (1.0, 1.2), "never": (4.0, 4.0)}
    judge: Any = type("Judge", (), {"of": staticmethod(lambda name: np.array(values[name]))})
    names: Any = list(values)
    assert least_regret(judge, names) == "between"
    # What all views find equally poor loses nothing.
    assert least_regret(judge, ["never"]) == "never"  # type: ignore[list-item]


COUNTS = (3, 4, 6, 8)


def test_a_budget_is_never_predicted_worse_than_a_cheaper_one() -> None:
    calibration, _ = TraceSet.load(REFERENCE_TRACES).split_heldout()
    for setting in calibration.settings()[:2]:
        runs = Runs.stack(calibration.group(*setting).runs)
        counts = range(5, 21)
        search, judge = FittedSearch(runs, counts), Judge(StateFit(runs, view=Answers.expected(runs).plausible()))
        values = np.stack([judge.of(search.best(count)) for count in counts])
        assert (np.diff(values, axis=0) < 0.0).all()


def test_a_search_finds_what_no_single_start_finds(runs: Runs) -> None:
    search, judge = FittedSearch(runs, COUNTS), Judge(StateFit(runs, view=Answers.expected(runs).plausible()))
    starts = eliminate(judge, 3)
    for computed in COUNTS:
        best = search.best(computed)
        assert judge.of(best).mean() <= judge.of(starts[computed]).mean() + 0.05
        assert len(best) == computed
        assert best[0] == 0


def test_what_is_left_of_a_dearer_plan_is_no_better_than_what_is_chosen(runs: Runs) -> None:
    search, judge = FittedSearch(runs, COUNTS), Judge(StateFit(runs, view=Answers.expected(runs).plausible()))
    for dearer, count in itertools.pairwise(sorted(set(COUNTS), reverse=True)):
        left = reduce(judge, search.best(dearer), count)
        assert len(left) == count
        assert set(left) <= set(search.best(dearer))
        assert judge.of(search.best(count)).mean() <= judge.of(left).mean() + 0.05


def test_candidates_are_different_and_the_same_twice_and_the_best_is_first(runs: Runs) -> None:
    first, second = FittedSearch(runs, COUNTS), FittedSearch(runs, COUNTS)
    for computed in COUNTS:
        found = first.candidates(computed)
        assert found == second.candidates(computed) == first.candidates(computed)
        assert len(set(found)) == len(found)
        assert found[0] == first.best(computed)
        assert all(len(schedule) == computed and schedule[0] == 0 for schedule in found)
    assert any(len(first.candidates(computed)) > 1 for computed in COUNTS)


# Choosing -----------------------------------------------------------------------------------------------------------------


def test_the_candidate_that_samples_best_is_chosen(runs: Runs) -> None:
    measure, counts = Counted(fitted=1.01, quadratic=1.01, foca=1.01), (8, 5, 4, 3)
    plans = FittedPlans(measure, THOROUGH).plans(runs, counts)
    search, surprises = FittedSearch(runs, counts), 0
    for count in counts:
        candidates = search.candidates(count)
        asked = [plan for plan in measure.asked if len(plan.computed) == count]
        assert {plan.computed for plan in asked} == set(candidates)
        values = {plan.computed: float(typical(sampled(runs, plan))) for plan in asked if bare(plan) == FILLED_BY[0]}
        ranked = sorted(candidates, key=lambda schedule: values[schedule])
        assert plans[count].computed == ranked[0]
        surprises += ranked[0] != candidates[0]
        # The two best schedules are tried with every filling, the others with one.
        assert {plan.computed for plan in asked if bare(plan) != FILLED_BY[0]} == set(ranked[:2])
        assert len(asked) == len(candidates) + 3 * min(2, len(candidates))
    # Otherwise measuring would have been for nothing.
    assert surprises


def test_with_little_effort_few_plans_are_sampled_and_it_is_said_before(runs: Runs) -> None:
    class Timed(Counted):
        def seconds(self, runs: Runs) -> float | None:
            assert not self.known
            return 90.0

    measure, told, counts = Timed(), list[str](), (8, 5, 4, 3)
    FittedPlans(measure).plans(runs, counts, told.append)
    assert len(measure.known) <= (QUICK.schedules or 0) * len(counts) + len(counts)
    spent = len(runs) * (1.0 + sum(len(plan.computed) / STEPS for plan in measure.known))
    said = QUICK.work([count / STEPS for count in counts], len(runs))
    assert 0.5 * said <= spent <= 1.01 * said
    [first] = [message for message in told if "uncached" in message]
    assert told.index(first) == 0
    assert f"about {said:.0f} uncached runs: {said * 90 / 60:.0f} minutes, for one takes 90 seconds" in first


def test_a_search_that_goes_on_promises_no_time(runs: Runs) -> None:
    class Kept(Counted):
        def seconds(self, runs: Runs) -> float | None:
            return None

    told = list[str]()
    FittedPlans(Kept()).plans(runs, (5, 4), told.append)
    said = QUICK.work([5 / STEPS, 4 / STEPS], len(runs))
    kept = f"takes as long as about {said:.0f} uncached runs in all; what was sampled before is kept"
    assert told[0] == f"sampling plans of {STEPS} steps {kept}"


def test_six_runs_and_the_usual_budgets_take_about_sixty_uncached_runs() -> None:
    assert QUICK.work([0.8, 0.66, 0.5, 0.4, 0.32, 0.24, 0.2], 6) == pytest.approx(60.0, rel=0.1)


class Answering(Counted):
    """What its outputs answer is known: ``strength`` times what is expected of any model."""

    def __init__(self, runs: Runs, strength: Callable[[int], float]) -> None:
        super().__init__()
        self.curve, self.strength = Answers.expected(runs).curve, strength

    def __call__(self, runs: Runs, plan: Plan, *, batches: int | None = None) -> Measured:
        found = super().__call__(runs, plan, batches=batches)
        return replace(found, answers={step: self.curve[step] * self.strength(step) for step in plan.computed[1:]})


def test_what_the_model_answers_moves_the_schedules_that_are_sampled(runs: Runs) -> None:
    counts, shown = (6, 5, 4), []
    for loud in (range(8), range(8, STEPS)):
        measure = Answering(runs, lambda step, loud=loud: 8.0 if step in loud else 0.2)  # type: ignore[misc]
        FittedPlans(measure).plans(runs, counts)
        shown.append({plan.computed for plan in measure.known} - {FittedSearch(runs, counts).best(n) for n in counts})
    assert shown[0] != shown[1]


def test_one_filling_is_chosen_for_all_budgets_together(runs: Runs) -> None:
    for worse, wanted in (({"linear": 2.0}, "fitted"), ({"fitted": 2.0}, "linear")):
        plans = FittedPlans(Counted(**worse)).plans(runs, (8, 5, 4))
        assert {plan.filling.forecaster for plan in plans.values()} == {wanted}


def test_only_close_candidates_are_sampled_on_more_runs(runs: Runs) -> None:
    class Batched(Counted):
        """Three batches; every schedule is good and bad at runs of its own."""

        def batches(self, runs: Runs) -> int:
            return 3

        def __call__(self, runs: Runs, plan: Plan, *, batches: int | None = None) -> Measured:
            assert batches is not None
            most[plan] = max(batches, most.get(plan, 0))
            one, luck = super().__call__(runs, plan), np.random.default_rng(list(plan.computed))
            return Measured(
                one.weights, np.tile(one.errors, batches) * luck.uniform(0.5, 2.0, 3 * len(runs))[: batches * len(runs)]
            )

    most: dict[Plan, int] = {}
    [found] = FittedPlans(Batched(), THOROUGH).plans(runs, (5,)).values()
    assert {1, 3} <= set(most.values())
    assert 3 in {
        batches for plan, batches in most.items() if (plan.computed, bare(plan)) == (found.computed, bare(found))
    }


@pytest.mark.parametrize("filling", [BY_WEIGHTS, *FILLED_BY])
def test_what_fills_the_reused_steps_best_is_chosen_by_sampling_too(runs: Runs, filling: Filling) -> None:
    worse = {each.forecaster: 2.0 for each in (BY_WEIGHTS, *FILLED_BY) if each != filling}
    [plan] = FittedPlans(Counted(**worse), THOROUGH).plans(runs, (5,)).values()
    assert bare(plan) == filling
    # And with the weights that sampling found.
    assert plan.filling.weights == changed(StateFit(runs).weights(plan.computed))


def test_without_a_measure_the_schedule_of_least_regret_is_taken(runs: Runs) -> None:
    plans = FittedPlans().plans(runs, (8, 4))
    search = FittedSearch(runs, (8, 4))
    assert {count: plan.computed for count, plan in plans.items()} == {n: search.best(n) for n in (8, 4)}
    assert {bare(plan) for plan in plans.values()} == {Filling("linear", "step", "residual")}


def test_another_length_takes_the_plans_over_with_weights_of_its_own(runs: Runs) -> None:
    measure, counts = Counted(), (5, 3)
    fitted = FittedPlans(measure)
    short = fitted.plans(runs, counts)
    assert None not in measure.sizes
    asked = len(measure.sizes)
    others = Runs.stack([traced(seed, length=128) for seed in range(20, 32)])
    long = fitted.plans(others, counts)
    # Each winner is sampled once, for its weights, which takes fewer runs than the choice.
    assert measure.sizes[asked:] == [None] * len(counts)
    for count in counts:
        assert long[count].computed == short[count].computed
        assert bare(long[count]) == bare(short[count])
        assert long[count].filling.weights == changed(StateFit(others).weights(long[count].computed))
        assert long[count].filling.weights != short[count].filling.weights


@pytest.mark.parametrize("other", [{"steps": 12}, {"frames": 4}], ids=["other steps", "a video"])
def test_other_step_counts_and_videos_are_chosen_for_themselves(runs: Runs, other: dict[str, int]) -> None:
    measure, counts = Counted(), (5, 3)
    fitted = FittedPlans(measure)
    fitted.plans(runs, counts)
    before = len(measure.sizes)
    fitted.plans(stacked(**other), counts)
    assert len(measure.sizes) > before + len(counts)
    assert None not in measure.sizes


def test_runs_of_another_sampler_have_no_fitted_plans_and_are_measured_never(make_set: MakeSet) -> None:
    measure = Counted()
    assert FittedPlans(measure).plans(Runs.stack(make_set(4).runs), (10, 5)) == {}
    assert not measure.asked


def test_a_corrected_plan_that_replay_finds_worse_is_offered_only_where_it_was_sampled(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrected(fitted: FittedPlans) -> list[int]:
        plans = offer.make_plans(runs, fit_profile(runs.traces), fitted=fitted)
        return [len(plan.computed) for plan in plans if plan.filling.weights]

    everything = corrected(FittedPlans())
    assert everything
    monkeypatch.setattr(StateFit, "weights", lambda self, schedule: held(schedule))
    monkeypatch.setattr(offer, "_worth_offering", lambda plan, replay: True)
    monkeypatch.setattr(offer, "undominated", lambda plans, errors: plans)
    assert corrected(FittedPlans()) == []
    assert set(corrected(FittedPlans(Counted()))) >= set(everything)


# A whole record -----------------------------------------------------------------------------------------------------------


def test_without_euler_a_record_is_solved_without_fitted_points(make_set: MakeSet) -> None:
    record = solve(make_set(8, steps=12)).calibration
    points = [point for bucket in record.buckets for point in bucket.operating_points]
    assert points
    assert all(point.weights is None for point in points)


@pytest.fixture(scope="module")
def traces(make_set: MakeSet) -> TraceSet:
    return make_set(12, steps=STEPS, sampler=EULER)


@pytest.fixture(scope="module")
def record(traces: TraceSet) -> records.Calibration:
    return solve(traces, signal="modulated_input").calibration


def test_a_record_of_euler_runs_has_fitted_points_that_state_their_error(
    record: records.Calibration, traces: TraceSet
) -> None:
    [bucket] = record.buckets
    fitted = [point for point in bucket.operating_points if point.weights is not None]
    assert fitted
    replay = Replay(Runs.stack(traces.split_heldout()[1].runs))
    for point in fitted:
        policy = policy_at(record, bucket, point)
        assert policy.weights == point.weights
        assert policy.fitted_for == bucket.sampler
        found = replay.errors(replay.decide(policy), Filling("linear", "step", "residual", point.weights))
        assert point.error is not None
        assert found.mean() == pytest.approx(point.error.mean, rel=1e-4)


def test_such_a_record_passes_validation_and_survives_its_file(
    record: records.Calibration, traces: TraceSet, tmp_path: Any
) -> None:
    report = validate(record, traces)
    assert report.passed, report.text()
    records.save(record, tmp_path / "c.json")
    assert records.load(tmp_path / "c.json") == record


def test_it_holds_the_noise_levels_its_weights_were_fitted_at(record: records.Calibration, traces: TraceSet) -> None:
    for speedup in (1.5, 2.0, 4.0):
        policy = resolve(record, *request_and_run(sequence_length=64, num_steps=STEPS, shift=3.0, speedup=speedup))
        if policy.weights is not None:
            assert policy.noise_levels == pytest.approx(tuple(traces[0].sigmas), abs=1e-6)
            break
    else:
        pytest.fail("no fitted point was chosen")


def test_a_record_with_weights_of_other_runs_is_refused(record: records.Calibration, traces: TraceSet) -> None:
    [bucket] = record.buckets
    points = [
        point
        if point.weights is None
        else point.model_copy(
            update={
                "plan": point.plan.model_copy(
                    update={"rows": tuple(row if len(row) < 2 else (*row[:-1], row[-1] * 1.5) for row in point.weights)}
                )
            }
        )
        for point in bucket.operating_points
    ]
    wrong = record.model_copy(update={"buckets": (bucket.model_copy(update={"operating_points": tuple(points)}),)})
    report = validate(wrong, traces)
    assert not report.passed
    assert "point.misstated" in {finding.rule for finding in report.failures}
