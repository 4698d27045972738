"""Speed against error before and after a change, as text that a comment can hold, and what the change displaces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from easyteacache.policy.figures import rate_of
from easyteacache.records.bucket import Bucket, OperatingPoint
from easyteacache.records.calibration import Calibration

WIDTH, HEIGHT = 56, 14
BEFORE, AFTER, BOTH = "o", "#", "@"
#: Nothing is printed of more bars than this.
MOST_ROWS = 12


@dataclass(frozen=True)
class Point:
    """One operating point with a measured error.

    Attributes:
        run: what it holds for.
        speed: speed-up, a factor.
        error: relative L2, mean over runs, above 0.
        label: record and setting.
    """

    run: str
    speed: float
    error: float
    label: str


def points_of(records: Iterable[Calibration]) -> list[Point]:
    """Every operating point of ``records`` whose speed-up and relative L2 error are known."""
    return [
        Point(_run(bucket), rate, point.error.mean, f"{record.model_key}, {_how(point)}")
        for record in records
        for bucket in record.buckets
        for point in bucket.operating_points
        if point.error is not None and point.error.mean > 0 and (rate := rate_of(point, bucket.num_steps)) is not None
    ]


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other one of the same runs beats, fastest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: (-one.speed, one.error)):
        if not found or point.error < found[-1].error:
            found.append(point)
    return found


def told(before: Iterable[Calibration], after: Iterable[Calibration]) -> Iterator[str]:
    """Markdown: a chart for each kind of runs, and what is displaced; nothing where no error is known.

    Args:
        before: the model's records as they are published.
        after: the same as the change leaves them.
    """
    old, new = points_of(before), points_of(after)
    runs = [run for run in dict.fromkeys(one.run for one in new) if _of(old, run) != _of(new, run)]
    for run in runs[:MOST_ROWS]:
        was, now = _of(old, run), _of(new, run)
        yield f"Error against speed-up, {run}: `{BEFORE}` published, `{AFTER}` with this change, `{BOTH}` both"
        yield ""
        yield "```"
        yield from chart(was, now)
        yield "```"
        yield ""
        yield from _displaced(was, now)
    if len(runs) > MOST_ROWS:
        yield f"{len(runs) - MOST_ROWS} more kinds of runs are not drawn."
        yield ""


def chart(before: Sequence[Point], after: Sequence[Point]) -> Iterator[str]:
    """The two frontiers on one grid: faster to the right, smaller errors up, logarithmic."""
    old, new = frontier(before), frontier(after)
    every = [*old, *new]
    slow, fast = 1.0, max(one.speed for one in every)
    low, high = min(math.log(one.error) for one in every), max(math.log(one.error) for one in every)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for points, mark in ((old, BEFORE), (new, AFTER)):
        for one in points:
            column = round((one.speed - slow) / max(fast - slow, 1e-9) * (WIDTH - 1))
            row = round((math.log(one.error) - low) / max(high - low, 1e-9) * (HEIGHT - 1))
            grid[row][column] = mark if grid[row][column] in (" ", mark) else BOTH
    for row, cells in enumerate(grid):
        error = math.exp(low + (high - low) * row / (HEIGHT - 1))
        label = f"{100 * error:.3g} %" if row % 4 == 0 or row == HEIGHT - 1 else ""
        yield f"{label:>9} |{''.join(cells)}".rstrip()
    yield " " * 10 + "+" + "-" * WIDTH
    left, middle, right = f"{slow:.3g}x", f"{(slow + fast) / 2:.3g}x", f"{fast:.3g}x"
    yield " " * 11 + left + f"{middle:^{WIDTH - len(left) - len(right)}}" + right


def _displaced(before: Sequence[Point], after: Sequence[Point]) -> Iterator[str]:
    old, new = frontier(before), frontier(after)
    gone = [one for one in old if one not in new]
    yield "| displaced | its error | by | error there |"
    yield "|---|---|---|---|"
    for one in gone[:MOST_ROWS]:
        better = [other for other in new if other.speed >= one.speed * 0.99 and other.error <= one.error]
        by = min(better, key=lambda other: other.error, default=None)
        what = ("nothing as fast and as good", "–") if by is None else (_cell(by), f"{100 * by.error:.3g} %")
        yield f"| {_cell(one)} | {100 * one.error:.3g} % | {what[0]} | {what[1]} |"
    if not gone:
        fresh = [one for one in new if one not in old]
        yield f"| nothing | | {len(fresh)} new point{'' if len(fresh) == 1 else 's'} on the frontier | |"
    if len(gone) > MOST_ROWS:
        yield f"| {len(gone) - MOST_ROWS} more | | | |"
    yield ""


def _of(points: Sequence[Point], run: str) -> list[Point]:
    return [one for one in points if one.run == run]


def _cell(point: Point) -> str:
    return f"{point.speed:.3g}×, {point.label}"


def _run(bucket: Bucket) -> str:
    length, steps, shift = bucket.sequence_length, bucket.num_steps, bucket.shift
    parts = [
        f"{length} tokens" if length else "any length",
        f"{steps} steps" if steps else "any step count",
        f"shift {shift:g}" if shift is not None else "",
    ]
    return ", ".join(filter(None, parts))


def _how(point: OperatingPoint) -> str:
    filled = f"{point.forecaster} of {point.applied_to}"
    if point.schedule is not None:
        return f"plan of {len(point.schedule)}, {filled}"
    return f"threshold {point.threshold:g}, {filled}" if point.threshold is not None else "preset"
