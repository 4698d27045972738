"""One self-contained HTML page (and its pictures) that shows what a calibration is and how good."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from easyteacache.files import atomic_write
from easyteacache.records.calibration import Calibration
from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.report import figures
from easyteacache.solver.report.evidence import BucketEvidence, collect
from easyteacache.solver.validation.validate import describe, validate
from easyteacache.solver.validation.verdict import Report

PAGE = "report.html"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
img { max-width: 100%; height: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #e4e4e4; } th:first-child, td:first-child { text-align: left; }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: 13px; } .passed { color: #00664a; } .refused { color: #a03a00; }
"""


def write_report(
    record: Calibration,
    traces: TraceSet,
    folder: str | os.PathLike[str],
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[list[Path], Report]:
    """Write ``report.html`` with every picture inside it, and the pictures as PNG files beside it.

    Args:
        record: the calibration.
        traces: its runs.
        folder: made as needed.
        progress: told about every picture.

    Returns:
        The files written, the page first; and the verdict that the page shows.
    """
    verdict = validate(record, traces)
    pictures = dict(_pictures(record, traces, verdict, progress))
    target = Path(folder)
    page = target / PAGE
    atomic_write.write_text(page, _page(record, verdict, pictures))
    files = [page]
    for name, data in pictures.items():
        files.append(target / name)
        atomic_write.write_bytes(files[-1], data)
    return files, verdict


def _pictures(
    record: Calibration, traces: TraceSet, verdict: Report, progress: Callable[[str], None]
) -> Iterator[tuple[str, bytes]]:
    if not verdict.points:
        # The traces do not belong to the record, so there is nothing true to draw.
        return
    calibration, heldout = traces.split_heldout()
    for bucket in record.buckets:
        setting = traces.setting_of(bucket)
        progress(f"collecting {describe(bucket)}")
        evidence = collect(record, bucket, calibration.group(*setting), heldout.group(*setting))
        stem = f"{bucket.sequence_length}-tokens-{bucket.num_steps}-steps" + (
            f"-shift-{bucket.shift:g}" if bucket.shift else ""
        )
        if len(setting) > 3:
            stem += f"-{setting[3]}"
        for name, draw in DRAWINGS.items():
            progress(f"drawing {name} at {describe(bucket)}")
            yield f"{stem}-{name}.png", draw(record, evidence)
    progress("drawing buckets")
    yield "buckets.png", figures.draw_buckets(record)


Drawing = Callable[[Calibration, BucketEvidence], bytes]
DRAWINGS: dict[str, Drawing] = {
    "fit": figures.draw_fit,
    "frontier": figures.draw_frontier,
    "steps": figures.draw_steps,
    "distances": figures.draw_distances,
}


def _page(record: Calibration, verdict: Report, pictures: dict[str, bytes]) -> str:
    return "\n".join(_lines(record, verdict, pictures)) + "\n"


def _lines(record: Calibration, verdict: Report, pictures: dict[str, bytes]) -> Iterator[str]:
    title = html.escape(record.model_key)
    state = "passed" if verdict.passed else "refused"
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f'<meta name="viewport" content="width=device-width"><title>{title}</title><style>{STYLE}</style></head><body>'
    yield f"<h1>{title}</h1>"
    yield f"<p>{html.escape(record.title)}, revision {record.revision}, {record.status}; signal <code>{record.signal}</code>."
    yield f'Validation on {verdict.heldout_runs} held-out runs: <strong class="{state}">{state}</strong>.</p>'
    for note in record.notes:
        yield f"<p>{html.escape(note)}</p>"
    yield "<h2>Operating points</h2>"
    yield from _points(verdict)
    for name, data in pictures.items():
        if name.endswith("-fit.png"):
            yield f"<h2>{html.escape(name.removesuffix('-fit.png').replace('-', ' '))}</h2>"
        elif name == "buckets.png":
            yield "<h2>All buckets</h2>"
        yield f'<img alt="{html.escape(_alternative(name))}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
    yield f"<h2>Validation</h2><pre>{html.escape(verdict.text())}</pre>"
    yield "</body></html>"


def _points(verdict: Report) -> Iterator[str]:
    names = list(dict.fromkeys(name for point in verdict.points for name in point.baselines))
    heads = ["bucket", "gate", "filled by", "computed", "speed-up", "error", "90th percentile", *names]
    yield "<p>Predicted error of the final sample (relative L2) on held-out runs, beside what has to be beaten.</p>"
    yield "<table><tr>" + "".join(f"<th>{html.escape(head)}</th>" for head in heads) + "</tr>"
    for point in verdict.points:
        others = [f"{point.baselines[name]:.3g}" if name in point.baselines else "–" for name in names]
        cells = [
            point.where,
            point.gate,
            point.filling,
            f"{point.computed:g}",
            f"{point.speedup:.2f}×",
            f"{point.error:.3g}",
            f"{point.p90:.3g}",
            *others,
        ]
        yield "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
    yield "</table>"


def _alternative(name: str) -> str:
    return name.removesuffix(".png").replace("-", " ")
