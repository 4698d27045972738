"""Resolve a calibration for one sequence length and sampler setting: all that the runtime needs, and why.

Between two buckets *curves* are blended, (1−w)·p_lo(x) + w·p_hi(x) with w linear in log(sequence length), each clamped to its own
domain; the skip window is the cautious intersection. Outside the outermost buckets the nearest one is used, and says so.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from easyteacache.calibration import Bucket, Calibration
from easyteacache.errors import EasyTeaCacheError, InvalidCalibration
from easyteacache.operating import choose
from easyteacache.registry import Found
from easyteacache.rescale import Blend, Curve, Polynomial, SigmaProfile, log_weight


class RetiredCalibration(EasyTeaCacheError, ValueError):
    """The record was yanked and must not be used.

    Attributes:
        model_key: the record.
        replacement: the model key to use instead, or None.
    """

    def __init__(self, record: Calibration) -> None:
        assert record.retirement is not None
        self.model_key, self.replacement = record.model_key, record.retirement.replacement
        instead = f" Use {self.replacement!r} instead." if self.replacement else ""
        super().__init__(
            f"{record.model_key!r} was yanked on {record.retirement.date}: {record.retirement.reason}{instead} "
            "Pass allow_yanked=True only to reproduce an old result."
        )


@dataclass(frozen=True)
class BucketShare:
    """One bucket that a policy uses and how much of it.

    Attributes:
        sequence_length: tokens of the bucket, None where the record does not say.
        num_steps: the bucket's step count, None where the record does not say.
        shift: the bucket's time shift, None where the record does not say.
        weight: share in the blended curve, 0 to 1.
    """

    sequence_length: int | None
    num_steps: int | None
    shift: float | None
    weight: float


@dataclass(frozen=True)
class Policy:
    """A calibration resolved for one sequence length and sampler setting.

    Attributes:
        model_key, revision, status, layer: which record, and the registry layer it came from.
        signal: the signal that must drive it.
        curve: predicted output distance from signal distance.
        profile: accumulated output distance over sigma, or None.
        threshold: accumulated predicted distance at which a step must be computed; 0 computes every step.
        schedule: the computed steps, when the operating point is a fixed plan; the threshold is then not used.
        forecaster: name of what fills a reused step; ``coordinate`` its axis, ``applied_to`` what it extrapolates.
        first_skip_step, last_skip_step: inclusive window in which reuse is allowed; last is None when the end is not known.
        max_consecutive_skips: most steps reused in a row, None for no limit.
        buckets: the buckets used, with their weights.
        sequence_length, num_steps, shift: what it was resolved for; None where the caller did not say.
        expected_speedup, expected_error: what the operating point gave on held-out runs, where the record knows.
        notes: every choice that was made on the way, one sentence each.
    """

    model_key: str
    revision: int
    status: str
    layer: str
    signal: str
    curve: Curve
    threshold: float
    first_skip_step: int
    last_skip_step: int | None
    max_consecutive_skips: int | None
    buckets: tuple[BucketShare, ...]
    profile: SigmaProfile | None = None
    schedule: tuple[int, ...] | None = None
    forecaster: str = "hold"
    coordinate: str = "step"
    applied_to: str = "residual"
    sequence_length: int | None = None
    num_steps: int | None = None
    shift: float | None = None
    expected_speedup: float | None = None
    expected_error: float | None = None
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Setting:
    """What the caller knows and wants; every field may be left open.

    Attributes:
        sequence_length: tokens of the generated stream entering the blocks, above 0.
        num_steps: sampler steps, above 0.
        shift: flow-matching time shift, above 0.
        threshold: use this threshold instead of an operating point of the record.
        speedup: steps divided by computed steps to reach, at least 1.
        max_error: error of the final sample not to exceed (relative L2).
        min_skip_step, max_skip_step, max_consecutive_skips, forecaster: override the record's.
    """

    sequence_length: int | None = None
    num_steps: int | None = None
    shift: float | None = None
    threshold: float | None = None
    speedup: float | None = None
    max_error: float | None = None
    min_skip_step: int | None = None
    max_skip_step: int | None = None
    max_consecutive_skips: int | None = None
    forecaster: str | None = None

    def __post_init__(self) -> None:
        asked = [name for name in ("threshold", "speedup", "max_error") if getattr(self, name) is not None]
        if len(asked) > 1:
            raise ValueError(f"{' and '.join(asked)} exclude each other: give one of them")
        _require(self.sequence_length, "sequence_length", 1)
        _require(self.num_steps, "num_steps", 1)
        _require(self.threshold, "threshold", 0)
        _require(self.speedup, "speedup", 1)
        _require(self.max_error, "max_error", 0)
        if self.shift is not None:
            _require(self.shift, "shift", 0)
            if self.shift == 0:
                raise ValueError("shift is 0, expected a number above 0")

    def at(self, *, sequence_length: int | None, num_steps: int | None) -> Setting:
        """The same wishes for another sequence length or step count."""
        return dataclasses.replace(self, sequence_length=sequence_length, num_steps=num_steps)


def resolve(found: Found | Calibration, setting: Setting | None = None, *, allow_yanked: bool = False) -> Policy:
    """Resolve a record for one setting.

    Args:
        found: what a registry lookup gave, or a bare record.
        setting: what the caller knows and wants.
        allow_yanked: use a yanked record all the same, to reproduce an old result.

    Raises:
        RetiredCalibration: the record was yanked.
        InvalidCalibration: the record's method has no rescale polynomial.
        UnreachableTarget: no operating point reaches the speed-up or error asked for.
    """
    if isinstance(found, Calibration):
        found = Found(found, "given", found.model_key)
    setting = setting or Setting()
    record = found.calibration
    notes = [*found.notes, *_status_notes(record, allow_yanked)]
    if record.method != "teacache":
        raise InvalidCalibration(
            record.model_key,
            f"its method is {record.method!r}, this runtime applies 'teacache' records; "
            "use `easyteacache export` to hand the numbers to an engine that runs it",
            rule="record.method",
        )
    shares = _select(record.buckets, setting, notes)
    choice = choose([(bucket.operating_points, weight, bucket.num_steps) for bucket, weight in shares], setting, notes)
    first, last, limit = _window(shares, setting, notes)
    profile = (
        shares[0][0].sigma_profile if len(shares) == 1 else max(shares, key=lambda share: share[1])[0].sigma_profile
    )
    return Policy(
        model_key=record.model_key,
        revision=record.revision,
        status=record.status,
        layer=found.layer,
        signal=record.signal,
        curve=_blend(record, shares),
        profile=None if profile is None else SigmaProfile(profile.sigmas, profile.distances),
        first_skip_step=first,
        last_skip_step=last,
        max_consecutive_skips=limit,
        buckets=tuple(BucketShare(b.sequence_length, b.num_steps, b.shift, w) for b, w in shares),
        sequence_length=setting.sequence_length,
        num_steps=setting.num_steps,
        shift=setting.shift,
        threshold=choice.threshold,
        schedule=choice.schedule,
        forecaster=setting.forecaster or choice.forecaster,
        coordinate=choice.coordinate,
        applied_to=choice.applied_to,
        expected_speedup=choice.speedup,
        expected_error=choice.error,
        notes=tuple(notes),
    )


Share = tuple[Bucket, float]


def _status_notes(record: Calibration, allow_yanked: bool) -> list[str]:
    notes = []
    if record.status == "yanked" and not allow_yanked:
        raise RetiredCalibration(record)
    if record.retirement is not None:
        notes.append(f"{record.status} on {record.retirement.date}: {record.retirement.reason}")
        if record.retirement.replacement:
            notes.append(f"Its replacement is {record.retirement.replacement!r}.")
    if record.status == "published":
        notes.append("Published numbers without traces: evaluated as their authors did, not validated here.")
    if record.status == "draft":
        notes.append("A draft: not yet judged on held-out traces.")
    return [*notes, *record.notes]


def _select(buckets: Sequence[Bucket], setting: Setting, notes: list[str]) -> list[Share]:
    """The one or two buckets to use: first the sampler setting, then the sequence length."""
    candidates = _nearest_setting(list(buckets), "num_steps", setting.num_steps, "steps", notes)
    candidates = _nearest_setting(candidates, "shift", setting.shift, "shift", notes)
    length = setting.sequence_length
    known = [bucket for bucket in candidates if bucket.sequence_length is not None]
    if not known or length is None:
        chosen = candidates[-1]
        if length is not None:
            notes.append(f"The record does not say for which sequence length it holds; {length} is assumed to be fine.")
        elif len(candidates) > 1:
            notes.append(
                f"No sequence length given: the bucket at {chosen.sequence_length} is used until one is known."
            )
        return [(chosen, 1.0)]
    below = [bucket for bucket in known if bucket.sequence_length <= length]  # type: ignore[operator]
    above = [bucket for bucket in known if bucket.sequence_length >= length]  # type: ignore[operator]
    if not below or not above:
        nearest = (above or below)[0 if above else -1]
        where = "below the shortest" if above else "above the longest"
        notes.append(f"Sequence length {length} is {where} bucket: the one at {nearest.sequence_length} is used.")
        return [(nearest, 1.0)]
    lower, upper = below[-1], above[0]
    if lower.sequence_length == upper.sequence_length:
        return [(lower, 1.0)]
    assert lower.sequence_length is not None
    assert upper.sequence_length is not None
    weight = log_weight(length, lower=lower.sequence_length, upper=upper.sequence_length)
    notes.append(
        f"Sequence length {length} lies between the buckets at {lower.sequence_length} (weight {1 - weight:.3f}) "
        f"and {upper.sequence_length} (weight {weight:.3f})."
    )
    return [(lower, 1.0 - weight), (upper, weight)]


def _nearest_setting(
    buckets: list[Bucket], name: str, wanted: float | None, label: str, notes: list[str]
) -> list[Bucket]:
    values = sorted({value for value in (getattr(bucket, name) for bucket in buckets) if value is not None})
    if not values:
        return buckets
    if wanted is None:
        # The setting with the most buckets is what the record is mainly about.
        wanted = max(values, key=lambda value: (sum(getattr(b, name) == value for b in buckets), value))
        if len(values) > 1:
            notes.append(f"No {label} given: the buckets for {label} = {wanted:g} are used.")
    elif wanted not in values:
        nearest = min(values, key=lambda value: abs(math.log(value / wanted)))
        notes.append(
            f"Calibrated for {label} = {', '.join(f'{v:g}' for v in values)}, not {wanted:g}: {nearest:g} is used."
        )
        wanted = nearest
    return [bucket for bucket in buckets if getattr(bucket, name) in (wanted, None)]


def _blend(record: Calibration, shares: list[Share]) -> Curve:
    curves = [
        Polynomial(bucket.coefficients or (), domain=bucket.domain, post=record.rescale_post) for bucket, _ in shares
    ]
    return curves[0] if len(curves) == 1 else Blend(curves[0], curves[1], shares[1][1])


def _window(shares: list[Share], setting: Setting, notes: list[str]) -> tuple[int, int | None, int | None]:
    """The cautious intersection of the buckets' windows, in the caller's step count."""
    first = max(_first(bucket, setting) for bucket, _ in shares)
    lasts = [_last(bucket, setting) for bucket, _ in shares]
    known = [last for last in lasts if last is not None]
    last = min(known) if known else None
    limits = [bucket.max_consecutive_skips for bucket, _ in shares if bucket.max_consecutive_skips is not None]
    if any(_differs(bucket, setting) for bucket, _ in shares):
        end = "the end" if last is None else str(last)
        notes.append(
            f"Calibrated for {shares[0][0].num_steps} steps, used with {setting.num_steps}: "
            f"the skip window is scaled to {first}-{end}."
        )
    if setting.min_skip_step is not None:
        first = setting.min_skip_step
    if setting.max_skip_step is not None:
        last = from_end(setting.max_skip_step, setting.num_steps)
    if last == NO_STEP:
        notes.append(
            "The window ends before the last step, but the step count is not known: every step is computed. Pass num_steps=."
        )
    limit = setting.max_consecutive_skips if setting.max_consecutive_skips is not None else min(limits, default=None)
    return first, last, limit


NO_STEP = -1


def from_end(step: int, num_steps: int | None) -> int | None:
    """A window end as a step index: negative ones count from the end.

    Returns:
        The index; None when every step up to the end is meant; ``NO_STEP`` (reuse nothing) when the end lies a given number
        of steps before an end that is not known.
    """
    if step >= 0:
        return step
    if num_steps is None:
        return None if step == -1 else NO_STEP
    return max(num_steps + step, NO_STEP)


# Fractions such as 0.1 · 30 must not miss their own step by a rounding error.
_ROUNDING = 1e-9


def _first(bucket: Bucket, setting: Setting) -> int:
    first = _scaled(bucket.min_skip_step, bucket, setting, math.ceil)
    num_steps = setting.num_steps or bucket.num_steps
    if bucket.skip_window_fraction is None or num_steps is None:
        return first
    return max(first, math.ceil(bucket.skip_window_fraction[0] * num_steps - _ROUNDING))


def _last(bucket: Bucket, setting: Setting) -> int | None:
    num_steps = setting.num_steps or bucket.num_steps
    if bucket.max_skip_step < 0:
        last = from_end(bucket.max_skip_step, num_steps)
    else:
        last = _scaled(bucket.max_skip_step, bucket, setting, math.floor)
    if bucket.skip_window_fraction is None:
        return last
    if num_steps is None:
        return NO_STEP
    end = math.floor(bucket.skip_window_fraction[1] * num_steps + _ROUNDING)
    return end if last is None else min(last, end)


def _differs(bucket: Bucket, setting: Setting) -> bool:
    return setting.num_steps is not None and bucket.num_steps not in (None, setting.num_steps)


def _scaled(step: int, bucket: Bucket, setting: Setting, rounding: object) -> int:
    if not _differs(bucket, setting):
        return step
    assert bucket.num_steps is not None
    assert setting.num_steps is not None
    return int(rounding(step * setting.num_steps / bucket.num_steps))  # type: ignore[operator]


def _require(value: float | None, name: str, least: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < least:
        raise ValueError(f"{name} is {value!r}, expected a finite number of at least {least}")
