"""Will caching help at a step count at all? Distilled models take four to eight steps, and every one of them changes much."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from easyteacache.policy.record_free import TOO_FEW
from easyteacache.records.trace_set import Trace
from easyteacache.solver.replay import baselines
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.replay import Replay
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.search import schedules
from easyteacache.solver.search.planner import candidates

#: Up to this many steps every schedule is tried; beyond it evenly spaced ones tell enough.
EXHAUSTIVE = 12
#: Speed-up below which nobody would take a cache's error.
WORTHWHILE = 1.25
#: Relative L2 of the final sample beyond which a result is another one.
FAR = 0.1


@dataclass(frozen=True)
class StepCount:
    """What one uncached run's own trace says of reusing its steps.

    Attributes:
        num_steps, computed: steps, and computed ones at the least speed-up that is worth while, or at the one asked for.
        error: predicted relative L2 of the best schedule that was tried.
        fewer_steps_error: predicted relative L2 of sampling with ``computed`` steps.
    """

    num_steps: int
    computed: int
    error: float
    fewer_steps_error: float

    @property
    def helps(self) -> bool:
        """Are there steps to reuse, is the result still this one, and nearer than fewer steps?"""
        return self.num_steps > TOO_FEW and self.error <= FAR and self.error < self.fewer_steps_error


def judged(trace: Trace, *, speedup: float) -> StepCount:
    """Judge a run's step count by its trace.

    Args:
        trace: one uncached run.
        speedup: what is asked for; with few steps the least that is worth while is tried instead.
    """
    runs = Runs.stack([trace])
    replay, steps = Replay(runs), runs.num_steps
    few = steps <= EXHAUSTIVE
    computed = max(1, min(steps - 1, int(steps / (min(speedup, WORTHWHILE) if few else speedup) + 1e-9)))
    tried = (
        [(0, *others) for others in itertools.combinations(range(1, steps), computed - 1)]
        if few
        else [schedules.uniform(steps, computed)]
    )
    error = min(_error(replay, schedule, filling) for filling in candidates(runs) for schedule in tried)
    return StepCount(steps, computed, error, float(baselines.fewer_steps(replay, computed)[0]))


def fewer_steps_error(trace: Trace, computed: int) -> float:
    """Predicted relative L2 of sampling a recorded run with ``computed`` steps instead."""
    return float(baselines.fewer_steps(Replay(Runs.stack([trace])), computed)[0])


def _error(replay: Replay, schedule: tuple[int, ...], filling: Filling) -> float:
    return float(baselines.fixed(replay, schedule, filling)[0])
