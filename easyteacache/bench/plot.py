"""One picture a case: PSNR over speed-up, every line labelled where it ends, readable without colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from easyteacache.bench import curves
from easyteacache.bench.results import Cell, Results
from easyteacache.compare import plot_style
from easyteacache.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Marker = str | tuple[int, int, int]

WIDTH, HEIGHT = 8.6, 7.4
#: Lines of a label's height that two labels are kept apart.
LABEL_GAP = 0.0275
#: Share of the width from which on a line's end is near enough to the column of names.
NEAR = 0.45
SHADES = {
    "own, measured": plot_style.ACCENT,
    "hold": "#8a8a8a",
    "forecast": "#4d4d4d",
    "attention": "#b0b0b0",
    "sampler": plot_style.COMPUTED,
}
STYLES = {
    "own, measured": (0, (2, 1)),
    "hold": (0, (1.2, 1.2)),
    "forecast": "-",
    "attention": (0, (3, 1, 1, 1)),
    "sampler": (0, (6, 2)),
}
KINDS = {
    "own, measured": "plans chosen by sampling",
    "hold": "holds the last residual",
    "forecast": "forecasts",
    "attention": "skips attention",
    "sampler": "fewer steps",
}
# As many as there are contenders, so that no two lines share one; stars are matplotlib's (points, style, angle).
MARKERS: tuple[Marker, ...] = (
    *"os^DvPX<>ph*x",
    *((4, 1, 0), "+", (3, 1, 0), "d", (5, 0, 36), (6, 0, 30), (7, 0, 0), (7, 1, 0), (8, 1, 0)),
    *("1", "2", "3", "4", "|", "_", "8", (6, 2, 0)),
)
LARGEST_SPEEDUP = 5.0


def save(results: Results, folder: Path) -> list[Path]:
    """Write ``bench-CASE.png`` for every case with measured points; returns the files."""
    files = []
    for case in results.uncached:
        points = curves.measured(results, case)
        if points:
            path = folder / f"bench-{case.replace('@', '-')}.png"
            atomic_write.write_bytes(path, plot_style.png(draw(results, case, points)))
            files.append(path)
    return files


def draw(results: Results, case: str, points: dict[str, list[Cell]]) -> Figure:
    """The picture of one case."""
    figure = plot_style.figure(WIDTH, HEIGHT)
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
    sampler = results.setup.get("sampler")
    at = "" if sampler is None else f", shift {sampler['shift']:g}"
    figure.text(
        0.02,
        0.955,
        f"Closeness to the uncached sample at equal computed work: {shape}, {steps} steps{at}",
        fontsize=plot_style.LARGE,
        weight="bold",
    )
    figure.text(0.02, 0.915, _subtitle(results), fontsize=plot_style.NORMAL, color=plot_style.MUTED)
    _legend(axes, set(kinds.values()))
    return figure


def _line(axes: Axes, line: Sequence[tuple[float, float]], kind: str, marker: Marker) -> None:
    x, y = zip(*line, strict=True)
    if kind == curves.OWN:
        axes.plot(x, y, color=plot_style.ACCENT, linewidth=2.8, marker=marker, markersize=7, zorder=5)
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
    axes.set_xlabel("times less computed (work of the uncached run / work done)", fontsize=plot_style.NORMAL)
    axes.set_ylabel("PSNR, dB", fontsize=plot_style.NORMAL)
    plot_style.grid(axes)
    plot_style.tidy(axes, hide=("top", "right", "left"), ticks=0)
    axes.margins(y=0.06)


def _labels(
    axes: Axes, lines: dict[str, list[tuple[float, float]]], kinds: dict[str, str], markers: dict[str, Marker]
) -> None:
    """Names in a column at the right, moved apart, each led to the end of its line; where that is far, beside the end."""
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    ends = {name: line[-1] for name, line in lines.items()}
    for name in [name for name, (x, _) in ends.items() if x < 1 + NEAR * (right - 1)]:
        axes.annotate(
            name,
            ends.pop(name),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize=plot_style.NORMAL,
            color=plot_style.TEXT,
        )
    ordered = sorted(ends, key=lambda name: ends[name][1])
    places = plot_style.spread([(ends[name][1] - low) / (high - low) for name in ordered], LABEL_GAP)
    for name, place in zip(ordered, places, strict=True):
        x, y = ends[name]
        own = kinds[name] == curves.OWN
        axes.annotate(
            "",
            xy=(x, y),
            xytext=(1.035, place),
            textcoords="axes fraction",
            arrowprops={
                "arrowstyle": "-",
                "color": plot_style.ACCENT if own else "#c8c8c8",
                "linewidth": 0.7,
                "shrinkB": 4,
            },
            annotation_clip=False,
            zorder=2,
        )
        marker = "o" if own else markers[name]
        axes.plot(
            1.045,
            place,
            marker=marker,
            markersize=7 if own else 5,
            color=plot_style.ACCENT if own else SHADES[kinds[name]],
            markerfacecolor=plot_style.ACCENT if own else "white",
            transform=axes.transAxes,
            clip_on=False,
        )
        axes.text(
            1.065,
            place,
            name,
            transform=axes.transAxes,
            va="center",
            fontsize=plot_style.NORMAL,
            weight="bold" if own else "normal",
            color=plot_style.ACCENT if own else plot_style.TEXT,
        )
    axes.set_xlim(1.0, right)
    axes.set_ylim(low, high)


def _legend(axes: Axes, kinds: set[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=SHADES[kind], linestyle=STYLES[kind], linewidth=1.4, label=label)
        for kind, label in KINDS.items()
        if kind in kinds
    ]
    axes.legend(
        handles=handles,
        loc="upper right",
        fontsize=plot_style.SMALL,
        frameon=True,
        framealpha=0.9,
        edgecolor="none",
        handlelength=3,
    )


def _subtitle(results: Results) -> str:
    setup = results.setup
    return f"{setup['model']}, mean over {len(setup['pairs'])} prompt and seed pairs; every contender by its own code or rule, tuned"
