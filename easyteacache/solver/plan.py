"""Operating points: for a target speed-up, the fixed schedule and the threshold that are best, each with its filling.

What generalises is chosen by cross-validation over runs: a filling is searched on one half of the calibration runs and judged
on the other. Held-out runs are never looked at here; they only state the error of what was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from easyteacache.solver import decisions, schedule
from easyteacache.solver.decisions import Window
from easyteacache.solver.filling import Filling, Rows
from easyteacache.solver.objective import Objective, typical
from easyteacache.solver.propagation import gains
from easyteacache.solver.runs import Runs
from easyteacache.solver.schedule import Schedule

Array = NDArray[np.float64]
SPEEDUPS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
ORDERED = ("linear", "quadratic", "cubic", "taylor-2", "foca")
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
        tick: called now and then, for a progress bar.
    """

    runs: Runs
    fillings: tuple[Filling, ...] = ()
    tick: Callable[[], None] = lambda: None
    _objectives: dict[tuple[Filling, int], Objective] = field(default_factory=dict, init=False)
    _rows: dict[Filling, Rows] = field(default_factory=dict, init=False)
    _eliminated: dict[tuple[Filling, int], dict[int, Schedule]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.fillings = self.fillings or candidates(self.runs)
        chosen = self.runs.take(range(min(SEARCH_RUNS, len(self.runs))))
        halves = (
            [chosen.take(range(start, len(chosen), 2)) for start in (0, 1)] if len(chosen) > 1 else [chosen, chosen]
        )
        self._groups = (chosen, *halves)
        self._gains = gains(self.runs.sigmas)
        self._fewest = computed_steps(self.runs.num_steps, max(SPEEDUPS))

    def scheduled(self, computed: int) -> Plan:
        """The best fixed schedule of ``computed`` steps with the filling that generalises best."""
        finalists = sorted(self._promising(computed), key=lambda f: self._crossed(f, computed, self._eliminate))[
            :FINALISTS
        ]
        filling = min(finalists, key=lambda f: self._crossed(f, computed, self._improve))
        return Plan(filling, self._best(filling, computed))

    def thresholded(self, computed: int, predicted: Sequence[float], window: Window) -> Plan | None:
        """The threshold that computes at most ``computed`` steps when a gate follows ``predicted``, with its best filling.

        Args:
            computed: steps to compute at most.
            predicted: output distance predicted for steps 1 … S − 1 of this bucket's own schedule.
            window: where reuse is allowed.

        Returns:
            None when no threshold reaches the target within the window, or none that beats evenly spaced steps.
        """
        threshold = _threshold(predicted, window, computed)
        steps = decisions.drive(window.gate(threshold), predicted)
        if len(steps) > computed:
            return None

        def value(filling: Filling, chosen: Schedule) -> float:
            return float(typical(self._objective(filling, 0).errors(chosen)))

        best = min(self.fillings, key=lambda filling: value(filling, steps))
        # Evenly spaced steps need no calibration: a threshold that loses to them is not worth offering.
        if value(best, steps) > value(best, schedule.uniform(self.runs.num_steps, len(steps))):
            return None
        return Plan(best, steps, threshold)

    def _promising(self, computed: int) -> list[Filling]:
        """Fillings worth searching with: those that are best on schedules that need no search."""

        def quick(filling: Filling) -> float:
            objective = self._objective(filling, 0)
            return min(float(typical(objective.errors(steps))) for steps in self._constructed(computed))

        return sorted(self.fillings, key=quick)[: 2 * FINALISTS]

    def _constructed(self, computed: int) -> list[Schedule]:
        return [
            schedule.uniform(self.runs.num_steps, computed),
            schedule.equalised(changes(self._groups[0]), computed),
        ]

    def _crossed(self, filling: Filling, computed: int, search: Callable[[Filling, int, int], Schedule]) -> float:
        """Objective of what ``search`` finds on one half of the runs, on the other half; mean of both directions."""
        values = []
        for here, there in ((1, 2), (2, 1)):
            self.tick()
            found = search(filling, computed, here)
            values.append(float(typical(self._objective(filling, there).errors(found))))
        return sum(values) / len(values)

    def _eliminate(self, filling: Filling, computed: int, group: int) -> Schedule:
        if (filling, group) not in self._eliminated:
            self._eliminated[filling, group] = schedule.eliminate(self._objective(filling, group), self._fewest)
        return self._eliminated[filling, group][computed]

    def _improve(self, filling: Filling, computed: int, group: int) -> Schedule:
        return schedule.improve(
            self._objective(filling, group), self._eliminate(filling, computed, group), tick=self.tick
        )

    def _best(self, filling: Filling, computed: int) -> Schedule:
        objective = self._objective(filling, 0)
        found = [self._improve(filling, computed, 0), *self._constructed(computed)]
        return min(found, key=lambda steps: float(typical(objective.errors(steps))))

    def _objective(self, filling: Filling, group: int) -> Objective:
        key = (filling, group)
        if key not in self._objectives:
            rows = self._rows.setdefault(filling, Rows(filling, self.runs))
            self._objectives[key] = Objective(self._groups[group], filling, self._gains, rows=rows)
        return self._objectives[key]


def candidates(runs: Runs) -> tuple[Filling, ...]:
    """Every filling that these runs can judge: without output Gram matrices nothing applied to the output."""
    axes = ["step"] + (["timestep"] if np.all(np.diff(runs.timesteps) < 0) else [])
    targets = ["residual"] + (["output"] if runs.output is not None else [])
    held = [Filling("hold", "step", target) for target in targets]  # type: ignore[arg-type]
    ordered = [Filling(name, axis, target) for target in targets for axis in axes for name in ORDERED]  # type: ignore[arg-type]
    return (*held, *ordered)


def computed_steps(num_steps: int, speedup: float) -> int:
    """The most steps that may be computed to be ``speedup`` times as fast, at least 1."""
    return max(1, math.floor(num_steps / speedup + 1e-9))


def changes(runs: Runs) -> Array:
    """Relative change of the residual from each step to the next, mean over runs, (S − 1,)."""
    diagonal = np.diagonal(runs.residual, axis1=1, axis2=2)
    off = np.diagonal(runs.residual, offset=1, axis1=1, axis2=2)
    squared = np.maximum(diagonal[:, 1:] + diagonal[:, :-1] - 2 * off, 0.0)
    return np.asarray(np.mean(np.sqrt(squared / np.maximum(diagonal[:, :-1], np.finfo(float).tiny)), axis=0))


def _threshold(predicted: Sequence[float], window: Window, computed: int) -> float:
    """The middle of the thresholds that compute as many steps, so that rounding in the runtime cannot change the plan."""

    def count(threshold: float) -> int:
        return len(decisions.drive(window.gate(threshold), predicted))

    highest = 2.0 * sum(predicted) + 1e-9
    lowest = decisions.bisect(count, computed, highest=highest)
    reached = count(lowest)
    upper = decisions.bisect(count, reached - 1, highest=highest)
    return _rounded(0.5 * (lowest + upper)) if count(0.5 * (lowest + upper)) == reached else lowest


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
