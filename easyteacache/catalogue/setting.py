"""One operating point as a page shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeGuard

from easyteacache.catalogue.exports import EngineFile, Exporting, Refusal
from easyteacache.catalogue.usage import Asking, Usage
from easyteacache.pages.chart import Dot
from easyteacache.pages.environment import quality
from easyteacache.pages.plan_strip import Strip, strip
from easyteacache.pages.tiers import Tier, tier_named
from easyteacache.policy.figures import rate_of
from easyteacache.records.bucket import Bucket, OperatingPoint
from easyteacache.records.calibration import Calibration
from easyteacache.records.evidence import Evidence

#: A strip of more steps than this is no picture any more.
MOST_CELLS = 1000
#: No speed-up or figure of any metric is larger.
LARGEST_DRAWN = 1e6


@dataclass(frozen=True)
class Setting:
    """One operating point of a record, with all that a page tells of it.

    Attributes:
        name: id on its page.
        record: the record it is of.
        bucket, point: its place there; ``point`` None where the record names no setting.
        tier: of its strongest evidence.
        speed: speed-up, a factor; None where nobody says.
        stated: whether a source or a measurement states that; else it is steps ÷ computed steps.
        how: what decides, in a few words.
        setting: what it holds for, in a few words.
        plan: the strip of a plan.
        usage: the code.
        files, refused: exports.
    """

    name: str
    record: Calibration
    bucket: Bucket
    point: OperatingPoint | None
    tier: Tier
    speed: float | None
    stated: bool
    how: str
    setting: str
    plan: Strip | None
    usage: Usage
    files: tuple[EngineFile, ...]
    refused: tuple[Refusal, ...]

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        """What is known of it, strongest first."""
        return () if self.point is None else self.point.by_strength

    @cached_property
    def figures(self) -> dict[str, Evidence]:
        """Metric → the strongest evidence that states its mean."""
        found: dict[str, Evidence] = {}
        for one in self.evidence:
            if one.metric is not None and one.value is not None:
                found.setdefault(one.metric, one)
        return found

    @property
    def figure(self) -> str | None:
        """Its first figure for people."""
        return next((_figure(one) for one in self.figures.values()), None)

    @property
    def label(self) -> str:
        """What it is, in one line."""
        return f"{self.how} · {self.record.model_key}" + (f" · {self.setting}" if self.setting else "")

    def dot(self, metric: str | None = None) -> Dot | None:
        """Its dot on the chart of ``metric``, or of tiers; None where it has no speed-up or no such figure."""
        run = self.setting or "runs that the source does not describe"
        if metric is None:
            return (
                None
                if not _drawable(self.speed)
                else Dot(self.name, self.speed, None, self.tier.name, self.label, run=run)
            )
        one = self.figures.get(metric)
        speed = self.speed if one is None or one.speedup is None else one.speedup
        if one is None or not _drawable(speed) or not _drawable(one.value):
            return None
        return Dot(self.name, speed, one.value, one.kind, self.label, _figure(one), run)

    @property
    def engines(self) -> list[str]:
        """Who can run it: engines it exports to, and the one whose own setting it is."""
        own = [self.point.preset.engine] if self.point is not None and self.point.preset is not None else []
        return [*own, *(file.engine for file in self.files)]


def _drawable(value: float | None) -> TypeGuard[float]:
    """Whether a number fits on an axis beside real ones."""
    return value is not None and abs(value) <= LARGEST_DRAWN


def settings_of(record: Calibration, asking: Asking, exporting: Exporting, *, first: int) -> Iterator[Setting]:
    """Every setting of a record, in its order; ``first`` numbers the first one on its page."""
    number = first
    for bucket in record.buckets:
        for point in bucket.operating_points or (None,):
            files, refused = exporting.of_point(bucket, point)
            yield Setting(
                name=f"s{number}",
                record=record,
                bucket=bucket,
                point=point,
                tier=tier_named(None if point is None else point.strongest),
                speed=None if point is None else rate_of(point, bucket.num_steps),
                stated=point is not None and point.speedup is not None,
                how=_how(bucket, point),
                setting=_holds_for(bucket),
                plan=_strip(bucket, point),
                usage=asking.usage(bucket, point),
                files=files,
                refused=refused,
            )
            number += 1


def _how(bucket: Bucket, point: OperatingPoint | None) -> str:
    if point is None:
        return "no threshold named"
    if point.preset is not None:
        method, engine = point.preset.method, point.preset.engine
        return method if method.lower() == engine.lower() else f"{method} of {engine}"
    if point.threshold is not None:
        computed = "" if point.computed_steps is None else f", {_of(point.computed_steps, bucket)} computed"
        return f"threshold {point.threshold:g}{computed}"
    corrected = ", corrected" if point.plan is not None and point.plan.corrected else ""
    return f"plan, {_of(len(point.schedule or ()), bucket)} computed, {point.forecaster} of the {point.applied_to}{corrected}"


def _of(count: int, bucket: Bucket) -> str:
    return f"{count} of {bucket.num_steps} steps" if bucket.num_steps else f"{count} steps"


def _holds_for(bucket: Bucket) -> str:
    size = f"{bucket.width}×{bucket.height}" if bucket.width and bucket.height else ""
    frames = f"{bucket.frames} frames" if bucket.frames and bucket.frames > 1 else ""
    parts = [
        f"{bucket.sequence_length:,} tokens" if bucket.sequence_length else "",
        size,
        frames,
        f"{bucket.num_steps} steps" if bucket.num_steps else "",
        f"shift {bucket.shift:g}" if bucket.shift is not None else "",
        bucket.sampler.name if bucket.sampler is not None and bucket.sampler.name else "",
    ]
    return ", ".join(filter(None, parts))


def _strip(bucket: Bucket, point: OperatingPoint | None) -> Strip | None:
    if point is None or point.schedule is None:
        return None
    steps = bucket.num_steps or max(point.schedule) + 1
    return strip(point.schedule, steps) if steps <= MOST_CELLS else None


def _figure(one: Evidence) -> str:
    assert one.metric is not None
    assert one.value is not None
    names = {"relative-l2": "error", "lpips": "LPIPS", "psnr": "PSNR", "ssim": "SSIM"}
    return f"{names.get(one.metric, one.metric)} {quality(one.metric, one.value)}"
