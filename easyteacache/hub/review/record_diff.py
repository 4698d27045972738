"""What differs between two revisions of a record: field by field, coefficients side by side, and what it does to a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from easyteacache.policy.curves import Polynomial
from easyteacache.records.bucket import Bucket, OperatingPoint
from easyteacache.records.calibration import Calibration
from easyteacache.runtime.gate import Gate

SAMPLES = 64
Rows = tuple[tuple[float, ...], ...]
_OWN_SECTIONS = ("buckets", "revision")


@dataclass(frozen=True)
class Change:
    """One thing that differs; None stands for absent.

    Attributes:
        where: the field, or the bucket and the field.
        before, after: the two values as people read them.
    """

    where: str
    before: str | None
    after: str | None


def compare(before: Calibration, after: Calibration) -> list[Change]:
    """Everything that differs, in the record's order; empty for equal records."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    found = list(_different("revision", old["revision"], new["revision"]))
    for name in old:
        if name not in _OWN_SECTIONS:
            found += _different(name, old[name], new[name])
    return [*found, *_buckets(before, after)]


def _different(where: str, old: Any, new: Any) -> Iterator[Change]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            yield from _different(f"{where}.{name}", old.get(name), new.get(name))
    else:
        yield Change(where, _shown(old), _shown(new))


def _shown(value: Any) -> str | None:
    if value in (None, [], {}):
        return None
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(filter(None, map(_shown, value)))
    if isinstance(value, dict):
        return " ".join(f"{name}={_shown(one)}" for name, one in value.items() if one not in (None, [], {}))
    return str(value)


def _buckets(before: Calibration, after: Calibration) -> Iterator[Change]:
    old = {_place(bucket): bucket for bucket in before.buckets}
    new = {_place(bucket): bucket for bucket in after.buckets}
    if len(before.buckets) == len(old) == len({bucket.setting for bucket in before.buckets}) == len(new):
        # One sampler a setting, so that naming it for the first time is a change of the bucket and not another bucket.
        old = {(*bucket.setting, ""): bucket for bucket in before.buckets}
        new = {(*bucket.setting, ""): bucket for bucket in after.buckets}
    for setting in sorted({*old, *new}):
        a, b = old.get(setting), new.get(setting)
        name = _name(a or b)
        if a is None or b is None:
            yield Change(name, "present" if a else None, "present" if b else None)
            continue
        yield from _one_bucket(name, a, b)


def _place(bucket: Bucket) -> tuple[int, int, float, str]:
    return (*bucket.setting, bucket.sampler.name if bucket.sampler else "")


def _name(bucket: Bucket | None) -> str:
    assert bucket is not None
    parts = [
        f"{bucket.sequence_length} tokens" if bucket.sequence_length else "any length",
        f"{bucket.num_steps} steps" if bucket.num_steps else "any step count",
        f"shift {bucket.shift:g}" if bucket.shift is not None else "",
    ]
    return ", ".join(filter(None, parts))


def _one_bucket(name: str, a: Bucket, b: Bucket) -> Iterator[Change]:
    own = {"coefficients", "operating_points", "sigma_profile"}
    old, new = a.model_dump(mode="json", exclude=own), b.model_dump(mode="json", exclude=own)
    for field in old:
        yield from _different(f"{name}: {field}", old[field], new[field])
    if a.coefficients != b.coefficients:
        yield from _coefficients(name, a, b)
    yield from _points(name, a, b)


def _coefficients(name: str, a: Bucket, b: Bucket) -> Iterator[Change]:
    degrees = range(max(len(a.coefficients or ()), len(b.coefficients or ())) - 1, -1, -1)
    for degree in degrees:
        old, new = _coefficient(a, degree), _coefficient(b, degree)
        if old != new:
            yield Change(f"{name}: coefficient of x^{degree}", _shown(old), _shown(new))
    ratio = _curve_ratio(a, b)
    if ratio is not None:
        yield Change(f"{name}: predicted change, mean over the domain", "1", f"{ratio:.4g}")


def _coefficient(bucket: Bucket, degree: int) -> float | None:
    values = bucket.coefficients or ()
    return values[len(values) - 1 - degree] if degree < len(values) else None


def _curve_ratio(a: Bucket, b: Bucket) -> float | None:
    """Mean of the new curve over the old one's domain, relative to the old one."""
    if not a.coefficients or not b.coefficients or a.domain is None:
        return None
    old, new = Polynomial(a.coefficients, domain=a.domain), Polynomial(b.coefficients, domain=b.domain)
    low, high = a.domain
    grid = [low + (high - low) * i / (SAMPLES - 1) for i in range(SAMPLES)]
    total = sum(map(old, grid))
    return sum(map(new, grid)) / total if total > 0 else None


def _points(name: str, a: Bucket, b: Bucket) -> Iterator[Change]:
    """Operating points, matched by what a user asks for: a threshold, or a number of computed steps of a schedule."""
    old = {_asked(point): point for point in a.operating_points}
    new = {_asked(point): point for point in b.operating_points}
    for asked in dict.fromkeys((*old, *new)):
        before, after = old.get(asked), new.get(asked)
        label = f"{name}: {asked}"
        if _without_weights(before) != _without_weights(after):
            yield Change(label, None if before is None else _effect(before), _after(before, after, b))
        if before and after and before.weights and after.weights and before.weights != after.weights:
            # Only schedules have weights, so what they are of need not be said again.
            kind = asked.partition(",")[0]
            yield Change(f"{name}: weights of {kind}", *_weights(before.weights, after.weights))


def _without_weights(point: OperatingPoint | None) -> dict[str, Any] | None:
    return None if point is None else point.model_dump(exclude={"plan": {"rows"}})


def _weights(before: Rows, after: Rows) -> tuple[str, str]:
    """Hundreds of numbers in a few words; the row of one step is compared from the newest output back."""
    largest = [
        max(abs(old - new) for old, new in zip_longest(reversed(a), reversed(b), fillvalue=0.0))
        for a, b in zip_longest(before, after, fillvalue=())
        if a != b
    ]
    return f"{len(before)} steps", f"{len(largest)} changed, largest difference {max(largest):.3g}"


def _after(before: OperatingPoint | None, after: OperatingPoint | None, bucket: Bucket) -> str | None:
    if after is not None:
        return _effect(after)
    computed = predicted_steps(bucket, before.threshold) if before is not None and before.threshold else None
    return None if computed is None else f"about {computed} computed steps, unjudged"


def _asked(point: OperatingPoint) -> str:
    if point.preset is not None:
        return f"{point.preset.method} of {point.preset.engine}, {dict(sorted(point.preset.parameters.items()))}"
    kind = f"threshold {point.threshold:g}" if point.schedule is None else f"schedule of {len(point.schedule)}"
    return f"{kind}, {point.forecaster} of {point.applied_to}"


def _effect(point: OperatingPoint) -> str:
    parts = [
        f"{point.computed_steps} computed steps" if point.computed_steps else None,
        f"{point.speedup:.3g}×" if point.speedup else None,
        f"error {point.error.mean:.3g}" if point.error else None,
    ]
    return ", ".join(filter(None, parts)) or "unmeasured"


def predicted_steps(bucket: Bucket, threshold: float | None) -> int | None:
    """Computed steps that a gate with ``threshold`` takes if every run is as the bucket's sigma profile says; None without one."""
    profile, steps = bucket.sigma_profile, bucket.num_steps
    if profile is None or not steps or not threshold or len(profile.sigmas) not in (steps, steps + 1):
        return None
    jumps = [b - a for a, b in zip(profile.distances, profile.distances[1:], strict=False)][: steps - 1]
    last = bucket.max_skip_step if bucket.max_skip_step >= 0 else steps + bucket.max_skip_step
    gate = Gate(
        threshold=threshold, first=bucket.min_skip_step, last=last, max_consecutive_skips=bucket.max_consecutive_skips
    )
    computed = 0
    for step in range(steps):
        jump = jumps[step - 1] if 0 < step <= len(jumps) else math.inf
        if step and gate.admits(step, lambda jump=jump: jump):  # type: ignore[misc]
            gate.reused(step)
        else:
            gate.computed(step)
            computed += 1
    return computed
