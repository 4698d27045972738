"""The pictures of docs/transfer.md: direct labels, told apart without colour by line style and marker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullFormatter, NullLocator
from transfer_tables import BASE, MAIN_SIGNAL, Results, pick, ratio

from easyteacache.compare import plot_style
from easyteacache.compare.plot_style import BLUE, GREEN, PURPLE, RED

STYLES: tuple[tuple[str, Any, str], ...] = (
    ("#000000", "-", "o"),
    (RED, "--", "s"),
    (BLUE, "-.", "^"),
    (GREEN, ":", "D"),
    (PURPLE, (0, (5, 1, 1, 1, 1, 1)), "v"),
)
GLYPHS = "○□△◇▽"
SIZE = (10.0, 4.4)
# Depends on what is generated, so that its curves have most to lose elsewhere.
SHOWN_SIGNAL = "modulated_input"
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
SHOWN_LENGTHS = (64, 256, 576, 1024)


def draw(results: Results) -> dict[str, bytes]:
    """All pictures as PNG bytes by name; a sweep that the traces lack has none."""
    found = {"length": _lengths(results)}
    for part, axis, what in (("steps", 1, "steps"), ("shifts", 2, "shift")):
        if results[part]:
            found[part] = _sweep(results, axis, what)
    if results["steps"] and results["shifts"]:
        found["final"] = _final(results)
    return found


def _lengths(results: Results) -> bytes:
    figure, (left, right) = _panels()
    lengths = sorted({row["target"][0] for row in results["lengths"]})
    base = {move["setting"][0]: move for move in results["moves"] if tuple(move["setting"][1:]) == BASE}
    ends = []
    for length, (colour, style, _) in zip((n for n in SHOWN_LENGTHS if n in base), STYLES, strict=False):
        profile = base[length]["profile"]
        left.plot(profile["sigmas"], profile["distances"], color=colour, linestyle=style)
        ends.append((0.0, profile["distances"][-1], f"{length} tokens", colour))
    left.invert_xaxis()
    plot_style.label_ends(left, ends)
    _titles(left, "Sigma profiles by length", "sigma, from noise to sample", "accumulated output distance")
    ways = ("own", "interpolated", "nearest", "global", "farthest")
    ends = []
    for way, (colour, style, marker) in zip(ways, STYLES, strict=True):
        rows = sorted(pick(results["lengths"], kind="profile", source=way), key=lambda row: row["target"])
        at = [row["target"][0] for row in rows]
        right.plot(at, [100 * r["relative_error"] for r in rows], color=colour, linestyle=style, marker=marker, ms=4)
        if way == "interpolated":
            # Its line ends early, where others would run through a label beside it.
            place = (at[-1], 100 * rows[-1]["relative_error"])
            right.annotate(
                way, place, xytext=(-4, -9), textcoords="offset points", color=colour, fontsize=9, va="top", ha="center"
            )
        else:
            ends.append((at[-1], 100 * rows[-1]["relative_error"], way, colour))
    right.set_xscale("log")
    right.set_xticks(lengths, [str(n) for n in lengths], rotation=60)
    right.xaxis.set_minor_locator(NullLocator())
    right.xaxis.set_minor_formatter(NullFormatter())
    right.set_ylim(bottom=0)
    plot_style.label_ends(right, ends)
    _titles(right, "Held-out error of the profile from elsewhere", "tokens", "error of output distance, %")
    return plot_style.png(figure)


def _sweep(results: Results, axis: int, what: str) -> bytes:
    """Pairs of signal and output distance along the mean run, and sigma profiles, of one sweep at the first length."""
    length = min(row["target"][0] for row in results["steps" if axis == 1 else "shifts"])
    fixed = 3 - axis
    moves = [m for m in results["moves"] if m["setting"][0] == length and m["setting"][fixed] == BASE[fixed - 1]]
    figure, (left, right) = _panels()
    pairs, ends = [], []
    widest = max(max(move[SHOWN_SIGNAL]["distance"]) for move in moves)
    for move, glyph, (colour, style, marker) in zip(moves, GLYPHS, STYLES, strict=False):
        label = f"{what} {move['setting'][axis]:g}" if what == "shift" else f"{move['setting'][axis]} steps"
        x, y = move[SHOWN_SIGNAL]["distance"], move["output"]
        left.plot(x, y, color=colour, linestyle="none", marker=marker, markersize=4, markerfacecolor="none")
        pairs.append((widest, y[-1], f"{glyph} {label}", colour))
        profile = move["profile"]
        right.plot(profile["sigmas"], profile["distances"], color=colour, linestyle=style)
        ends.append((0.0, profile["distances"][-1], label, colour))
    grid = np.geomspace(*_extent([move[SHOWN_SIGNAL]["distance"] for move in moves]), 400)
    base = next(move for move in moves if move["setting"][axis] == BASE[axis - 1])
    quartic = np.polyval(base[SHOWN_SIGNAL]["quartic"][0], grid)
    low, high = _extent([move["output"] for move in moves])
    low, high = low / 1.5, high * 1.5
    inside = (quartic > low) & (quartic < high)
    left.plot(grid, np.where(inside, quartic, np.nan), color="#888888", linewidth=4, alpha=0.5, zorder=0)
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_ylim(low, high)
    for side in (left.xaxis, left.yaxis):
        side.set_major_locator(FixedLocator(TICKS))
        side.set_major_formatter(FormatStrFormatter("%g"))
        side.set_minor_locator(NullLocator())
    note = f"thick grey: plain degree 4 fitted at {what} {BASE[axis - 1]:g};\nwhere it ends it leaves the picture"
    left.text(0.03, 0.97, note, transform=left.transAxes, va="top", fontsize=9, color="#555555")
    plot_style.label_ends(left, pairs, logarithmic=True)
    right.invert_xaxis()
    plot_style.label_ends(right, ends)
    _titles(left, f"Mean run at {length} tokens", f"distance of {SHOWN_SIGNAL.replace('_', ' ')}", "output distance")
    _titles(right, "Sigma profiles", "sigma, from noise to sample", "accumulated output distance")
    return plot_style.png(figure)


def _final(results: Results) -> bytes:
    """Error of the final sample at 2× with fits made at the base setting, relative to even steps."""
    figure, panels = _panels()
    targets = [
        (part, axis, target) for part, axis in (("steps", 1), ("shifts", 2)) for target in _first(results, part, axis)
    ]
    shown = (("native monotone", "monotone"), ("carried monotone", "monotone"), ("carried degree 4", "quartic"), ("carried power law", "power"), ("carried sigma profile", "profile"))  # fmt: skip
    for axes, filling in zip(panels, ("hold", "linear"), strict=True):
        for place, (part, axis, target) in enumerate(targets):
            even = pick(results["references"], kind="uniform", target=list(target))
            for offset, ((label, kind), (colour, _, marker)) in enumerate(zip(shown, STYLES, strict=True)):
                source = f"{target[axis]:g}" if label.startswith("native") else f"{BASE[axis - 1]:g}"
                signal = "" if kind == "profile" else MAIN_SIGNAL
                row = pick(results[part], kind=kind, signal=signal, source=source, target=list(target))
                value, error = ratio(row, even, [f"{filling} 2"])
                at = place + 0.15 * (offset - 2)
                axes.errorbar(
                    value, at, xerr=error, color=colour, marker=marker, markersize=5, linestyle="none", linewidth=1
                )
                if place == 0 and filling == "hold":
                    axes.text(0.02, 0.99 - 0.052 * offset, f"{GLYPHS[offset]} {label}", transform=axes.transAxes, color=colour, va="top", fontsize=9)  # fmt: skip
        axes.axvline(1.0, color="#888888", linewidth=1)
        axes.set_yticks(range(len(targets)), [_name(axis, target) for _, axis, target in targets])
        # Room above the first row for the key.
        axes.set_ylim(len(targets) - 0.4, -2.4)
        _titles(axes, f"{filling}, 2×, {targets[0][2][0]} tokens", "error of the final sample ÷ that of even steps", "")
    return plot_style.png(figure)


def _first(results: Results, part: str, axis: int) -> list[tuple[Any, ...]]:
    """Targets at the shortest length, the base setting left out."""
    found = {tuple(row["target"]) for row in results[part]}
    shortest = min(target[0] for target in found)
    return sorted(t for t in found if t[0] == shortest and t[axis] != BASE[axis - 1])


def _name(axis: int, target: Sequence[float]) -> str:
    return f"{target[1]} steps" if axis == 1 else f"shift {target[2]:g}"


def _panels() -> tuple[Figure, Sequence[Axes]]:
    figure = plot_style.figure(*SIZE, layout="constrained")
    return figure, figure.subplots(1, 2)


def _titles(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    plot_style.tidy(axes)


def _extent(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    return min(map(min, values)), max(map(max, values))
