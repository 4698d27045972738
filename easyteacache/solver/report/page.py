"""One self-contained HTML page (and its pictures) that shows what a calibration is and how good."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyteacache.files import atomic_write
from easyteacache.pages.chart import Chart, Dot, quality_chart
from easyteacache.pages.environment import environment, inline, number, quality
from easyteacache.pages.plan_strip import Strip, strip
from easyteacache.records.bucket import Bucket
from easyteacache.records.calibration import Calibration
from easyteacache.records.evidence import RELATIVE_L2
from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.replay.replay import filling_of
from easyteacache.solver.report import figures
from easyteacache.solver.report.evidence import BucketEvidence, Shown, collect
from easyteacache.solver.validation.points import describe
from easyteacache.solver.validation.validate import validate
from easyteacache.solver.validation.verdict import Judged, Report

PAGE = "report.html"
#: What people ask for first.
USUAL_SPEED = 2.0
_TEMPLATES = Path(__file__).parent / "templates"

Drawing = Callable[[Calibration, BucketEvidence], bytes]
DRAWINGS: dict[str, Drawing] = {
    "fit": figures.draw_fit,
    "frontier": figures.draw_frontier,
    "steps": figures.draw_steps,
    "distances": figures.draw_distances,
}


@dataclass(frozen=True)
class SamplePicture:
    """One picture of a sampled comparison: what made it, a PNG in base64, and what there is to say of it."""

    name: str
    png: str
    said: str = ""


@dataclass(frozen=True)
class Sampled:
    """One prompt, sampled from the same noise in several ways."""

    prompt: str
    shown: tuple[SamplePicture, ...]


@dataclass(frozen=True)
class Advice:
    """What to begin with.

    Attributes:
        asked: the argument ``speedup``.
        point: what it gives on held-out runs.
        nearer: error of as many steps without a cache, divided by its own; None where that was not judged.
        code: the lines.
    """

    asked: float
    point: Judged
    nearer: float | None
    code: str


@dataclass(frozen=True)
class _Picture:
    file: str
    told: str
    data: bytes

    @property
    def png(self) -> str:
        return base64.b64encode(self.data).decode()


@dataclass(frozen=True)
class _Setting:
    name: str
    speed: float
    error: float
    p90: float
    how: str
    plan: Strip
    gated: bool


@dataclass(frozen=True)
class _Bucket:
    name: str
    chart: Chart
    settings: tuple[_Setting, ...]
    points: tuple[Judged, ...]
    drawings: tuple[_Picture, ...]


def write_report(
    record: Calibration,
    traces: TraceSet,
    folder: str | os.PathLike[str],
    *,
    use: str | None = None,
    samples: Callable[[Advice], Sequence[Sampled]] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[list[Path], Report]:
    """Write ``report.html`` with every picture inside it, and the pictures as PNG files beside it.

    Args:
        record: the calibration.
        traces: its runs.
        folder: made as needed.
        use: how the cache is made, up to its arguments, for example ``TeaCache.from_file("my.json"``; None: by the record's key.
        samples: pictures of what is advised, where there is a model.
        progress: told about every picture.

    Returns:
        The files written, the page first; and the verdict that the page shows.
    """
    target = Path(folder)
    pictures, verdict = _write(record, traces, target / PAGE, use, samples, progress)
    files = [target / PAGE]
    for picture in pictures:
        files.append(target / picture.file)
        atomic_write.write_bytes(files[-1], picture.data)
    return files, verdict


def write_page(record: Calibration, traces: TraceSet, page: Path) -> Report:
    """Write the page alone, for a record that is found by its key; returns the verdict that it shows."""
    return _write(record, traces, page, None, None, lambda _: None)[1]


def _write(
    record: Calibration,
    traces: TraceSet,
    page: Path,
    use: str | None,
    samples: Callable[[Advice], Sequence[Sampled]] | None,
    progress: Callable[[str], None],
) -> tuple[list[_Picture], Report]:
    verdict = validate(record, traces)
    # Traces that do not belong to the record leave nothing true to draw.
    buckets = list(_buckets(record, traces, verdict, progress)) if verdict.points else []
    overview = None
    if buckets:
        progress("drawing buckets")
        overview = _Picture("buckets.png", "curves and sigma profiles of all buckets", figures.draw_buckets(record))
    advice = advised(record, verdict, use)
    templates = environment(_TEMPLATES)
    templates.filters["share"] = lambda value: quality(RELATIVE_L2, value)
    values: dict[str, Any] = {
        "record": record,
        "verdict": verdict,
        "advice": advice,
        "samples": list(samples(advice)) if samples is not None and advice is not None else [],
        "buckets": buckets,
        "overview": overview,
        "baselines": list(dict.fromkeys(name for point in verdict.points for name in point.baselines)),
        "style": inline("pages.css"),
        "script": inline("pages.js"),
    }
    atomic_write.write_text(page, templates.get_template("report.html").render(values))
    pictures = [drawing for bucket in buckets for drawing in bucket.drawings]
    return [*pictures, *([] if overview is None else [overview])], verdict


def advised(record: Calibration, verdict: Report, use: str | None = None) -> Advice | None:
    """What to begin with: about twice as fast, in the setting with the most tokens and steps; None where nothing was judged."""
    if not verdict.points or not verdict.passed:
        return None
    largest = max(record.buckets, key=lambda one: (one.sequence_length or 0, one.num_steps or 0))
    where = describe(largest)
    points = [one for one in verdict.points if one.where == where] or list(verdict.points)
    near = min(points, key=lambda one: abs(math.log(one.speedup / USUAL_SPEED))).speedup
    point = min((one for one in points if abs(one.speedup - near) < 0.01 * near), key=lambda one: one.error)
    asked = math.floor(100 * point.speedup) / 100
    fewer = point.baselines.get("fewer steps")
    made = use or f'TeaCache.from_registry("{record.model_key}"'
    steps = f", num_inference_steps={largest.num_steps}" if largest.num_steps else ""
    code = f"from easyteacache import TeaCache\n\n{made}, speedup={asked}).attach(pipe)\npipe(prompt{steps})"
    return Advice(asked, point, None if not fewer or not point.error else fewer / point.error, code)


def _buckets(
    record: Calibration, traces: TraceSet, verdict: Report, progress: Callable[[str], None]
) -> Iterator[_Bucket]:
    calibration, heldout = traces.split_heldout()
    for place, bucket in enumerate(record.buckets, start=1):
        setting = traces.setting_of(bucket)
        progress(f"collecting {describe(bucket)}")
        evidence = collect(record, bucket, calibration.group(*setting), heldout.group(*setting))
        stem = f"{bucket.sequence_length}-tokens-{bucket.num_steps}-steps" + (
            f"-shift-{bucket.shift:g}" if bucket.shift else ""
        )
        if len(setting) > 3:
            stem += f"-{setting[3]}"
        drawings = []
        for name, draw in DRAWINGS.items():
            progress(f"drawing {name} at {describe(bucket)}")
            drawings.append(_Picture(f"{stem}-{name}.png", f"{name}, {describe(bucket)}", draw(record, evidence)))
        settings = tuple(_setting(one, f"b{place}-{number}", bucket) for number, one in enumerate(evidence.shown, 1))
        where = describe(bucket)
        judged = tuple(point for point in verdict.points if point.where == where)
        yield _Bucket(describe(bucket), _chart(settings, judged), settings, judged, tuple(drawings))


def _setting(one: Shown, name: str, bucket: Bucket) -> _Setting:
    steps = bucket.num_steps or max(one.computed) + 1
    gate = "plan" if one.point.threshold is None else f"threshold {one.point.threshold:.3g}"
    how = f"{gate}, {filling_of(one.point)}, {number(steps / one.speedup)} of {steps} steps computed"
    plan = strip(one.computed, steps)
    return _Setting(name, one.speedup, one.error, one.p90, how, plan, one.point.threshold is not None)


def _chart(settings: Sequence[_Setting], judged: Sequence[Judged]) -> Chart:
    dots = [
        Dot(one.name, one.speed, one.error, "submitted", one.how, f"error {quality(RELATIVE_L2, one.error)}")
        for one in settings
        if one.error > 0
    ]
    return quality_chart(
        dots,
        metric=RELATIVE_L2,
        title="Error of the final sample on held-out runs",
        y_label="nearer to the uncached sample (relative L2)",
        x_label="steps ÷ computed steps",
        more=False,
        shares=True,
        beside=_baselines(judged),
    )


def _baselines(judged: Sequence[Judged]) -> list[tuple[str, list[tuple[float, float]]]]:
    """Error against speed-up of what has to be beaten, a line each."""
    names = {"fewer steps": "fewer steps", "uniform": "evenly spaced"}
    lines = []
    for name, shown in names.items():
        best: dict[float, float] = {}
        for one in judged:
            if one.gate == "schedule" and name in one.baselines and one.baselines[name] > 0:
                best[one.speedup] = min(one.baselines[name], best.get(one.speedup, math.inf))
        if len(best) > 1:
            lines.append((shown, sorted(best.items())))
    return lines


__all__ = ["DRAWINGS", "PAGE", "Advice", "SamplePicture", "Sampled", "advised", "write_page", "write_report"]
