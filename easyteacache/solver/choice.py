"""Choose between schedules with fitted weights: by the traces alone, or by sampling a few runs with the model itself.

Traces say exactly what a plan gets wrong at each step, not what the model makes of it. Where the model is at hand, a few sampled runs
settle that: on the reference model the best of the candidates is 1 to 3 dB, in the worst samples up to 10 dB, better than the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

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
#: The view that is searched under when nothing is measured.
UNMEASURED = ("measured",)
SMALLEST = 1e-12


class FittedPlans:
    """Plans with fitted weights, bucket after bucket.

    Measured is the first bucket of every step count and shift, best the shortest. The schedules that won there are those of the others:
    length matters little (docs/transfer.md), and samples of long ones are dear. Weights are every bucket's own.

    Args:
        measure: samples plans with the model; None: traces alone decide.
    """

    def __init__(self, measure: Measure | None = None) -> None:
        self._measure = measure
        self._won: dict[tuple[int, float | None], dict[int, Schedule]] = {}

    def plans(self, runs: Runs, counts: Sequence[int], progress: Progress = lambda _: None) -> dict[int, Plan]:
        """Computed steps → plan, for every number in ``counts``; empty where a sampler cannot be handed corrections."""
        if not correctable(runs):
            return {}
        fit = StateFit(runs)
        setting = (runs.num_steps, runs.traces[0].header.shift)
        if self._measure is None:
            search = FittedSearch(runs, min(counts), views=UNMEASURED, tick=lambda: progress(""))
            return {count: _plan(fit, search.candidates(count)[0]) for count in counts}
        if setting not in self._won:
            self._won[setting] = self._measured(fit, runs, counts, progress)
        return {count: _plan(fit, self._won[setting][count]) for count in counts}

    def _measured(self, fit: StateFit, runs: Runs, counts: Sequence[int], progress: Progress) -> dict[int, Schedule]:
        assert self._measure is not None
        search, won = FittedSearch(runs, min(counts), tick=lambda: progress("")), {}
        for count in counts:
            candidates = [_plan(fit, schedule) for schedule in search.candidates(count)]
            progress(f"sampling {len(candidates)} plans of {count} steps")
            errors = self._measure(runs, candidates)
            won[count] = candidates[int(np.argmin(typical(np.maximum(errors, SMALLEST))))].computed
        return won


def _plan(fit: StateFit, schedule: Schedule) -> Plan:
    return Plan(Filling("fitted", "step", "output", fit.weights(schedule)), schedule)
