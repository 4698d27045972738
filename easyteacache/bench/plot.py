"""One picture a case: PSNR over speed-up, every line labelled where it ends, readable without colour."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from easyteacache.bench import curves
from easyteacache.bench.results import Cell, Results
from easyteacache.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Marker = str | tuple[int, int, int]

WIDTH, HEIGHT, DOTS_PER_INCH = 8.6, 6.0, 130
#: Lines of a label's height that two labels are kept apart.
LABEL_GAP = 0.034
#: Share of the width from which on a line's end is near enough to the column of names.
NEAR = 0.45
OWN_COLOUR, OWN_TEXT = "#b3261e", "#8c1d18"
SHADES = {"hold": "#8a8a8a", "forecast": "#4d4d4d", "attention": "#b0b0b0", "sampler": "#1f4e79"}
STYLES = {"hold": (0, (1.2, 1.2)), "forecast": "-", "attention": (0, (3, 1, 1, 1)), "sampler": (0, (6, 2))}
KINDS = {
    "hold": "holds the last residual",
    "forecast": "forecasts",
    "attention": "skips attention",
    "sampler": "fewer steps",
}
# As many as there are contenders, so that no two lines share one; stars are matplotlib's (points, style, angle).
MARKERS: tuple[Marker, ...] = (*"os^DvPX<>ph*x", (4, 1, 0), "+", (3, 1, 0), "d")
LARGEST_SPEEDUP = 5.0


def save(results: Results, folder: Path) -> list[Path]:
    """Write ``bench-CASE.png`` for every case with measured points; returns the files."""
    files = []
    for case in results.uncached:
        points = curves.measured(results, case)
        if points:
            path = folder / f"bench-{case.replace('@', '-')}.png"
            atomic_write.write_bytes(path, _png(draw(results, case, points)))
            files.append(path)
    return files


def draw(results: Results, case: str, points: dict[str, list[Cell]]) -> Figure:
    """The picture of one case."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DOTS_PER_INCH, facecolor="white")
    axes = figure.add_axes((0.075, 0.1, 0.625, 0.77))
    lines = {name: [p for p in curves.envelope(cells) if p[0] <= LARGEST_SPEEDUP] for name, cells in points.items()}
    lines = {name: line for name, line in lines.items() if line}
    kinds = {name: points[name][0].kind for name in lines}
    markers = dict(zip((name for name in lines if kinds[name] != curves.OWN), MARKERS * 3, strict=False))
    for name, line in lines.items():
        _line(axes, line, kinds[name], markers.get(name, "o"))
    _frame(axes, results.setup["targets"])
    _labels(axes, lines, kinds, markers)
    shape, _, steps = case.partition("@")
    figure.text(
        0.02,
        0.955,
        f"Closeness to the uncached sample at equal computed work: {shape}, {steps} steps",
        fontsize=11,
        weight="bold",
    )
    figure.text(0.02, 0.915, _subtitle(results), fontsize=8.5, color="#444444")
    _legend(axes, set(kinds.values()))
    return figure


def _line(axes: Axes, line: Sequence[tuple[float, float]], kind: str, marker: Marker) -> None:
    x, y = zip(*line, strict=True)
    if kind == curves.OWN:
        axes.plot(x, y, color=OWN_COLOUR, linewidth=2.8, marker=marker, markersize=7, zorder=5)
        return
    axes.plot(
        x,
        y,
        color=SHADES[kind],
        linestyle=STYLES[kind],
        linewidth=1.4 if kind == "sampler" else 1.1,
        marker=marker,
        markersize=5,
        markerfacecolor="white",
        markeredgewidth=1.0,
        zorder=4 if kind == "sampler" else 3,
    )


def _frame(axes: Axes, targets: Sequence[float]) -> None:
    axes.set_xlim(1.0, max(targets) * 1.09)
    axes.set_xticks([1, *targets], ["1x", *(f"{target:g}x" for target in targets)])
    axes.set_xlabel("times less computed (work of the uncached run / work done)", fontsize=9)
    axes.set_ylabel("PSNR, dB", fontsize=9)
    axes.grid(axis="both", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, length=0)
    axes.margins(y=0.06)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _labels(
    axes: Axes, lines: dict[str, list[tuple[float, float]]], kinds: dict[str, str], markers: dict[str, Marker]
) -> None:
    """Names in a column at the right, moved apart, each led to the end of its line; where that is far, beside the end."""
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    ends = {name: line[-1] for name, line in lines.items()}
    for name in [name for name, (x, _) in ends.items() if x < 1 + NEAR * (right - 1)]:
        axes.annotate(
            name, ends.pop(name), (7, 0), textcoords="offset points", va="center", fontsize=8.5, color="#333333"
        )
    ordered = sorted(ends, key=lambda name: ends[name][1])
    places = spread([(ends[name][1] - low) / (high - low) for name in ordered], LABEL_GAP)
    for name, place in zip(ordered, places, strict=True):
        x, y = ends[name]
        own = kinds[name] == curves.OWN
        axes.annotate(
            "",
            xy=(x, y),
            xytext=(1.035, place),
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": OWN_COLOUR if own else "#c8c8c8", "linewidth": 0.7, "shrinkB": 4},
            annotation_clip=False,
            zorder=2,
        )
        marker = "o" if own else markers[name]
        axes.plot(
            1.045,
            place,
            marker=marker,
            markersize=7 if own else 5,
            color=OWN_COLOUR if own else SHADES[kinds[name]],
            markerfacecolor=OWN_COLOUR if own else "white",
            transform=axes.transAxes,
            clip_on=False,
        )
        axes.text(
            1.065,
            place,
            name,
            transform=axes.transAxes,
            va="center",
            fontsize=9.5 if own else 8.5,
            weight="bold" if own else "normal",
            color=OWN_TEXT if own else "#333333",
        )
    axes.set_xlim(1.0, right)
    axes.set_ylim(low, high)


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Ascending places as near to the ascending wanted ones as a least distance allows, inside [0, 1] where they fit."""
    blocks: list[tuple[float, int]] = []  # (first place, members), members of a block stand ``gap`` apart
    sums: list[float] = []  # of (wanted − position in the block · gap)
    for place in wanted:
        total, count = place, 1
        while blocks and blocks[-1][0] + blocks[-1][1] * gap > total / count:
            first, members = blocks.pop()
            before = sums.pop()
            total = before + total - count * members * gap
            count += members
            del first
        blocks.append((total / count, count))
        sums.append(total)
    found = [first + i * gap for first, count in blocks for i in range(count)]
    if found and found[-1] > 1.0:
        found = _pushed(found, gap, top=1.0)
    if found and found[0] < 0.0:
        found = [-place for place in reversed(_pushed([-place for place in reversed(found)], gap, top=0.0))]
    return found


def _pushed(places: Sequence[float], gap: float, *, top: float) -> list[float]:
    found, most = [], top
    for place in reversed(places):
        found.append(min(place, most))
        most = found[-1] - gap
    return found[::-1]


def _legend(axes: Axes, kinds: set[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=SHADES[kind], linestyle=STYLES[kind], linewidth=1.4, label=label)
        for kind, label in KINDS.items()
        if kind in kinds
    ]
    axes.legend(
        handles=handles, loc="upper right", fontsize=8, frameon=True, framealpha=0.9, edgecolor="none", handlelength=3
    )


def _subtitle(results: Results) -> str:
    setup = results.setup
    return f"{setup['model']}, mean over {len(setup['pairs'])} prompt and seed pairs; every contender by its own code, tuned"


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()
