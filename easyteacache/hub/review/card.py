"""The page that goes with a submitted record: what it is, how it was judged, and a plot of error against speed-up."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from easyteacache.hub.review.check_submission import Submission
from easyteacache.records.calibration import Calibration

WIDTH, HEIGHT, MARGIN = 640, 360, 56
COLOURS = ("#1b6ca8", "#c44e52", "#55a868", "#8172b2", "#937860", "#64b5cd")


def card(submission: Submission, *, plot: str | None = None, force_reason: str | None = None) -> str:
    """The page as Markdown.

    Args:
        submission: a judged record.
        plot: file name of its plot, beside the page.
        force_reason: why it replaces a better one.
    """
    record = submission.record
    assert record is not None
    lines = [f"# {_text(record.title)}", "", f"`{record.model_key}`, revision {record.revision}, {record.status}.", ""]
    lines += _facts(record, submission.incumbent)
    if force_reason:
        lines += ["", f"**Accepted although the published record is better:** {_text(force_reason)}"]
    if record.retirement is not None:
        replacement = f" Use `{record.retirement.replacement}` instead." if record.retirement.replacement else ""
        lines += [
            "",
            f"**{record.status} on {record.retirement.date}:** {_text(record.retirement.reason)}{replacement}",
        ]
    points = submission.report.points if submission.report else ()
    if points:
        lines += ["", "## Validation on runs it had not seen", "", *_table(points)]
        lines += ["", f"![error against speed-up]({plot})"] if plot else []
    if record.notes:
        lines += ["", "## Notes", "", *(f"- {_text(note)}" for note in record.notes)]
    return "\n".join(lines) + "\n"


def _facts(record: Calibration, incumbent: Calibration | None) -> list[str]:
    origin = record.provenance
    facts = {
        "method": record.method,
        "signal": record.signal,
        "licence": origin.license,
        "author": origin.author,
        "date": origin.date,
        "made with": " ".join(filter(None, (origin.tool, origin.tool_version, origin.tool_options))),
        "checkpoint": record.model.checkpoint if record.model else None,
        "runs": sum(trace.runs for trace in origin.traces) or None,
        "replaces": f"revision {incumbent.revision}" if incumbent else None,
    }
    rows = [f"| {name} | {_text(str(value))} |" for name, value in facts.items() if value]
    return ["| | |", "|---|---|", *rows]


def _table(points: Sequence[Any]) -> list[str]:
    names = list(dict.fromkeys(name for point in points for name in point.baselines))
    head = ["bucket", "gate", "filled by", "steps", "speed-up", "error", "p90", *names]
    rows = [
        [
            point.where,
            point.gate,
            point.filling,
            f"{point.computed:.4g}",
            f"{point.speedup:.3g}×",
            f"{point.error:.3g}",
            f"{point.p90:.3g}",
            *(f"{point.baselines[name]:.3g}" if name in point.baselines else "–" for name in names),
        ]
        for point in points
    ]
    return [f"| {' | '.join(map(_text, row))} |" for row in (head, ["---"] * len(head), *rows)]


def _text(text: str) -> str:
    """``text`` as it is: nothing in it becomes a link, a picture or a cell of its own."""
    if text == "---":
        return text
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#!~" else c for c in text.replace("\n", " "))
    # Nor a call for somebody's attention.
    return escaped.replace("@", "&#64;")


def plot(points: Sequence[Any]) -> str:
    """Error of the final sample over speed-up as an SVG: one line per bucket, gate and what is filled (residual or output)."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        filled = str(point.filling).rpartition(" ")[2]
        groups.setdefault(f"{point.where}, {point.gate}, {filled}", []).append((point.speedup, point.error))
    high_x = max(x for line in groups.values() for x, _ in line)
    high_y = max(y for line in groups.values() for _, y in line) or 1.0
    height = HEIGHT + 16 * len(groups)
    body = [_axes(high_x, high_y)]
    for number, (name, line) in enumerate(groups.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = " ".join(f"{_x(x, high_x):.1f},{_y(y, high_y):.1f}" for x, y in sorted(line))
        body.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body += [f'<circle cx="{_x(x, high_x):.1f}" cy="{_y(y, high_y):.1f}" r="3" fill="{colour}"/>' for x, y in line]
        body.append(f'<text x="{MARGIN}" y="{HEIGHT + 16 * number}" fill="{colour}">{escape(name)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(body)}</svg>\n'
    )


def _x(value: float, high: float) -> float:
    return MARGIN + (value - 1) / max(high - 1, 1e-9) * (WIDTH - 2 * MARGIN)


def _y(value: float, high: float) -> float:
    return HEIGHT - MARGIN - value / high * (HEIGHT - 2 * MARGIN)


def _axes(high_x: float, high_y: float) -> str:
    left, right, low, top = MARGIN, WIDTH - MARGIN, HEIGHT - MARGIN, MARGIN
    parts = [f'<path d="M{left} {top}V{low}H{right}" fill="none" stroke="black"/>']
    for i in range(5):
        x, y = 1 + (high_x - 1) * i / 4, high_y * i / 4
        parts.append(f'<text x="{_x(x, high_x):.0f}" y="{low + 16}" text-anchor="middle">{x:.3g}×</text>')
        parts.append(f'<text x="{left - 6}" y="{_y(y, high_y) + 4:.0f}" text-anchor="end">{y:.2g}</text>')
    parts.append(
        f'<text x="{(left + right) / 2:.0f}" y="{low + 32}" text-anchor="middle">speed-up (steps / computed steps)</text>'
    )
    parts.append(f'<text x="{left}" y="{top - 12}">error of the final sample, relative L2, held-out runs</text>')
    return "".join(parts)
