"""Which plans a record offers: a schedule and a threshold per target speed-up, for both kinds of caller, if they earn it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from easyteacache.solver.fit.sigma_profile import Profile
from easyteacache.solver.replay import baselines
from easyteacache.solver.replay.gate_replay import Window, from_profile
from easyteacache.solver.replay.predictor_rows import Target
from easyteacache.solver.replay.replay import Replay
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.replay.segment_objective import typical
from easyteacache.solver.search.measured import FittedPlans, Progress
from easyteacache.solver.search.planner import SPEEDUPS, Plan, Planner, computed_steps

# Relative to evenly spaced steps, and to sampling with fewer steps: with some room, so that held-out runs agree.
LEAST_GAIN_ON_EVEN = 0.98
LEAST_GAIN_ON_FEWER = 0.85


def make_plans(
    runs: Runs, profile: Profile, progress: Progress = lambda _: None, *, fitted: FittedPlans | None = None
) -> list[Plan]:
    """The plans of one bucket, the most cautious first.

    Args:
        runs: its calibration runs.
        profile: its sigma profile, which drives thresholds.
        progress: told now and then.
        fitted: makes the plans with fitted weights; None: traces alone decide between them.
    """
    predicted = next(iter(from_profile(runs.traces[0], profile.curve()).values()))
    replay = Replay(runs)
    counts = sorted({computed_steps(runs.num_steps, speedup) for speedup in SPEEDUPS}, reverse=True)
    fitted = fitted or FittedPlans()
    corrected = fitted.plans(runs, counts, progress)
    tried = {count: plan.computed for count, plan in corrected.items()}
    planner, found = Planner(runs, also=tried, tick=lambda: progress("")), list[Plan]()
    for computed in counts:
        progress(f"planning {computed} of {runs.num_steps} steps")

        def scheduled(target: Target | None, computed: int = computed) -> Plan | None:
            return planner.scheduled(computed, target=target)

        def thresholded(target: Target | None, computed: int = computed) -> Plan | None:
            return planner.thresholded(computed, predicted, Window(), target=target)

        plain = _for_both_callers(scheduled)
        # What was sampled won there; traces alone can only compare what they predict.
        if computed in corrected and (fitted.measured or _better(corrected[computed], plain, replay)):
            found.append(corrected[computed])
        found += plain + _for_both_callers(thresholded)
    return [plan for plan in found if _worth_offering(plan, replay)]


def _better(plan: Plan, others: list[Plan], replay: Replay) -> bool:
    errors = [float(typical(baselines.fixed(replay, each.computed, each.filling))) for each in (plan, *others)]
    return min(errors) == errors[0]


def _for_both_callers(make: Callable[[Target | None], Plan | None]) -> list[Plan]:
    """The best plan, and one for a caller that sees the block stack only and so cannot forecast the model's output."""
    best = make(None)
    if best is None or best.filling.applied_to == "residual":
        return [] if best is None else [best]
    inner = make("residual")
    return [best] if inner is None else [best, inner]


def _worth_offering(plan: Plan, replay: Replay) -> bool:
    """Whether a plan clearly beats, on the calibration runs, what needs no calibration: nobody should be offered another."""
    errors = baselines.fixed(replay, plan.computed, plan.filling)
    even = baselines.uniform(replay, len(plan.computed), plan.filling)
    fewer = baselines.fewer_steps(replay, len(plan.computed))
    contests = ((even, LEAST_GAIN_ON_EVEN), (fewer, LEAST_GAIN_ON_FEWER))
    return all(float(np.mean(np.log(errors / other))) <= np.log(most) for other, most in contests)
