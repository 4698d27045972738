"""Choose between schedules with fitted weights: by the traces alone, or by sampling runs with the model itself.

Traces say exactly what a plan gets wrong at each step, not what the model makes of it. Where the model is at hand, sampling settles that,
and fits the weights to the outputs that the plan itself computes: on the reference model the best of the candidates is 1 to 3 dB, in
the worst samples up to 10 dB, better than the first, and weights of its own are worth up to 0.6 dB more where few steps are computed.
Ten runs are enough for weights and too few for a choice: samples differ by more than schedules do (docs/solver.md). So few samples are spent
on what they show best. Every plan that is sampled shows how outputs answer to disturbances, at all its computed steps, and the search is done
again with that; what fills reused steps best is the model's, and asked of all budgets together. Where more runs can be had, plans race.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from easyteacache.records.bucket import FITTED
from easyteacache.records.trace import Array
from easyteacache.runtime.predictors import families
from easyteacache.solver.replay.fitted_weights import StateFit, Weights, correctable
from easyteacache.solver.replay.gate_replay import Schedule
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.search.answers import Answers
from easyteacache.solver.search.fitted_search import FittedSearch
from easyteacache.solver.search.planner import Plan
from easyteacache.solver.search.race import race, typical_of

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Measured:
    """A plan that was sampled.

    Attributes:
        weights: fitted to what the plan itself computed, from those of the traces on.
        errors: (R,) of the final samples with them, relative L2, above 0.
        answers: computed step → ‖δv‖ / ‖δx‖, what its output differed by from the uncached run's, relative to what the state did;
            empty where nobody says.
    """

    weights: Weights
    errors: Array
    answers: Mapping[int, float] = dataclasses.field(default_factory=dict)

    @property
    def typical(self) -> float:
        """One number for all runs, a logarithm."""
        return typical_of(self.errors)


class Measure(Protocol):
    """Samples a plan on some of the runs with the model, and fits its weights on from those it has."""

    def __call__(self, runs: Runs, plan: Plan, /, *, batches: int | None = None) -> Measured:
        """``batches``: on the first so many batches of all runs that there is a way to have; None: on recorded ones alone."""
        ...

    def batches(self, runs: Runs, /) -> int:
        """How many of them a choice may take, 1 or more."""
        ...

    def size(self, runs: Runs, /) -> int:
        """How many runs the first batch has."""
        ...

    def seconds(self, runs: Runs, /) -> float | None:
        """How long one uncached run takes; None where that is not known and need not be, because all was sampled before."""
        ...


#: A schedule's own weights fill its reused steps.
BY_WEIGHTS = Filling(FITTED, "step", "output")
#: Or a forecast of the residual does, whose head then sees the actual sample. By traces alone it is the linear one: in 72 pairs of two models it
#: was 0.5 dB better in the mean, and what replay predicts of the difference says nothing about it (docs/solver.md).
FILLED_BY = tuple(Filling(name) for family in families() for name in family.sampled)


@dataclass(frozen=True)
class Effort:
    """How much is sampled before a plan is chosen.

    Attributes:
        schedules: the most that are sampled for every number of computed steps; None: all candidates.
        finalists: how many of them are sampled with every filling.
        fillings: what reused steps may be filled with, the first of all schedules.
        together: one filling is chosen for all numbers of computed steps together, because few runs cannot tell for each.
    """

    schedules: int | None
    finalists: int
    fillings: tuple[Filling, ...]
    together: bool

    def work(self, shares: Sequence[float], runs: int) -> float:
        """How many uncached runs sampling takes as long as, about; more where plans are too close to be told apart on the first batch.

        Args:
            shares: computed steps ÷ steps, of every plan that is asked for.
            runs: of a batch.
        """
        schedules = 9 if self.schedules is None else self.schedules
        return runs * (1.0 + sum(shares) * (schedules + self.finalists * (len(self.fillings) - 1)))


#: Two schedules of every budget, what is expected of any model and what this one shows, filled in two ways: with six runs about sixty uncached runs.
QUICK = Effort(2, 1, (FILLED_BY[0], BY_WEIGHTS), together=True)
#: Every candidate, the two best of them filled in every way: for models that are cheap, and records that many will use.
THOROUGH = Effort(None, 2, (FILLED_BY[0], BY_WEIGHTS, *FILLED_BY[1:]), together=False)


class FittedPlans:
    """Plans with fitted weights, bucket after bucket.

    Candidates are measured in the first bucket of every step count and shift, best the shortest, of images and videos apart. What won
    there is what the others get: length matters little (docs/transfer.md), and samples of long ones are dear. Weights are every
    bucket's own.

    Args:
        measure: samples plans with the model; None: traces alone decide.
        effort: how much of that.
    """

    def __init__(self, measure: Measure | None = None, effort: Effort = QUICK) -> None:
        self._measure, self._effort = measure, effort
        self._won: dict[tuple[int, float | None, bool, str], dict[int, Plan]] = {}

    @property
    def measured(self) -> bool:
        """Whether plans were sampled, and not only predicted."""
        return self._measure is not None

    def plans(self, runs: Runs, counts: Sequence[int], progress: Progress = lambda _: None) -> dict[int, Plan]:
        """Computed steps → plan, for every number in ``counts``; empty where a sampler cannot be handed corrections."""
        if not correctable(runs):
            return {}
        fit = StateFit(runs)
        if self._measure is None:
            search = FittedSearch(runs, counts, tick=lambda: progress(""))
            return {count: _plan(fit, search.best(count), FILLED_BY[0]) for count in counts}
        head = runs.traces[0].header
        setting = (runs.num_steps, head.shift, head.moves, "" if head.sampler is None else head.sampler.name)
        if setting in self._won:
            progress(f"sampling {len(counts)} plans of {runs.num_steps} steps")
            won = {count: _plan(fit, plan.computed, plan.filling) for count, plan in self._won[setting].items()}
            return {count: _refitted(won[count], self._measure(runs, won[count])) for count in counts}
        contest = _Contest(self._measure, self._effort, runs, fit, progress)
        contest.announce(counts)
        self._won[setting] = contest.winners(counts)
        return self._won[setting]


class _Contest:
    """Samples the candidates of one setting."""

    def __init__(self, measure: Measure, effort: Effort, runs: Runs, fit: StateFit, progress: Progress) -> None:
        self._measure, self._effort, self._runs, self._fit, self._tell = measure, effort, runs, fit, progress
        self._rounds = measure.batches(runs)

    def announce(self, counts: Sequence[int]) -> None:
        """Say how long it will take, before it begins."""
        work = self._effort.work([count / self._runs.num_steps for count in counts], self._measure.size(self._runs))
        one = self._measure.seconds(self._runs)
        about = f"as long as about {work:.0f} uncached runs"
        if one is None:
            self._tell(
                f"sampling plans of {self._runs.num_steps} steps takes {about} in all; what was sampled before is kept"
            )
            return
        took = f": {spelled(work * one)}, for one takes {spelled(one)}"
        self._tell(f"sampling plans of {self._runs.num_steps} steps will take {about}{took}")

    def winners(self, counts: Sequence[int]) -> dict[int, Plan]:
        """Computed steps → the plan that won, with the weights that it was sampled with."""
        search = FittedSearch(self._runs, counts, tick=lambda: self._tell(""))
        expected = {count: search.best(count) for count in counts}
        search = self._observed(expected) or search
        ranked = {}
        for count in counts:
            schedules = list(dict.fromkeys((expected[count], search.best(count))))
            if self._effort.schedules is None or self._effort.schedules > len(schedules):
                schedules = list(dict.fromkeys((*schedules, *search.candidates(count))))
            ranked[count] = self._raced([self._plan(each) for each in schedules[: self._effort.schedules]])
        if self._effort.together:
            return self._filled_alike(ranked)
        return {count: self._filled(plans) for count, plans in ranked.items()}

    def _observed(self, expected: Mapping[int, Schedule]) -> FittedSearch | None:
        """The search again, with the answers of this model to what plans of every number of computed steps did; None where nobody says."""
        shown: dict[int, list[float]] = {}
        for schedule in expected.values():
            for step, answer in self._sample(self._plan(schedule), 1).answers.items():
                # After a computed step the state is hardly off, and what is answered to that is rounding.
                if step - 1 not in schedule:
                    shown.setdefault(step, []).append(answer)
        if not shown:
            return None
        steps = sorted(shown)
        answers = [float(np.exp(np.mean(np.log(shown[step])))) for step in steps]
        curve = Answers.expected(self._runs).observed(steps, answers)
        return FittedSearch(self._runs, tuple(expected), answers=curve, tick=lambda: self._tell(""))

    def _filled(self, plans: Sequence[Plan]) -> Plan:
        """The best of the ``plans`` of one number of computed steps, the first ones with every filling."""
        finalists = plans[: self._effort.finalists]
        others = [self._plan(plan.computed, filling) for filling in self._effort.fillings[1:] for plan in finalists]
        return self._finished(self._raced([*finalists, *others])[0])

    def _filled_alike(self, ranked: Mapping[int, Sequence[Plan]]) -> dict[int, Plan]:
        """The best schedule of every number of computed steps, all with the filling that is best for them together."""
        best = {count: plans[0] for count, plans in ranked.items()}

        def together(filling: Filling) -> float:
            plans = [self._plan(plan.computed, filling) for plan in best.values()]
            return float(np.mean([self._sample(plan, 1).typical for plan in plans]))

        chosen = min(self._effort.fillings, key=together)
        return {count: self._finished(self._plan(plan.computed, chosen)) for count, plan in best.items()}

    def _raced(self, plans: Sequence[Plan]) -> list[Plan]:
        return [plan for plan, _ in race(plans, self._sample, self._rounds)]

    def _finished(self, plan: Plan) -> Plan:
        return _refitted(plan, self._sample(plan, 1))

    def _sample(self, plan: Plan, batches: int) -> Measured:
        self._tell(f"sampling {len(plan.computed)} of {self._runs.num_steps} steps, {plan.filling}")
        return self._measure(self._runs, plan, batches=batches)

    def _plan(self, schedule: Schedule, filling: Filling | None = None) -> Plan:
        return _plan(self._fit, schedule, filling or self._effort.fillings[0])


def spelled(seconds: float) -> str:
    """A time as people say it."""
    for unit, length in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds" if seconds >= 2 else f"{seconds:.1g} seconds"


def _refitted(plan: Plan, measured: Measured) -> Plan:
    return dataclasses.replace(plan, filling=dataclasses.replace(plan.filling, weights=measured.weights))


def _plan(fit: StateFit, schedule: Schedule, filling: Filling) -> Plan:
    return Plan(dataclasses.replace(filling, weights=fit.weights(schedule)), schedule)
