"""The report's pictures, drawn for people: direct labels instead of legends, readable without colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from easyteacache.compare import plot_style
from easyteacache.compare.plot_style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from easyteacache.policy.curves import Polynomial
from easyteacache.records.bucket import Bucket
from easyteacache.records.calibration import Calibration
from easyteacache.records.trace import Array
from easyteacache.solver.fit.points import Points
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.replay import filling_of
from easyteacache.solver.report.evidence import BucketEvidence, Frontier

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES: tuple[tuple[str, Any], ...] = (
    (BLUE, "-"),
    (RED, "--"),
    (GREEN, "-."),
    (PURPLE, ":"),
    (ORANGE, (0, (5, 1, 1, 1, 1, 1))),
)
COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, "black", SKY)
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
OTHER_NAMES = {
    "teacache": "plain degree 4",
    "power": "power law",
    "isotonic": "any rising curve",
    "monotone": "monotone",
}
MOST_POINTS = 4000
#: How far apart runs of two kinds are drawn, as a factor.
BESIDE = 1.008
#: Of the largest value, what the axis of stored curves still shows.
SMALLEST_SHOWN = 1 / 300
SIZE = (8.0, 4.6)


def draw_fit(record: Calibration, evidence: BucketEvidence) -> bytes:
    """Pairs, their domain, the stored curve and what else was tried."""
    figure, axes = _canvas(
        f"{record.signal}: what the change of the signal says about the change of the output", evidence
    )
    low, high = evidence.points.domain
    bottom, top = 0.5 * max(float(np.min(evidence.points.y)), 1e-6), 1.6 * float(np.max(evidence.points.y))
    start = max(low, 1e-6)
    grid = np.geomspace(0.7 * start, 1.35 * high, 400)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plot_style.plain_decades(axes.xaxis, axes.yaxis)
    axes.axvspan(start, high, color="#EEF3F7", zorder=0)
    beside: tuple[tuple[Points, float, dict[str, Any]], ...] = (
        (evidence.points, 1 / BESIDE, {"marker": ".", "color": "#3F6E91", "markersize": 5}),
        (evidence.unseen, BESIDE, {"marker": "x", "color": ORANGE, "markersize": 3.5, "markeredgewidth": 0.8}),
    )
    for points, aside, mark in beside:
        # Runs of both kinds have the same signal distances: beside each other, neither hides the other.
        x, y = _thinned(points.x, points.y)
        axes.plot(x * aside, y, linestyle="none", zorder=2, **mark)
    stored = Polynomial(evidence.bucket.coefficients or (), domain=evidence.bucket.domain)
    curves = [("stored curve", np.array([stored(x) for x in grid.tolist()]), BLUE, "-")]
    for other, (colour, style) in zip(evidence.others, ((RED, "--"), (GREEN, "-."), (GREY, ":")), strict=False):
        curves.append((OTHER_NAMES[other.form], other.predict(grid), colour, style))
    for _, values, colour, style in curves:
        # Where a curve is 0 or less it leaves the picture: that is what it does to a gate.
        axes.plot(
            grid,
            np.maximum(values, 1e-3 * bottom),
            color=colour,
            linestyle=style,
            linewidth=2.4 if style == "-" else 1.5,
        )
    axes.set_ylim(bottom, top)
    axes.set_xlim(float(grid[0]), float(grid[-1]))
    ends = [(float(grid[-1]), float(np.clip(v[-1], bottom, top)), name, colour) for name, v, colour, _ in curves]
    plot_style.label_ends(axes, ends, logarithmic=True)
    axes.text(start, top, " domain", va="top", ha="left", color="#5B7A92", fontsize=plot_style.NORMAL)
    axes.text(
        0.98,
        0.03,
        "● calibration run   × held-out run, drawn beside each other",
        transform=axes.transAxes,
        ha="right",
        color=GREY,
        fontsize=plot_style.NORMAL,
    )
    axes.set_xlabel("signal distance from one step to the next (relative L1)")
    axes.set_ylabel("output distance (relative L1)")
    return plot_style.png(figure)


def draw_frontier(record: Calibration, evidence: BucketEvidence) -> bytes:
    """Error of the final sample against speed-up: a line per predictor, the record's points on top."""
    figure, axes = _canvas("Error of the final sample on held-out runs, at each speed-up", evidence)
    steps = evidence.bucket.num_steps or 1
    ends = []
    for frontier, (colour, style) in zip(evidence.frontiers, _frontier_styles(evidence.frontiers), strict=True):
        speed = [steps / count for count in frontier.computed]
        axes.plot(speed, frontier.errors, color=colour, linestyle=style, linewidth=1.8)
        ends.append((speed[-1], frontier.errors[-1], _short_name(frontier.name), colour))
    for kind, marker, face in (("schedule", "o", "black"), ("threshold", "s", "white")):
        chosen = [s for s in evidence.shown if (s.point.threshold is None) == (kind == "schedule")]
        if chosen:
            where = [s.speedup for s in chosen], [s.error for s in chosen]
            axes.plot(*where, marker, color="black", markerfacecolor=face, markersize=6, linestyle="none", zorder=5)
            axes.vlines(where[0], where[1], [s.p90 for s in chosen], color="black", linewidth=0.8, zorder=4)
    axes.set_yscale("log")
    plot_style.plain_decades(axes.yaxis)
    plot_style.label_ends(axes, ends, logarithmic=True)
    axes.text(
        0.02,
        0.96,
        "● schedule  □ threshold of the record; whisker: 90th percentile",
        transform=axes.transAxes,
        va="top",
        color="black",
        fontsize=plot_style.NORMAL,
    )
    axes.set_xlabel("steps ÷ computed steps")
    axes.set_ylabel("relative L2 error")
    return plot_style.png(figure)


def draw_steps(record: Calibration, evidence: BucketEvidence) -> bytes:
    """One row per operating point: filled where a step is computed."""
    steps = evidence.bucket.num_steps or 1
    rows = evidence.shown
    figure, axes = _canvas("Which steps are computed", evidence, size=(8.0, 1.5 + 0.26 * len(rows)))
    for row, shown in enumerate(rows):
        reused = sorted(set(range(steps)) - set(shown.computed))
        colour = BLUE if shown.point.threshold is None else GREY
        axes.broken_barh([(k - 0.42, 0.84) for k in shown.computed], (row - 0.36, 0.72), color=colour)
        axes.broken_barh([(k - 0.42, 0.84) for k in reused], (row - 0.08, 0.16), color="#D5DEE6")
    axes.set_yticks(
        range(len(rows)),
        [_row_name(shown.speedup, filling_of(shown.point), shown.point.threshold) for shown in rows],
        fontsize=plot_style.SMALL,
    )
    axes.invert_yaxis()
    axes.set_xlim(-1, steps)
    axes.set_xlabel("step (0 is the noisiest); blue: fixed schedule, grey: threshold")
    return plot_style.png(figure)


def draw_distances(record: Calibration, evidence: BucketEvidence) -> bytes:
    """How much output and signals change from step to step."""
    figure, axes = _canvas(
        "Change from each step to the next, mean over runs (band: 10th to 90th percentile)", evidence
    )
    steps = np.arange(1, evidence.distances.shape[1] + 1)
    low, high = np.percentile(evidence.distances, (10, 90), axis=0)
    axes.fill_between(steps, low, high, color="#D8D8D8", zorder=1)
    mean = evidence.distances.mean(axis=0)
    axes.plot(steps, mean, color="black", linewidth=2.4)
    ends = [(float(steps[-1]), float(mean[-1]), "output", "black")]
    for (name, values), (colour, style) in zip(evidence.signals.items(), STYLES, strict=False):
        axes.plot(steps, values, color=colour, linestyle=style, linewidth=1.5)
        ends.append(
            (
                float(steps[-1]),
                float(values[-1]),
                name.replace("_", " ") + (" *" if name == record.signal else ""),
                colour,
            )
        )
    axes.set_yscale("log")
    plot_style.plain_decades(axes.yaxis)
    plot_style.label_ends(axes, ends, logarithmic=True)
    axes.set_xlabel("step; * the record's signal")
    axes.set_ylabel("relative L1 distance")
    return plot_style.png(figure)


def draw_buckets(record: Calibration) -> bytes:
    """All buckets' curves and sigma profiles beside each other: a colour per length, a line style per sampler setting."""
    figure = plot_style.figure(10.5, 4.8, layout="constrained")
    left, right = figure.subplots(1, 2)
    lengths = list(dict.fromkeys(bucket.sequence_length for bucket in record.buckets))
    settings = list(dict.fromkeys((bucket.num_steps, bucket.shift) for bucket in record.buckets))
    curve_ends, profile_ends = [], []
    for bucket in record.buckets:
        colour = COLOURS[lengths.index(bucket.sequence_length) % len(COLOURS)]
        style = LINES[settings.index((bucket.num_steps, bucket.shift)) % len(LINES)]
        name = f"{bucket.sequence_length}" + (f", {_setting(bucket, record)}" if len(settings) > 1 else " tokens")
        low, high = bucket.domain or (0.0, 0.2)
        grid = np.geomspace(max(low, 1e-6), high, 200)
        curve = Polynomial(bucket.coefficients or (), domain=bucket.domain)
        values = [max(curve(x), 1e-9) for x in grid.tolist()]
        left.plot(grid, values, color=colour, linestyle=style, linewidth=1.8)
        curve_ends.append((float(grid[-1]), values[-1], name, colour))
        if bucket.sigma_profile is not None:
            profile = bucket.sigma_profile
            right.plot(profile.sigmas, profile.distances, color=colour, linestyle=style, linewidth=1.8)
            profile_ends.append((profile.sigmas[-1], profile.distances[-1], name, colour))
    for axes, ends, title in ((left, curve_ends, "Stored curves"), (right, profile_ends, "Sigma profiles")):
        axes.set_title(title, loc="left", fontsize=plot_style.LARGE)
        plot_style.tidy(axes)
        if axes is left:
            axes.set_xscale("log")
            axes.set_yscale("log")
            # A curve that begins at 0 would stretch the axis over decades in which nothing is.
            axes.set_ylim(bottom=max(axes.get_ylim()[0], SMALLEST_SHOWN * axes.get_ylim()[1]))
            plot_style.plain_decades(axes.xaxis, axes.yaxis)
        # One column of names at the right edge, because the lines end at different places.
        edge = max(x for x, _, _, _ in ends) if axes is left else min((x for x, _, _, _ in ends), default=0.0)
        plot_style.label_ends(axes, [(edge, y, n, c) for _, y, n, c in ends], logarithmic=axes is left)
    left.set_xlabel("signal distance")
    left.set_ylabel("output distance")
    right.invert_xaxis()
    right.set_xlabel("sigma, from noise to sample")
    right.set_ylabel("accumulated output distance")
    return plot_style.png(figure)


def _setting(bucket: Bucket, record: Calibration) -> str:
    shifts = {other.shift for other in record.buckets}
    return f"{bucket.num_steps} steps" + (f", shift {bucket.shift:g}" if len(shifts) > 1 and bucket.shift else "")


def _canvas(title: str, evidence: BucketEvidence, *, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    figure = plot_style.figure(*size, layout="constrained")
    axes = figure.subplots()
    bucket = evidence.bucket
    shift = "" if bucket.shift is None else f", shift {bucket.shift:g}"
    axes.set_title(
        f"{title}\n{bucket.sequence_length} tokens, {bucket.num_steps} steps{shift}",
        loc="left",
        fontsize=plot_style.LARGE,
    )
    plot_style.tidy(axes)
    return figure, axes


def _frontier_styles(found: Sequence[Frontier]) -> list[tuple[str, Any]]:
    styles = [style for style in STYLES if style[0] != ORANGE]
    return [(ORANGE, (0, (1, 1))) if f.name == "fewer steps" else styles[i % len(styles)] for i, f in enumerate(found)]


def _short_name(name: str) -> str:
    return name.replace(" of the residual", ", residual").replace(" of the output", ", output").replace(" over ", "/")


def _row_name(speedup: float, filling: Filling, threshold: float | None) -> str:
    gate = "" if threshold is None else f", θ={threshold:.3g}"
    return f"{speedup:.3g}× {filling.forecaster}, {filling.applied_to}{gate}"


def _thinned(x: Array, y: Array) -> tuple[Array, Array]:
    every = max(1, len(x) // MOST_POINTS)
    return x[::every], y[::every]
