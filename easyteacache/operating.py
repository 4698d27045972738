"""Choose an operating point: what a threshold, a target speed-up or an error budget means for one record.

Users ask for a speed-up, not for a threshold; published records answer with what their sources report, validated ones with
what held-out runs gave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easyteacache.calibration import OperatingPoint
from easyteacache.errors import UnreachableTarget

if TYPE_CHECKING:
    from easyteacache.policy import Setting

# A plan computes whole steps, so a target is met when it is met to within half a step in fifty.
TOLERANCE = 0.99


@dataclass(frozen=True)
class Choice:
    """What was chosen: a threshold or a schedule, the forecaster, and what held-out runs gave."""

    threshold: float
    schedule: tuple[int, ...] | None = None
    forecaster: str = "hold"
    coordinate: str = "step"
    applied_to: str = "residual"
    speedup: float | None = None
    error: float | None = None


def choose(
    shares: Sequence[tuple[Sequence[OperatingPoint], float, int | None]], setting: Setting, notes: list[str]
) -> Choice:
    """Choose for one bucket or a blend of two.

    Args:
        shares: per bucket its operating points, its weight and its step count.
        setting: the caller's wishes; a threshold of the caller's own is taken as it is.
        notes: gets one sentence for every choice made here.

    Raises:
        UnreachableTarget: with what the record does offer.
    """
    if setting.threshold is not None:
        return Choice(threshold=setting.threshold)
    if not any(points for points, _, _ in shares):
        raise UnreachableTarget(
            "the record lists no operating points: pass threshold=, or solve a calibration from traces"
        )
    picks = []
    for points, weight, num_steps in shares:
        usable = _usable(points, num_steps, setting, blended=len(shares) > 1)
        picks.append((_pick(usable or list(points), setting), weight))
    chosen = _blend(picks)
    if setting.speedup is None and setting.max_error is None:
        notes.append(
            f"No threshold, speedup or max_error given: {_named(chosen)} is the record's most cautious operating point."
        )
    if any(point.evidence == "reported" for point, _ in picks) and chosen.speedup is not None:
        notes.append(
            f"The speed-up of {chosen.speedup:g} is what the source reports for its own hardware, not measured here."
        )
    return chosen


def _usable(
    points: Sequence[OperatingPoint], num_steps: int | None, setting: Setting, *, blended: bool
) -> list[OperatingPoint]:
    """Schedules hold for one step count and cannot be blended; thresholds can."""
    foreign = setting.num_steps is not None and num_steps is not None and setting.num_steps != num_steps
    return [point for point in points if point.schedule is None or not (foreign or blended)]


def _pick(points: list[OperatingPoint], setting: Setting) -> OperatingPoint:
    if setting.speedup is not None:
        rated = [point for point in points if point.speedup is not None]
        enough = [point for point in rated if (point.speedup or 0) >= setting.speedup * TOLERANCE]
        if not enough:
            raise UnreachableTarget(f"a speed-up of {setting.speedup:g} is not calibrated: {_offer(rated)}")
        fastest_needed = min(point.speedup or 0 for point in enough)
        near = [point for point in enough if (point.speedup or 0) <= fastest_needed / TOLERANCE]
        return min(near, key=lambda point: math.inf if point.error is None else point.error.mean)
    if setting.max_error is not None:
        judged = [point for point in points if point.error is not None]
        good = [point for point in judged if point.error and point.error.mean <= setting.max_error]
        if not good:
            least = min((point.error.mean for point in judged if point.error), default=None)
            raise UnreachableTarget(
                f"no operating point stays within an error of {setting.max_error:g}: "
                + ("the record states no errors" if least is None else f"the least is {least:.3g}")
            )
        return max(good, key=lambda point: point.speedup or 0)
    return points[0]


def _blend(picks: list[tuple[OperatingPoint, float]]) -> Choice:
    main = max(picks, key=lambda pick: pick[1])[0]
    thresholds = [(point.threshold, weight) for point, weight in picks if point.threshold is not None]
    speedups = [(point.speedup, weight) for point, weight in picks if point.speedup is not None]
    total = sum(weight for _, weight in thresholds)
    return Choice(
        threshold=sum(t * w for t, w in thresholds) / total if total else 0.0,
        schedule=main.schedule,
        forecaster=main.forecaster,
        coordinate=main.coordinate,
        applied_to=main.applied_to,
        speedup=sum(s * w for s, w in speedups) / sum(w for _, w in speedups) if speedups else None,
        error=None if main.error is None else main.error.mean,
    )


def _named(choice: Choice) -> str:
    return (
        f"threshold {choice.threshold:g}"
        if choice.schedule is None
        else f"a schedule of {len(choice.schedule)} computed steps"
    )


def _offer(rated: list[OperatingPoint]) -> str:
    if not rated:
        return "the record states no speed-ups; pass threshold="
    values = sorted({point.speedup for point in rated if point.speedup})
    return f"the record offers {', '.join(f'{value:g}' for value in values)}"
