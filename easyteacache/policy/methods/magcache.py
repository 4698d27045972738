"""MagCache (arXiv 2506.09045; Zehong-Ma/MagCache): its decisions follow from step index and published ratios alone.

With γ_j the ratio of the residuals' norms of step j and j − 1, from a first step on: P ← P·γ_j, E ← E + |1 − P|, q ← q + 1. The step is
reused while E stays below the threshold and q is at most K; else it is computed and P, E, q ← 1, 0, 0. Nothing that is measured enters, so
this is a plan for every step count, threshold and branch. What the authors' own scripts do differently is in ``MagCacheRule``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from easyteacache.errors import InvalidPlan
from easyteacache.policy.planned import PlannedSteps, levels_in, levels_of, other_length, register_rule

if TYPE_CHECKING:
    from easyteacache.policy.request import Request, RunContext
    from easyteacache.records.bucket import Bucket

#: Where the first steps, which are always computed, end: at ⌊ρ · calls⌋ of all forwards counted together, or of a branch's steps, rounded
#: down, to the nearest or up.
Start = Literal["calls", "down", "nearest", "up"]


@dataclass(frozen=True, slots=True)
class MagCacheRule:
    """How one of the published scripts applies the rule.

    Attributes:
        inclusive: a step is reused up to and including the threshold, not only below it.
        start: how the number of steps computed at the beginning is rounded.
        tolerance: a step whose own ratio is off 1 by more than this is computed; None: no such rule.
        always: (step, of steps) that is always computed; at another step count, those that are mapped to it.
        boundary: below this noise level a second expert takes over, and begins with computed steps of its own; None: there is one.
        spared: of two experts the first, at high noise, is never cached.
    """

    inclusive: bool = False
    start: Start = "calls"
    tolerance: float | None = None
    always: tuple[int, int] | None = None
    boundary: float | None = None
    spared: bool = False


#: Share of a run that every published script computes at its beginning unless told otherwise.
USUAL_RETENTION = 0.2
#: What holds where no script of the authors says otherwise: their Wan2.1 script, which most others copy.
USUAL = MagCacheRule()
_FLUX = MagCacheRule(inclusive=True, start="nearest", always=(11, 28))
#: First parts of a model key → the authors' rule for it; the longest one that fits holds.
RULES: dict[str, MagCacheRule] = {
    "flux.1/dev/magcache": _FLUX,
    "flux.1/kontext-dev": _FLUX,
    "flux.1/dev/magcache-vllm-omni": USUAL,
    "framepack": MagCacheRule(inclusive=True, start="down", tolerance=0.06),
    "hunyuanvideo": MagCacheRule(inclusive=True, start="down"),
    "omnigen2": MagCacheRule(inclusive=True, start="up"),
    "wan2.2/i2v-a14b": MagCacheRule(boundary=0.9, spared=True),
    "wan2.2/t2v-a14b": MagCacheRule(boundary=0.875),
}


def rule_of(model_key: str) -> MagCacheRule:
    """The authors' rule for a model key; the usual one where they have none of their own."""
    fitting = [prefix for prefix in RULES if model_key == prefix or model_key.startswith(f"{prefix}/")]
    return RULES[max(fitting, key=len)] if fitting else USUAL


def nearest_ratios(ratios: Sequence[float], num_steps: int) -> tuple[float, ...]:
    """The ratios of one branch for another step count: of each step the nearest one's, as all published loaders do.

    Args:
        ratios: one a step, at least one.
        num_steps: steps of the run, at least 1.
    """
    if num_steps == len(ratios):
        return tuple(ratios)
    if num_steps == 1:
        return (ratios[-1],)
    scale = (len(ratios) - 1) / (num_steps - 1)
    return tuple(ratios[round(step * scale)] for step in range(num_steps))


def magcache_schedule(
    ratios: Sequence[float],
    num_steps: int,
    *,
    threshold: float,
    limit: int | None,
    retention: float,
    branch: int = 0,
    branches: int = 1,
    rule: MagCacheRule = USUAL,
    boundary: int | None = None,
) -> tuple[int, ...]:
    """The computed steps of one branch.

    Args:
        ratios: γ of this branch, one a step of the run they were measured on.
        num_steps: steps of this run.
        threshold: θ, above 0.
        limit: K, most steps reused in a row; None: any number.
        retention: ρ, share of the run that is computed at its beginning, 0 to 1.
        branch: which of the forwards of a step this is, from 0.
        branches: forwards a step.
        rule: what the script at hand does differently.
        boundary: the first step of the second expert, where ``rule`` knows two.

    Returns:
        Ascending step indices, the first of them 0.

    Raises:
        InvalidPlan: a number is out of range, or the boundary is missing.
    """
    if not ratios or num_steps < 1 or not threshold > 0 or not 0 <= retention <= 1 or not 0 <= branch < branches:
        raise InvalidPlan(
            f"{len(ratios)} ratios, {num_steps} steps, threshold {threshold}, retention {retention}, branch {branch} of "
            f"{branches}; expected at least one ratio and step, a threshold above 0, a retention of 0 to 1"
        )
    if rule.boundary is not None and boundary is None:
        raise InvalidPlan("two experts take turns here: the first step of the second one must be given")
    gammas = nearest_ratios(ratios, num_steps)
    computed, product, error, reused = [0], 1.0, 0.0, 0
    for step, gamma in enumerate(gammas):
        call = branches * step + branch
        if not _begun(call, step, num_steps, branches, retention, rule, boundary):
            # The scripts leave the sums as they are over these steps.
            computed.append(step)
            continue
        product *= gamma
        error += abs(1.0 - product)
        reused += 1
        within = error <= threshold if rule.inclusive else error < threshold
        if within and (limit is None or reused <= limit) and _may(step, gamma, num_steps, rule):
            continue
        computed.append(step)
        product, error, reused = 1.0, 0.0, 0
    return tuple(sorted(set(computed)))


def _may(step: int, gamma: float, num_steps: int, rule: MagCacheRule) -> bool:
    """Whether nothing but threshold and limit keeps ``step`` from being reused; step 0 has nothing to reuse."""
    if step == 0 or (rule.tolerance is not None and abs(1.0 - gamma) > rule.tolerance):
        return False
    if rule.always is None or num_steps == 1:
        return True
    place, of = rule.always
    return round(step * ((of - 1) / (num_steps - 1))) != place


def _begun(
    call: int, step: int, num_steps: int, branches: int, retention: float, rule: MagCacheRule, boundary: int | None
) -> bool:
    """Whether the steps that are always computed are over."""
    calls = branches * num_steps
    if rule.boundary is not None and boundary is not None:
        split = branches * boundary
        if rule.spared:
            return call >= int(split + (calls - split) * retention)
        return call >= int(split * retention) and not split <= call <= (calls - split) * retention + split
    if rule.start == "calls":
        return call >= int(calls * retention)
    return step >= first_steps(rule.start, retention, num_steps)


def first_steps(start: Start, retention: float, num_steps: int) -> int:
    """How many steps of a branch are computed at the beginning; where forwards are counted together, the first branch may compute one more."""
    share = retention * num_steps
    if start == "up":
        return math.ceil(share)
    return math.floor(share + 0.5 if start == "nearest" else share)


def magcache_plan(
    bucket: Bucket,
    num_steps: int,
    branch: str,
    *,
    threshold: float,
    rule: MagCacheRule = USUAL,
    limit: int | None = None,
    retention: float | None = None,
    boundary: int | None = None,
) -> tuple[int, ...]:
    """The computed steps of one branch of a run, from a record's ratios at whatever step count.

    Args:
        bucket: a bucket that has ratios.
        num_steps: steps of this run.
        branch: its name; one that the bucket has no list of gets the steps that any list computes, because it may stand for
            all of them in one batch.
        threshold: θ, above 0.
        rule: what the authors' script for this model does differently (``rule_of``).
        limit: K; None: the bucket's own.
        retention: ρ; None: the bucket's own, 0.2 where it says nothing.
        boundary: the first step of the second of two experts.

    Raises:
        InvalidPlan: the bucket has no ratios, or a number is out of range.
    """
    lists = bucket.magnitude_ratios
    if not lists:
        raise InvalidPlan(
            f"no magnitude ratios in the bucket of {bucket.num_steps} steps; MagCache's plans are made of them"
        )
    window = bucket.skip_window_fraction
    kept = retention if retention is not None else USUAL_RETENTION if window is None else window[0]
    asked = [place for place, entry in enumerate(lists) if entry.branch == branch] or list(range(len(lists)))
    computed: set[int] = set()
    for place in asked:
        computed.update(
            magcache_schedule(
                lists[place].ratios,
                num_steps,
                threshold=threshold,
                limit=bucket.max_consecutive_skips if limit is None else limit,
                retention=kept,
                branch=place,
                branches=len(lists),
                rule=rule,
                boundary=boundary,
            )
        )
    return tuple(sorted(computed))


@register_rule("magcache")
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
