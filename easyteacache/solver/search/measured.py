"""Choose between schedules with fitted weights: by the traces alone, or by sampling runs with the model itself.

Traces say exactly what a plan gets wrong at each step, not what the model makes of it. Where the model is at hand, sampling settles that,
and fits the weights to the outputs that the plan itself computes: on the reference model the best of the candidates is 1 to 3 dB, in
the worst samples up to 10 dB, better than the first, and weights of its own are worth up to 0.6 dB more where few steps are computed.
Ten runs are enough for weights and too few for a choice: samples differ by more than schedules do (docs/solver.md). So plans race.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from easyteacache.records.bucket import FITTED
from easyteacache.records.trace import Array
from easyteacache.runtime.predictors import families
from easyteacache.solver.replay.fitted_weights import StateFit, Weights, correctable
from easyteacache.solver.replay.gate_replay import Schedule
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.runs import Runs
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
    """

    weights: Weights
    errors: Array

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


#: A schedule's own weights fill its reused steps.
BY_WEIGHTS = Filling(FITTED, "step", "output")
#: Or a forecast of the residual does, whose head then sees the actual sample. Traces cannot tell that it is better, sampling can.
FILLED_BY = tuple(Filling(name) for family in families() for name in family.sampled)
#: Schedules that are sampled with every filling; the others with the first alone.
FINALISTS = 2
#: The view that is searched under when nothing is measured.
UNMEASURED = ("measured",)


class FittedPlans:
    """Plans with fitted weights, bucket after bucket.

    Candidates are measured in the first bucket of every step count and shift, best the shortest, of images and videos apart. What won
    there is what the others get: length matters little (docs/transfer.md), and samples of long ones are dear. Weights are every
    bucket's own.

    Args:
        measure: samples plans with the model; None: traces alone decide.
    """

    def __init__(self, measure: Measure | None = None) -> None:
        self._measure = measure
        self._won: dict[tuple[int, float | None, bool], dict[int, Plan]] = {}

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
            search = FittedSearch(runs, min(counts), views=UNMEASURED, tick=lambda: progress(""))
            return {count: _plan(fit, search.candidates(count)[0], BY_WEIGHTS) for count in counts}
        head = runs.traces[0].header
        setting = (runs.num_steps, head.shift, head.moves)
        if setting in self._won:
            progress(f"sampling {len(counts)} plans of {runs.num_steps} steps")
            won = {count: _plan(fit, plan.computed, plan.filling) for count, plan in self._won[setting].items()}
            return {count: _refitted(won[count], self._measure(runs, won[count])) for count in counts}
        search = FittedSearch(runs, min(counts), tick=lambda: progress(""))
        self._won[setting] = {
            count: _best(self._measure, fit, runs, search.candidates(count), progress) for count in counts
        }
        return self._won[setting]


def _best(measure: Measure, fit: StateFit, runs: Runs, schedules: Sequence[Schedule], progress: Progress) -> Plan:
    """The best of all schedules with one filling, then of the best two with every other."""
    progress(f"sampling plans that compute {len(schedules[0])} of {runs.num_steps} steps")

    def sample(plan: Plan, batches: int) -> Measured:
        return measure(runs, plan, batches=batches)

    rounds = measure.batches(runs)
    plans = [_plan(fit, schedule, FILLED_BY[0]) for schedule in schedules]
    finalists = [plan for plan, _ in race(plans, sample, rounds)[:FINALISTS]]
    others = [_plan(fit, plan.computed, filling) for filling in (BY_WEIGHTS, *FILLED_BY[1:]) for plan in finalists]
    return _refitted(*race([*finalists, *others], sample, rounds)[0])


def _refitted(plan: Plan, measured: Measured) -> Plan:
    return dataclasses.replace(plan, filling=dataclasses.replace(plan.filling, weights=measured.weights))


def _plan(fit: StateFit, schedule: Schedule, filling: Filling) -> Plan:
    return Plan(dataclasses.replace(filling, weights=fit.weights(schedule)), schedule)
