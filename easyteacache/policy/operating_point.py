"""Choose an operating point: what a threshold, a target speed-up or an error budget means for one record.

Users ask for a speed-up, not for a threshold; published records answer with what their sources report, validated ones with
what held-out runs gave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from easyteacache.errors import UnreachableTarget
from easyteacache.policy.request import Setting
from easyteacache.policy.skip_window import from_end
from easyteacache.records.bucket import OperatingPoint

# A plan computes whole steps, so a target is met when it is met to within half a step in fifty.
TOLERANCE = 0.99

Offer = tuple[tuple[OperatingPoint, ...], float]


@dataclass(frozen=True)
class Choice:
    """What was chosen: a threshold or a schedule, the forecaster, and what held-out runs gave."""

    threshold: float
    schedule: tuple[int, ...] | None = None
    forecaster: str = "hold"
    coordinate: str = "step"
    applied_to: str = "residual"
    weights: tuple[tuple[float, ...], ...] | None = None
    speedup: float | None = None
    error: float | None = None


def choose(offers: Sequence[Offer], setting: Setting, notes: list[str], *, foreign: bool = False) -> Choice:
    """Choose for one bucket or a blend of two.

    Args:
        offers: per bucket its operating points and its weight.
        setting: the caller's wishes; a threshold of the caller's own is taken as it is.
        notes: gets one sentence for every choice made here.
        foreign: the buckets hold for another step count or shift, where a fixed schedule says nothing and what was
            measured does not hold.

    Raises:
        UnreachableTarget: with what the record does offer.
    """
    if setting.threshold is not None:
        return Choice(threshold=setting.threshold)
    if setting.block_stack_only:
        offers = [(_of_the_block_stack(points), weight) for points, weight in offers]
        notes.append("Only plans that need nothing but the block stack are chosen from, because check() sees no more.")
    offers, left_out = _correctable(offers, setting)
    notes.extend(left_out)
    try:
        chosen = _blend(_picks(offers, setting, notes, foreign=foreign))
    except UnreachableTarget as error:
        raise UnreachableTarget(" ".join((f"{error}.", *left_out))) if left_out else error from None
    if setting.speedup is None and setting.max_error is None:
        notes.append(
            f"No threshold, speedup or max_error given: {_named(chosen)} is the record's most cautious operating point."
        )
    reported = any(point.strongest in ("published", "reported") for points, _ in offers for point in points)
    if reported and chosen.speedup is not None:
        notes.append(
            f"The speed-up of {chosen.speedup:g} is what the source reports for its own hardware, not measured here."
        )
    return chosen


def _of_the_block_stack(points: tuple[OperatingPoint, ...]) -> tuple[OperatingPoint, ...]:
    """Those that forecast its residual along the steps; all of them where there is none, so that the caller can say so."""
    return (
        tuple(p for p in points if p.applied_to == "residual" and p.coordinate == "step" and p.weights is None)
        or points
    )


def _correctable(offers: Sequence[Offer], setting: Setting) -> tuple[Sequence[Offer], list[str]]:
    """Without the points whose corrections cannot be handed on or would hold for other steps, and a sentence that says so."""
    fitted = [point for points, _ in offers for point in points if point.weights is not None]
    if setting.uncorrected and fitted:
        why = (
            "Plans that correct computed steps are left out: this is not known to be a run of Euler's sampler, which alone can be "
            "handed a correction, over the noise levels that they were fitted at."
        )
        return [(tuple(p for p in points if p.weights is None), weight) for points, weight in offers], [why]
    if any(_window_crosses(point, setting) for point in fitted):
        why = "Plans that correct computed steps are left out where the window asked for computes other steps than they do."
        # All of them where there is nothing else: they then fill with the last output.
        kept = [(tuple(p for p in points if not _window_crosses(p, setting)) or points, w) for points, w in offers]
        return kept, [why]
    return offers, []


def _window_crosses(point: OperatingPoint, setting: Setting) -> bool:
    """Would the caller's own window compute a step that fitted weights take for a reused one?"""
    if point.weights is None or point.schedule is None:
        return False
    steps, limit = len(point.weights), setting.max_consecutive_skips
    last = None if setting.max_skip_step is None else from_end(setting.max_skip_step, steps)
    for before, after in pairwise((*point.schedule, steps)):
        if after - before == 1:
            continue
        early = setting.min_skip_step is not None and before + 1 < setting.min_skip_step
        if early or (last is not None and after - 1 > last) or (limit is not None and after - before - 1 > limit):
            return True
    return False


def _picks(
    offers: Sequence[Offer], setting: Setting, notes: list[str], *, foreign: bool
) -> list[tuple[OperatingPoint, float]]:
    """One point a bucket with its weight; one alone where it is a schedule.

    Schedules hold for one sampler setting and cannot be blended, thresholds can. Between two lengths the nearer one's schedule goes
    before a blend of thresholds: length matters little to where steps are computed, and corrections are worth much more.
    """
    offers = [offer for offer in offers if offer[0]]
    if not offers:
        raise UnreachableTarget(
            "the record lists no operating points: pass threshold=, or solve a calibration from traces"
        )
    thresholds = [(tuple(point for point in points if point.schedule is None), weight) for points, weight in offers]
    blendable = all(points for points, _ in thresholds)
    if foreign and not blendable:
        raise UnreachableTarget(
            "the record's operating points are schedules, which hold for no other step count or shift: "
            "pass threshold=, or use its own step count and shift"
        )
    if not foreign:
        points, weight = max(offers, key=lambda offer: offer[1])
        nearest = _pick(points, setting)
        if len(offers) == 1 or not blendable or nearest.schedule is not None:
            if len(offers) > 1:
                notes.append("Schedules cannot be blended: that of the nearer bucket is used.")
            return [(nearest, weight)]
    return [(_pick(points, setting), weight) for points, weight in thresholds]


def _pick(points: Sequence[OperatingPoint], setting: Setting) -> OperatingPoint:
    if setting.speedup is not None:
        return _fast_enough(points, setting.speedup)
    if setting.max_error is not None:
        return _good_enough(points, setting.max_error)
    return points[0]


def _fast_enough(points: Sequence[OperatingPoint], speedup: float) -> OperatingPoint:
    """Of the points that are fast enough the one with the least error; where errors are not known, the slowest.

    A schedule that corrects computed steps goes before one of as many steps that does not: it is in the record because it won, and
    traces overstate the error of weights that were fitted with the model at hand.
    """
    rated = [(point.speedup, point) for point in points if point.speedup is not None]
    enough = [(rate, point) for rate, point in rated if rate >= speedup * TOLERANCE]
    if not enough:
        values = sorted({rate for rate, _ in rated})
        offered = f"the record offers {', '.join(f'{value:g}' for value in values)}"
        raise UnreachableTarget(
            f"a speed-up of {speedup:g} is not calibrated: "
            + (offered if values else "the record states no speed-ups; pass threshold=")
        )
    best = min(enough, key=lambda entry: (math.inf if entry[1].error is None else entry[1].error.mean, entry[0]))[1]
    if best.schedule is None:
        return best
    as_many = (p for _, p in enough if p.schedule is not None and len(p.schedule) == len(best.schedule))
    return next((point for point in as_many if point.weights is not None), best)


def _good_enough(points: Sequence[OperatingPoint], max_error: float) -> OperatingPoint:
    """Of the points within the budget, the fastest."""
    judged = [(point.error.mean, point) for point in points if point.error is not None]
    good = [(error, point) for error, point in judged if error <= max_error]
    if not good:
        least = min((error for error, _ in judged), default=None)
        raise UnreachableTarget(
            f"no operating point stays within an error of {max_error:g}: "
            + ("the record states no errors" if least is None else f"the least is {least:.3g}")
        )
    return max(good, key=lambda entry: (entry[1].speedup or 0, -entry[0]))[1]


def _blend(picks: list[tuple[OperatingPoint, float]]) -> Choice:
    """One pick as it is; of two, the heavier one's forecaster with the weighted mean of every number."""
    main = max(picks, key=lambda pick: pick[1])[0]
    return Choice(
        threshold=_mean([(point.threshold, weight) for point, weight in picks]) or 0.0,
        schedule=main.schedule,
        forecaster=main.forecaster,
        coordinate=main.coordinate,
        applied_to=main.applied_to,
        weights=main.weights,
        speedup=_mean([(point.speedup, weight) for point, weight in picks]),
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
