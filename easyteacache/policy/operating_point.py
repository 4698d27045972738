"""Choose an operating point: what a threshold, a target speed-up or an error budget means for one record.

Users ask for a speed-up, not for a threshold; published records answer with what their sources report, validated ones with
what held-out runs gave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from easyteacache.errors import UnreachableTarget
from easyteacache.policy.figures import UNKNOWN, Standing, rate_of, standing_of
from easyteacache.policy.planned import carryable
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.skip_window import from_end
from easyteacache.records.bucket import OperatingPoint
from easyteacache.records.evidence import COVERAGE
from easyteacache.records.plan import Plan
from easyteacache.records.sampler import SamplerRecord

# A plan computes whole steps, so a target is met when it is met to within half a step in fifty.
TOLERANCE = 0.99


class Offer(NamedTuple):
    """One bucket's operating points.

    Attributes:
        points: the most cautious first.
        weight: the bucket's share, 0 to 1.
        levels: (S + 1,) the noise levels of the bucket's runs, over which its corrections were fitted; None where nobody says.
        num_steps: of the bucket; None where it does not say.
        unseen: the signal that thresholds are decided by, where a driver sees no signal; None where they need none, or it is seen.
        sampler: of the bucket's runs, which its corrections were fitted for; None where nobody says.
    """

    points: tuple[OperatingPoint, ...]
    weight: float
    levels: tuple[float, ...] | None = None
    num_steps: int | None = None
    unseen: str | None = None
    sampler: SamplerRecord | None = None


@dataclass(frozen=True)
class Choice:
    """What was chosen: a threshold or a plan, the predictor, and what is known of it."""

    threshold: float
    schedule: tuple[int, ...] | None = None
    forecaster: str = "hold"
    coordinate: str = "step"
    applied_to: str = "residual"
    weights: tuple[tuple[float, ...], ...] | None = None
    speedup: float | None = None
    error: float | None = None
    plan: Plan | None = None
    standing: Standing = UNKNOWN


def choose(
    offers: Sequence[Offer],
    request: Request,
    run: RunContext,
    notes: list[str],
    *,
    foreign: bool = False,
    carry: bool = False,
) -> Choice:
    """Choose for one bucket or a blend of two.

    Args:
        offers: per bucket what it has.
        request: the caller's wishes; a threshold that the record states is that operating point, another one is taken as it is.
        run: whose driver can apply some points and others not.
        notes: gets one sentence for every choice made here.
        foreign: the buckets hold for another step count or shift, where a fixed schedule says nothing and what was
            measured does not hold.
        carry: plans may be carried over there all the same.

    Raises:
        UnreachableTarget: with what the record does offer.
    """
    if request.threshold is not None:
        stated = None if foreign else _stated(offers, request.threshold, run)
        return Choice(threshold=request.threshold) if stated is None else _blend([(stated, 1.0)], offers[0].num_steps)
    left_out: list[str] = []
    offers = _within_window(_applicable(offers, run, left_out), request, left_out)
    notes.extend(left_out)
    try:
        steps = max(offers, key=lambda offer: offer.weight).num_steps
        picks = _picks(offers, request, notes, foreign=foreign, carry=carry)
        chosen = _blend(picks, steps)
    except UnreachableTarget as error:
        raise UnreachableTarget(" ".join((f"{error}.", *left_out))) if left_out else error from None
    if not request.chooses:
        notes.append(
            f"No threshold, speedup, max_error or quality given: {_named(chosen)} is the record's most cautious operating point."
        )
    if request.budget is not None and not foreign:
        notes.append(_promise(max(picks, key=lambda pick: pick[1])[0]))
    reported = chosen.standing.evidence in ("published", "reported")
    if reported and chosen.speedup is not None and not foreign:
        notes.append(
            f"The speed-up of {chosen.speedup:g} is what the source reports for its own hardware, not measured here."
        )
    return chosen


def _stated(offers: Sequence[Offer], threshold: float, run: RunContext) -> OperatingPoint | None:
    """The operating point whose threshold this is, with what fills its steps; None between two lengths, and where none has it."""
    if len(offers) != 1:
        return None
    alike = [p for p in offers[0].points if p.threshold is not None and math.isclose(p.threshold, threshold)]
    plain = [p for p in alike if p.plan is None and p.preset is None and _fits(p, offers[0], run)]
    return next((p for p in plain if not run.can.block_stack_only or _of_the_block_stack(p)), None)


def _applicable(offers: Sequence[Offer], run: RunContext, left_out: list[str]) -> list[Offer]:
    """Without the points that the run's driver cannot apply; ``left_out`` gets a sentence where there were some."""
    offers = [offer._replace(points=tuple(p for p in offer.points if p.preset is None)) for offer in offers]
    if run.can.block_stack_only:
        # All of them where there is none, so that the caller can be told when it uses one.
        kept = [
            offer._replace(points=tuple(filter(_of_the_block_stack, offer.points)) or offer.points) for offer in offers
        ]
        why = "Only plans that need nothing but the block stack are chosen from, because check() sees no more."
    else:
        kept = [offer._replace(points=tuple(p for p in offer.points if _fits(p, offer, run))) for offer in offers]
        gone = [
            (offer, p) for offer, left in zip(offers, kept, strict=True) for p in offer.points if p not in left.points
        ]
        why = " ".join(dict.fromkeys(_why_not(point, offer) for offer, point in gone))
    if kept != list(offers):
        left_out.append(why)
    return kept


def _why_not(point: OperatingPoint, offer: Offer) -> str:
    """Why a point cannot be applied in a run, for a whole group of such points."""
    if offer.unseen is not None and point.plan is None:
        return f"Thresholds are left out: they are decided by {offer.unseen}, which lies inside the model and is not seen here."
    if corrects(point):
        return (
            "Plans that correct computed steps are left out: this is not known to be a run of the sampler that they were fitted for, "
            "Euler's where they name none, over the same noise levels and without noise."
        )
    if point.plan is not None and point.plan.levels is not None:
        return "Plans whose weights hold over certain noise levels alone are left out: those of this run are others, or not known."
    return f"Plans applied to the {point.applied_to} are left out: it cannot be replaced here."


def corrects(point: OperatingPoint) -> bool:
    """Whether a point's rows correct computed steps."""
    return point.plan is not None and point.plan.corrected


def _of_the_block_stack(point: OperatingPoint) -> bool:
    return point.applied_to == "residual" and point.coordinate == "step" and not corrects(point)


def _fits(point: OperatingPoint, offer: Offer, run: RunContext) -> bool:
    levels = None if point.plan is None else point.plan.levels
    if offer.unseen is not None and point.plan is None:
        return False
    if run.can.alone is not None and not corrects(point):
        return levels is None or run.over(levels) is True
    if corrects(point):
        return point.applied_to in run.can.sees and run.corrects_over(levels or offer.levels, offer.sampler)
    return point.applied_to in run.can.sees and (levels is None or run.over(levels) is True)


def _within_window(offers: Sequence[Offer], request: Request, left_out: list[str]) -> Sequence[Offer]:
    """Without the points whose corrections would hold for other steps than the caller's own window computes."""
    if not any(_window_crosses(point, request) for offer in offers for point in offer.points):
        return offers
    left_out.append(
        "Plans that correct computed steps are left out where the window asked for computes other steps than they do."
    )
    # All of them where there is nothing else: they then fill with the last output.
    return [
        offer._replace(points=tuple(p for p in offer.points if not _window_crosses(p, request)) or offer.points)
        for offer in offers
    ]


def _window_crosses(point: OperatingPoint, request: Request) -> bool:
    """Would the caller's own window compute a step that fitted weights take for a reused one?"""
    if not corrects(point) or point.weights is None or point.schedule is None:
        return False
    steps, limit = len(point.weights), request.max_consecutive_skips
    last = None if request.max_skip_step is None else from_end(request.max_skip_step, steps)
    for before, after in pairwise((*point.schedule, steps)):
        if after - before == 1:
            continue
        early = request.min_skip_step is not None and before + 1 < request.min_skip_step
        if early or (last is not None and after - 1 > last) or (limit is not None and after - before - 1 > limit):
            return True
    return False


def _picks(
    offers: Sequence[Offer], request: Request, notes: list[str], *, foreign: bool, carry: bool
) -> list[tuple[OperatingPoint, float]]:
    """One point a bucket with its weight; one alone where it is a schedule.

    Schedules hold for one sampler setting and cannot be blended, thresholds can. Between two lengths the nearer one's schedule goes
    before a blend of thresholds: length matters little to where steps are computed, and corrections are worth much more.
    """
    offers = [offer for offer in offers if offer.points]
    if not offers:
        raise UnreachableTarget(
            "the record lists no operating points: pass threshold=, or solve a calibration from traces"
        )
    thresholds = [offer._replace(points=tuple(p for p in offer.points if p.schedule is None)) for offer in offers]
    blendable = all(offer.points for offer in thresholds)
    nearer = max(offers, key=lambda offer: offer.weight)
    plans = nearer._replace(points=tuple(p for p in nearer.points if p.plan is not None and carryable(p.plan)))
    if foreign and carry and plans.points:
        return [(_pick(plans, request), plans.weight)]
    if foreign and not blendable:
        raise UnreachableTarget(
            "the record's operating points are schedules, which hold for no other sampler, step count or shift: "
            "pass threshold=, or use its own step count and shift"
        )
    if not foreign:
        nearest = _pick(nearer, request)
        if len(offers) == 1 or not blendable or nearest.schedule is not None:
            if len(offers) > 1:
                notes.append("Schedules cannot be blended: that of the nearer bucket is used.")
            return [(nearest, nearer.weight)]
    return [(_pick(offer, request), offer.weight) for offer in thresholds]


def _pick(offer: Offer, request: Request) -> OperatingPoint:
    if request.speedup is not None:
        return _fast_enough(offer, request.speedup)
    if request.budget is not None:
        return _good_enough(offer.points, request.budget, named=request.quality)
    return offer.points[0]


def _fast_enough(offer: Offer, speedup: float) -> OperatingPoint:
    """Of the points that are fast enough the one with the strongest evidence, then the best figure; else the slowest.

    A schedule that corrects computed steps goes before one of as many steps that does not: it is in the record because it won, and
    traces overstate the error of weights that were fitted with the model at hand.
    """
    rated = [(rate_of(point, offer.num_steps), point) for point in offer.points]
    enough = [point for rate, point in rated if rate is not None and rate >= speedup * TOLERANCE]
    if not enough:
        values = sorted({rate for rate, _ in rated if rate is not None})
        offered = f"the record offers {', '.join(f'{value:g}' for value in values)}"
        raise UnreachableTarget(
            f"a speed-up of {speedup:g} is not calibrated: "
            + (offered if values else _without_figures(offer, "speed-ups"))
        )
    best = enough[0]
    for point in enough[1:]:
        if standing_of(point, offer.num_steps).before(standing_of(best, offer.num_steps)):
            best = point
    if best.schedule is None:
        return best
    as_many = (p for p in enough if p.schedule is not None and len(p.schedule) == len(best.schedule))
    return next((point for point in as_many if corrects(point)), best)


def _without_figures(offer: Offer, lacking: str) -> str:
    """What a record offers that states no figures of one kind, and how to ask for it."""
    thresholds = sorted({point.threshold for point in offer.points if point.threshold is not None})
    if not thresholds:
        return f"the record states no {lacking}"
    listed = ", ".join(f"{value:g}" for value in thresholds)
    return f"the record states no {lacking}; pass threshold= one of its thresholds, the most cautious first: {listed}"


def _good_enough(points: Sequence[OperatingPoint], max_error: float, *, named: str | None = None) -> OperatingPoint:
    """Of the points whose errors stay within the budget for one more run, too, the fastest.

    A level of quality (``named``) promises something, so that points of which the mean alone is known do not count for it.
    """
    known = [(point.error, point) for point in points if point.error is not None]
    if named is not None:
        known = [(error, point) for error, point in known if error.worst is not None or error.p90 is not None]
    judged = [(error.bound.value, point) for error, point in known]
    good = [(error, point) for error, point in judged if error <= max_error]
    if not good:
        least = min((error for error, _ in judged), default=None)
        wanted = f"an error of {max_error:g}" + ("" if named is None else f", which quality={named!r} means")
        lacking = "errors" if named is None else "errors of runs held out"
        raise UnreachableTarget(
            f"no operating point stays within {wanted}: "
            + (_without_figures(Offer(tuple(points), 1.0), lacking) if least is None else f"the least is {least:.3g}")
        )
    return max(good, key=lambda entry: (entry[1].speedup or 0, -entry[0]))[1]


def _promise(point: OperatingPoint) -> str:
    """What an error budget that was met says of one more run."""
    error = point.error
    value, coverage = (None, None) if error is None else error.bound
    if error is None or coverage is None:
        return "The error budget is met by what the record states, which does not say of how many runs."
    if coverage >= COVERAGE - 1e-9:
        return f"One more run stays within an error of {value:.3g} with a chance of {coverage:.0%}, by {error.runs} held-out runs."
    return (
        f"Of {error.runs} held-out runs only the largest error, {value:.3g}, can be said: one more run stays within it with a "
        f"chance of {coverage:.0%}."
    )


def _blend(picks: list[tuple[OperatingPoint, float]], num_steps: int | None) -> Choice:
    """One pick as it is; of two, the heavier one's predictor with the weighted mean of every number."""
    main = max(picks, key=lambda pick: pick[1])[0]
    return Choice(
        plan=main.plan,
        standing=standing_of(main, num_steps),
        threshold=_mean([(point.threshold, weight) for point, weight in picks]) or 0.0,
        schedule=main.schedule,
        forecaster=main.forecaster,
        coordinate=main.coordinate,
        applied_to=main.applied_to,
        weights=main.weights,
        speedup=_mean([(rate_of(point, num_steps), weight) for point, weight in picks]),
        error=_mean([(None if point.error is None else point.error.mean, weight) for point, weight in picks]),
    )


def _mean(values: list[tuple[float | None, float]]) -> float | None:
    known = [(value, weight) for value, weight in values if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if len(known) == len(values) else None


def _named(choice: Choice) -> str:
    if choice.schedule is None:
        return f"threshold {choice.threshold:g}"
    return f"a schedule of {len(choice.schedule)} computed steps"
