"""Choose between schedules with fitted weights: by the traces alone, or by sampling a few runs with the model itself.

Traces say exactly what a plan gets wrong at each step, not what the model makes of it. Where the model is at hand, a few sampled runs
settle that: on the reference model the best of the candidates is 1 to 3 dB, in the worst samples up to 10 dB, better than the first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from easyteacache.bucket import FITTED
from easyteacache.solver.filling import Filling
from easyteacache.solver.fitted import Schedule, StateFit, correctable
from easyteacache.solver.fitted_search import FittedSearch
from easyteacache.solver.objective import typical
from easyteacache.solver.plan import Plan
from easyteacache.solver.runs import Runs

Array = NDArray[np.float64]
Progress = Callable[[str], None]
#: Samples every plan on some of the runs with the model: (P, R) errors of the final sample, relative L2.
Measure = Callable[[Runs, Sequence[Plan]], Array]
#: A schedule's own weights fill its reused steps.
BY_WEIGHTS = Filling(FITTED, "step", "output")
#: Or a forecast of the residual does, whose head then sees the actual sample. Traces cannot tell that it is better, sampling can.
FILLED_BY = ("linear", "foca")
#: The view that is searched under when nothing is measured.
UNMEASURED = ("measured",)
SMALLEST = 1e-12


class FittedPlans:
    """Plans with fitted weights, bucket after bucket.

    Measured is the first bucket of every step count and shift, best the shortest. What won there is what the others get: length matters
    little (docs/transfer.md), and samples of long ones are dear. Weights are every bucket's own.

    Args:
        measure: samples plans with the model; None: traces alone decide.
    """

    def __init__(self, measure: Measure | None = None) -> None:
        self._measure = measure
        self._won: dict[tuple[int, float | None], dict[int, Plan]] = {}

    def plans(self, runs: Runs, counts: Sequence[int], progress: Progress = lambda _: None) -> dict[int, Plan]:
        """Computed steps → plan, for every number in ``counts``; empty where a sampler cannot be handed corrections."""
        if not correctable(runs):
            return {}
        fit = StateFit(runs)
        if self._measure is None:
            search = FittedSearch(runs, min(counts), views=UNMEASURED, tick=lambda: progress(""))
            return {count: _plan(fit, search.candidates(count)[0]) for count in counts}
        setting = (runs.num_steps, runs.traces[0].header.shift)
        if setting not in self._won:
            search = FittedSearch(runs, min(counts), tick=lambda: progress(""))
            self._won[setting] = {
                count: self._measured(self._measure, fit, runs, search.candidates(count), progress) for count in counts
            }
        won = self._won[setting]
        return {count: _plan(fit, won[count].computed, won[count].filling) for count in counts}

    def _measured(
        self, measure: Measure, fit: StateFit, runs: Runs, schedules: Sequence[Schedule], progress: Progress
    ) -> Plan:
        """The best schedule filled by its weights, then what fills that schedule best."""
        progress(f"sampling {len(schedules)} plans of {len(schedules[0])} steps")
        plans = [_plan(fit, schedule) for schedule in schedules]
        errors = typical(np.maximum(measure(runs, plans), SMALLEST))
        first = int(np.argmin(errors))
        others = [_plan(fit, plans[first].computed, Filling(name)) for name in FILLED_BY]
        filled = typical(np.maximum(measure(runs, others), SMALLEST))
        best = int(np.argmin(filled))
        return others[best] if filled[best] < errors[first] else plans[first]


def _plan(fit: StateFit, schedule: Schedule, filling: Filling = BY_WEIGHTS) -> Plan:
    return Plan(dataclasses.replace(filling, weights=fit.weights(schedule)), schedule)
