"""Operating points: for a target speed-up, the fixed schedule and the threshold that are best, each with its filling.

What generalises is chosen by cross-validation over runs: a filling is searched on one half of the calibration runs and judged
on the other. Held-out runs are never looked at here; they only state the error of what was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from easyteacache.records.trace import Array
from easyteacache.runtime.predictors import families, predictor
from easyteacache.solver.replay import gate_replay
from easyteacache.solver.replay.gate_replay import Schedule, Window
from easyteacache.solver.replay.plan_errors import PlanErrors
from easyteacache.solver.replay.predictor_rows import Filling, Rows, Target
from easyteacache.solver.replay.propagation import gains
from easyteacache.solver.replay.runs import Runs, change_norms
from easyteacache.solver.replay.segment_objective import Objective, typical
from easyteacache.solver.search import schedules

SPEEDUPS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
# A schedule found on this many runs is as good as one found on more; the search then costs the same for any number.
SEARCH_RUNS = 24
FINALISTS = 2


@dataclass(frozen=True)
class Plan:
    """One operating point before it is judged.

    Attributes:
        filling: what fills reused steps.
        computed: the computed steps of a fixed schedule, or what the threshold computes at this bucket's own steps.
        threshold: None for a fixed schedule.
    """

    filling: Filling
    computed: Schedule
    threshold: float | None = None


@dataclass
class Planner:
    """Searches one bucket's plans.

    Attributes:
        runs: its calibration runs.
        fillings: what may fill reused steps; by default everything the traces can judge.
        also: per number of computed steps a schedule that is worth a try with every filling.
        tick: called now and then, for a progress bar.
    """

    runs: Runs
    fillings: tuple[Filling, ...] = ()
    also: Mapping[int, Schedule] = field(default_factory=dict)
    tick: Callable[[], None] = lambda: None
    _objectives: dict[tuple[Filling, int], Objective] = field(default_factory=dict, init=False)
    _rows: dict[Filling, Rows] = field(default_factory=dict, init=False)
    _eliminated: dict[tuple[Filling, int], dict[int, Schedule]] = field(default_factory=dict, init=False)
    _improved: dict[tuple[Filling, int], Schedule] = field(default_factory=dict, init=False)
    _values: dict[tuple[Filling, Schedule, int], float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.fillings = self.fillings or candidates(self.runs)
        chosen = self.runs.take(range(min(SEARCH_RUNS, len(self.runs))))
        halves = (
            [chosen.take(range(start, len(chosen), 2)) for start in (0, 1)] if len(chosen) > 1 else [chosen, chosen]
        )
        self._groups = (chosen, *halves)
        self._gains = gains(self.runs.sigmas)
        self._travels = PlanErrors(self._groups[0], rows=self._rows)
        self._fewest = computed_steps(self.runs.num_steps, max(SPEEDUPS))

    def scheduled(self, computed: int, *, target: Target | None = None) -> Plan:
        """The best fixed schedule of ``computed`` steps with the filling that generalises best.

        Args:
            computed: steps to compute.
            target: only fillings applied to this, ``residual`` or ``output``; None: any.
        """
        promising = self._promising(computed, target)
        finalists = sorted(promising, key=lambda filling: self._crossed(filling, computed))[:FINALISTS]
        plans = [Plan(filling, steps) for filling in finalists for steps in self._tried(filling, computed)]
        return min(plans, key=lambda plan: self._travelled(plan.filling, plan.computed))

    def thresholded(
        self, computed: int, predicted: Sequence[float], window: Window, *, target: Target | None = None
    ) -> Plan | None:
        """The threshold that computes at most ``computed`` steps when a gate follows ``predicted``, with its best filling.

        Args:
            computed: steps to compute at most.
            predicted: output distance predicted for steps 1 … S − 1 of this bucket's own schedule.
            window: where reuse is allowed.
            target: as for ``scheduled``.

        Returns:
            None when no threshold reaches the target within the window, or none that beats evenly spaced steps.
        """
        threshold = _threshold(predicted, window, computed)
        steps = gate_replay.drive(window.gate(threshold), predicted)
        if len(steps) > computed:
            return None
        best = min(self._applied_to(target), key=lambda filling: self._travelled(filling, steps))
        # Evenly spaced steps need no calibration: a threshold that loses to them is not worth offering.
        if self._travelled(best, steps) > self._travelled(best, schedules.uniform(self.runs.num_steps, len(steps))):
            return None
        return Plan(best, steps, threshold)

    def _applied_to(self, target: Target | None) -> list[Filling]:
        return [filling for filling in self.fillings if target in (None, filling.applied_to)]

    def _value(self, filling: Filling, steps: Schedule, group: int = 0) -> float:
        key = (filling, steps, group)
        if key not in self._values:
            self._values[key] = float(typical(self._objective(filling, group).errors(steps)))
        return self._values[key]

    def _promising(self, computed: int, target: Target | None) -> list[Filling]:
        """Fillings worth searching with: those that are best on schedules that need no search."""

        def quick(filling: Filling) -> float:
            return min(self._value(filling, steps) for steps in self._constructed(computed))

        return sorted(self._applied_to(target), key=quick)[: 2 * FINALISTS]

    def _constructed(self, computed: int) -> list[Schedule]:
        return [
            schedules.uniform(self.runs.num_steps, computed),
            schedules.equalised(changes(self._groups[0]), computed),
        ]

    def _crossed(self, filling: Filling, computed: int) -> float:
        """Objective of what is found on one half of the runs, on the other half; mean of both directions."""
        self.tick()
        found = [self._value(filling, self._eliminate(filling, computed, a), b) for a, b in ((1, 2), (2, 1))]
        return sum(found) / len(found)

    def _eliminate(self, filling: Filling, computed: int, group: int) -> Schedule:
        if (filling, group) not in self._eliminated:
            self._eliminated[filling, group] = schedules.eliminate(self._objective(filling, group), self._fewest)
        return self._eliminated[filling, group][computed]

    def _tried(self, filling: Filling, computed: int) -> list[Schedule]:
        """What a search ends with is not always the best of what it met: errors travel further than its objective counts."""
        found = [self._improve(filling, computed), self._eliminate(filling, computed, 0), *self._constructed(computed)]
        return [*found, self.also[computed]] if computed in self.also else found

    def _travelled(self, filling: Filling, steps: Schedule) -> float:
        return float(typical(self._travels.errors(steps, filling)))

    def _improve(self, filling: Filling, computed: int) -> Schedule:
        key = (filling, computed)
        if key not in self._improved:
            starts = [self._eliminate(filling, computed, 0), *self._constructed(computed)]
            best = min(starts, key=lambda steps: self._value(filling, steps))
            self._improved[key] = schedules.improve(self._objective(filling, 0), best, tick=self.tick)
        return self._improved[key]

    def _objective(self, filling: Filling, group: int) -> Objective:
        key = (filling, group)
        if key not in self._objectives:
            rows = self._rows.setdefault(filling, Rows(filling, self.runs))
            self._objectives[key] = Objective(self._groups[group], filling, self._gains, rows=rows)
        return self._objectives[key]


def candidates(runs: Runs) -> tuple[Filling, ...]:
    """Every filling of every registered predictor that these runs can judge: without output Gram matrices nothing applied to the output."""
    # A caller that forecasts the residual may see the block stack alone, and is then not told the time.
    axes = {"residual": ["step"], "output": ["step"] + (["timestep"] if np.all(np.diff(runs.timesteps) < 0) else [])}
    targets = ["residual"] + (["output"] if runs.output is not None else [])
    found = [
        Filling(name, axis, target)  # type: ignore[arg-type]
        for target in targets
        for axis in axes[target]
        for family in families()
        for name in family.searched()
        if target in family.places and axis in family.axes
    ]
    # The simplest first: it wins where several are equally good.
    return tuple(sorted(found, key=lambda filling: predictor(filling.forecaster).history > 1))


def computed_steps(num_steps: int, speedup: float) -> int:
    """The most steps that may be computed to be ``speedup`` times as fast, at least 1."""
    return max(1, math.floor(num_steps / speedup + 1e-9))


def changes(runs: Runs) -> Array:
    """Relative change of the residual from each step to the next, mean over runs, (S − 1,)."""
    sizes = np.sqrt(np.maximum(np.diagonal(runs.residual, axis1=1, axis2=2)[:, :-1], np.finfo(float).tiny))
    return np.asarray(np.mean(change_norms(runs.residual) / sizes, axis=0))


def _threshold(predicted: Sequence[float], window: Window, computed: int) -> float:
    """The middle of the thresholds that compute as many steps, so that rounding in the runtime cannot change the plan."""

    def count(threshold: float) -> int:
        return len(gate_replay.drive(window.gate(threshold), predicted))

    highest = 2.0 * sum(predicted) + 1e-9
    lowest = gate_replay.bisect(count, computed, highest=highest)
    reached = count(lowest)
    upper = gate_replay.bisect(count, reached - 1, highest=highest)
    return _rounded(0.5 * (lowest + upper)) if count(0.5 * (lowest + upper)) == reached else lowest


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
