"""What computed steps a record leads to in one run: a plan's own, those carried over from it, or what a method's rule decides.

A method whose steps follow from numbers of its own, and from nothing measured in the run, registers its rule in a module of
``policy/methods``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from easyteacache.policy.carry import carried, carried_within, shifted_levels
from easyteacache.policy.curves import SigmaProfile
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


#: Model key, bucket, threshold, request, run → computed steps. Raises InvalidPlan where they cannot be known.
StepRule = Callable[[str, Bucket, float, Request, RunContext], PlannedSteps]
_rules: dict[str, StepRule] = {}


def register_rule(method: str) -> Callable[[StepRule], StepRule]:
    """Make a rule that of a record's method; usable as a decorator."""

    def register(rule: StepRule) -> StepRule:
        _rules[method] = rule
        return rule

    return register


def rule_for(method: str) -> StepRule | None:
    """The rule of a method; None where plans or what is measured in the run decide."""
    return _rules.get(method)


def of_steps(method: str) -> bool:
    """Whether the computed steps of a method's records are known before a run, but for its step count and noise levels."""
    return method == "plan" or method in _rules


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
    """How a run's length differs from the one that something was made for; None where it does not, or nobody says."""
    if made_for is None or here is None or max(made_for, here) <= SAME_LENGTH * min(made_for, here):
        return None
    return f"{made_for} tokens, not {here}"
