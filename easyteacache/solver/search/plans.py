"""Which plans a record offers: a schedule and a threshold per target speed-up, for both kinds of caller, if they earn it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from easyteacache.records.trace import Array
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
# By how much replay overstates a corrected plan's error beside that of one without corrections: 1.6 dB in the mean of fifteen pairs on two models.
OVERSTATED = 1.2


def make_plans(
    runs: Runs,
    profile: Profile,
    progress: Progress = lambda _: None,
    *,
    fitted: FittedPlans | None = None,
    unseen: Runs | None = None,
) -> list[Plan]:
    """The plans of one bucket, the most cautious first.

    None of them is worse than one that computes no more, or than sampling with fewer steps. The latter is asked of held-out runs, too:
    they choose between nothing, but may have one left out.

    Args:
        runs: its calibration runs.
        profile: its sigma profile, which drives thresholds.
        progress: told now and then.
        fitted: makes the plans with fitted weights; None: traces alone decide between them.
        unseen: its held-out runs.
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
    found = [plan for plan in found if _worth_offering(plan, replay)]
    if unseen is not None:
        judge = Replay(unseen)
        found = [plan for plan in found if not _below_fewer_steps(plan, judge)]
    return undominated(found, [_errors(plan, replay) for plan in found])


def undominated(plans: list[Plan], errors: list[Array]) -> list[Plan]:
    """Without the plans to which another one is better or equal that computes fewer steps and can be applied wherever they can.

    Args:
        plans: of one bucket.
        errors: (R,) of each, on the same runs.
    """
    sizes, values = [len(plan.computed) for plan in plans], [float(typical(each)) for each in errors]
    return [
        plan
        for plan, size, value in zip(plans, sizes, values, strict=True)
        if not any(
            fewer < size and better <= value and _serves(other, plan)
            for other, fewer, better in zip(plans, sizes, values, strict=True)
        )
    ]


def _serves(plan: Plan, other: Plan) -> bool:
    """Whether ``plan`` can be applied wherever ``other`` can: by callers that see no more, under no more samplers and step counts."""
    alike = (plan.threshold is None) == (other.threshold is None)
    sees = plan.filling.applied_to == other.filling.applied_to or plan.filling.applied_to == "residual"
    corrects = plan.filling.weights is None or other.filling.weights is not None
    return alike and sees and corrects


def _better(corrected: Plan, others: list[Plan], replay: Replay) -> bool:
    own, *theirs = (float(typical(_errors(each, replay))) for each in (corrected, *others))
    return own <= min(theirs, default=math.inf) + math.log(OVERSTATED)


def _for_both_callers(make: Callable[[Target | None], Plan | None]) -> list[Plan]:
    """The best plan, and one for a caller that sees the block stack only and so cannot forecast the model's output."""
    best = make(None)
    if best is None or best.filling.applied_to == "residual":
        return [] if best is None else [best]
    inner = make("residual")
    return [best] if inner is None else [best, inner]


def _worth_offering(plan: Plan, replay: Replay) -> bool:
    """Whether a plan clearly beats, on the calibration runs, what needs no calibration: nobody should be offered another."""
    errors = _errors(plan, replay)
    even = baselines.uniform(replay, len(plan.computed), plan.filling)
    fewer = baselines.fewer_steps(replay, len(plan.computed))
    contests = ((even, LEAST_GAIN_ON_EVEN), (fewer, LEAST_GAIN_ON_FEWER))
    return all(float(np.mean(np.log(errors / other))) <= np.log(most) for other, most in contests)


def _below_fewer_steps(plan: Plan, replay: Replay) -> bool:
    """Whether sampling with as many steps is better, in the mean or in the worst tenth of the runs."""
    errors, fewer = _errors(plan, replay), baselines.fewer_steps(replay, len(plan.computed))
    return any(measure(errors) > measure(fewer) for measure in (_mean, worst_tenth))


def _errors(plan: Plan, replay: Replay) -> Array:
    return baselines.fixed(replay, plan.computed, plan.filling)


def _mean(errors: Array) -> float:
    return float(np.log(errors).mean())


def worst_tenth(errors: Array) -> float:
    """Mean logarithm of the largest tenth of errors (R,), of one at least."""
    return float(np.sort(np.log(errors))[-max(1, len(errors) // 10) :].mean())
