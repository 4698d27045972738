"""What computed steps a record leads to in one run: a plan's own, those carried over from it, or MagCache's decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from easyteacache.errors import InvalidPlan
from easyteacache.policy.carry import carried, carried_within, shifted_levels
from easyteacache.policy.curves import SigmaProfile
from easyteacache.policy.methods.magcache import MagCacheRule, magcache_plan, rule_of
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.bucket import Bucket
from easyteacache.records.plan import Plan

#: Another length than the plan's by more than this factor is another size.
SAME_LENGTH = 1.1


@dataclass(frozen=True)
class PlannedSteps:
    """The computed steps of one run.

    Attributes:
        schedule: those of every branch; where branches differ, those that any of them computes.
        of_branches: (branch, its computed steps), where they differ.
        carried: why they are not the record's own, a sentence; None where they are.
        doubtful: that is to be noticed: nobody but this project carried them over.
    """

    schedule: tuple[int, ...]
    of_branches: tuple[tuple[str, tuple[int, ...]], ...] = ()
    carried: str | None = None
    doubtful: bool = False


def carryable(plan: Plan) -> bool:
    """Whether a plan can be carried over at all: rows hold for its own steps alone."""
    return plan.rows is None


def plan_in(
    plan: Plan, bucket: Bucket, run: RunContext, foreign: Sequence[str], profile: SigmaProfile | None = None
) -> PlannedSteps:
    """A plan in one run: as it is, or carried over the noise level.

    Args:
        plan: one of the bucket's.
        bucket: where it holds.
        run: what is known of the run.
        foreign: how the run's sampler, step count and shift differ from the bucket's, one phrase each.
        profile: keeps the harm of what is carried over to that of the plan itself; None: its share of computed steps is kept.
    """
    steps = bucket.num_steps or plan.computed[-1] + 1
    length = other_length(bucket.sequence_length, run.sequence_length)
    if not foreign:
        if length is None:
            return PlannedSteps(plan.computed)
        why = f"It was made for {length}: the computed steps are the same, what was reported of it may not hold."
        return PlannedSteps(plan.computed, carried=why, doubtful=True)
    own, other = levels_of(bucket, steps), levels_in(run, run.num_steps or steps)
    axis = "by their noise levels"
    if own is None or other is None:
        # Nobody says what either's noise levels are: then they are taken to be spaced alike.
        shift = run.shift or bucket.shift or 1.0
        own, other = shifted_levels(steps, shift), shifted_levels(run.num_steps or steps, shift)
        axis = "by their share of the run, because its noise levels are not known"
    found = (
        carried(plan.computed, own, other) if profile is None else carried_within(plan.computed, own, other, profile)
    )
    also = "" if length is None else f" and for {length}"
    made = f"It was made for {' and '.join(foreign)}{also}"
    why = f"{made}: {len(found)} of {len(other) - 1} steps are computed, carried over {axis}."
    return PlannedSteps(found, carried=why, doubtful=True)


def magcache_in(model_key: str, bucket: Bucket, threshold: float, request: Request, run: RunContext) -> PlannedSteps:
    """MagCache's computed steps in one run, of each branch that the record has ratios of.

    Raises:
        InvalidPlan: the run does not say where the second of two experts takes over.
    """
    rule, steps = rule_of(model_key), run.num_steps or bucket.num_steps or len(bucket.magnitude_ratios[0].ratios)
    boundary = _boundary(rule, bucket, run, steps)
    found = tuple(
        (
            entry.branch,
            magcache_plan(
                bucket,
                steps,
                entry.branch,
                threshold=threshold,
                rule=rule,
                limit=request.max_consecutive_skips,
                boundary=boundary,
            ),
        )
        for entry in bucket.magnitude_ratios
    )
    every = tuple(sorted({step for _, computed in found for step in computed}))
    length = other_length(bucket.sequence_length, run.sequence_length)
    why = None if length is None else f"Its ratios were measured at {length}; those of this run may differ."
    if bucket.num_steps not in (None, steps):
        why = f"Its ratios are those of {bucket.num_steps} steps: each of the {steps} takes the nearest one's, as its authors do."
    return PlannedSteps(every, found if len({computed for _, computed in found}) > 1 else (), why)


def levels_of(bucket: Bucket, steps: int) -> tuple[float, ...] | None:
    """The (S + 1,) noise levels of a bucket's own runs; None where nobody says."""
    if bucket.sampler is not None and bucket.sampler.levels is not None:
        return bucket.sampler.levels
    profile = bucket.sigma_profile
    if profile is not None and len(profile.sigmas) == steps + 1:
        return profile.sigmas
    return None if bucket.shift is None else shifted_levels(steps, bucket.shift)


def levels_in(run: RunContext, steps: int) -> tuple[float, ...] | None:
    """The (S + 1,) noise levels of a run; None where neither its sampler nor its shift is known."""
    if run.sampler is not None and run.sampler.levels is not None and len(run.sampler.levels) == steps + 1:
        return run.sampler.levels
    return None if run.shift is None else shifted_levels(steps, run.shift)


def other_length(made_for: int | None, here: int | None) -> str | None:
    """How a run's length differs from a bucket's, a phrase; None where it is about the same, or one is not known."""
    if made_for is None or here is None or max(made_for, here) <= SAME_LENGTH * min(made_for, here):
        return None
    return f"{made_for} tokens, not {here}"


def _boundary(rule: MagCacheRule, bucket: Bucket, run: RunContext, steps: int) -> int | None:
    """The first step of the second expert; None where there is one expert."""
    if rule.boundary is None:
        return None
    levels = levels_in(run, steps) or levels_of(bucket, steps)
    if levels is None:
        raise InvalidPlan(
            f"two experts take turns at noise level {rule.boundary:g}, and the noise levels of this run are not known: attach it to "
            "a pipeline, or pass shift="
        )
    return next((step for step, level in enumerate(levels[:-1]) if level < rule.boundary), steps)
