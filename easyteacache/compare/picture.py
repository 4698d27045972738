"""A picture for people: A, B and what differs, for a few frames, above the curve of every frame's PSNR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from easyteacache.compare import plot_style
from easyteacache.compare.opening import ArrayOptions, open_source
from easyteacache.compare.report import frame_pairs
from easyteacache.compare.results import Comparison, FrameResult, Summary
from easyteacache.compare.source import Frame, refuse
from easyteacache.errors import FramesMismatch
from easyteacache.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WITHIN = 0.995
NARROWEST_CURVE = 2.0  # decibels: less is not a difference anybody sees
LONGEST_SIDE = 900
WIDTH, LABEL, HEAD, CURVE, GAP = 9.0, 1.05, 0.95, 1.9, 0.06

Unit = npt.NDArray[np.float32]


class Shown(NamedTuple):
    """One row: the frame's figures, why it is shown, and both pictures on a scale of 0 to 1, (H, W) or (H, W, 3)."""

    result: FrameResult
    why: str
    a: Unit
    b: Unit


def save(comparison: Comparison, path: Path, options: ArrayOptions, *, common_beginning: bool = False) -> None:
    """Write the picture to ``path``, whole or not at all. Both results are read a second time for it.

    Raises:
        UnreadableFrames: there are no frames to show, or they are neither grey nor RGB.
        MissingPackage: matplotlib is not installed.
    """
    figure = draw(comparison, _shown(comparison, options, common_beginning=common_beginning))
    atomic_write.write_bytes(path, plot_style.png(figure))


def chosen(comparison: Comparison) -> dict[int, str]:
    """Which frames are shown, place → why: the first, the middle one and the worst, each once, in order."""
    last = len(comparison.frames) - 1
    reasons: dict[int, list[str]] = {}
    middle = last // 2 if last > 1 else None
    for place, why in ((0, "first"), (middle, "middle"), (_worst(comparison.summary), "worst")):
        if place is not None:
            reasons.setdefault(place, []).append(why)
    return {place: ", ".join(reasons[place]) for place in sorted(reasons)} if last else {0: ""}


def gain(rows: Sequence[Shown]) -> int:
    """The largest factor of ``plot_style.GAINS`` with which at most one in 200 shown pixels is clipped to white."""
    return plot_style.gain(float(np.quantile(np.concatenate([_difference(row).ravel() for row in rows]), WITHIN)))


def _difference(row: Shown) -> Unit:
    """The largest difference over the channels, (H, W): grey, so that it needs no colours to be read."""
    difference: Unit = np.abs(row.a - row.b)
    return difference.max(axis=-1) if difference.ndim == 3 else difference


def _worst(summary: Summary) -> int | None:
    return None if summary.identical else summary.worst_frame["psnr"]


def _shown(comparison: Comparison, options: ArrayOptions, *, common_beginning: bool) -> list[Shown]:
    a, b = (open_source(Path(side["path"]), options) for side in (comparison.a, comparison.b))
    if not a.pictures:
        refuse(a.path, "an array without a layout has no picture; name its axes with --layout, for example FHWC")
    wanted = chosen(comparison)
    rows = []
    for place, (_, _, one, other) in enumerate(frame_pairs(a, b, common_beginning=common_beginning)):
        if place in wanted:
            pictures = [_unit(a.path, frame) for frame in (one, other)]
            rows.append(Shown(comparison.frames[place], wanted[place], pictures[0], pictures[1]))
        if place >= max(wanted):
            return rows
    raise FramesMismatch(str(a.path), str(b.path), "they have fewer frames than a moment ago: somebody changed them")


def _unit(path: Path, frame: Frame) -> Unit:
    channels = frame.pixels.shape[-1] - frame.alpha
    if channels not in (1, 3) or frame.peak is None:
        refuse(
            path, f"a picture takes grey or RGB frames of known range, found {channels} channels, range {frame.peak}"
        )
    height, width = frame.pixels.shape[:2]
    # What a screen cannot show is left out by stepping over pixels: the worst single pixel may be among them.
    step = -(-max(height, width) // LONGEST_SIDE)
    values = frame.pixels[::step, ::step, :channels].astype(np.float32) / np.float32(frame.peak)
    clipped: Unit = np.clip(values[..., 0] if channels == 1 else values, 0, 1)
    return clipped


def draw(comparison: Comparison, rows: Sequence[Shown]) -> Figure:
    """The figure: one row a shown frame, three columns, and the curve where there are several frames."""
    height, width = rows[0].a.shape[:2]
    panel = (WIDTH - LABEL - 0.15 - 2 * GAP) / 3
    row = min(max(panel * height / width, 0.65), 2.6)  # four lines of text stand beside it
    curve = CURVE if len(comparison.frames) > 1 else 0.15
    total = HEAD + len(rows) * (row + GAP) + curve
    figure = plot_style.figure(WIDTH, total)
    figure.text(
        0.15 / WIDTH,
        1 - 0.12 / total,
        _title(comparison),
        ha="left",
        va="top",
        fontsize=plot_style.NORMAL,
        linespacing=1.4,
    )
    factor = gain(rows)
    titles = ("A", "B", f"|A − B| × {factor}" if factor > 1 else "|A − B|")
    for line, shown in enumerate(rows):
        bottom = total - HEAD - (line + 1) * row - line * GAP
        difference = np.clip(factor * _difference(shown), 0, 1)
        for column, image in enumerate((shown.a, shown.b, difference)):
            left = LABEL + column * (panel + GAP)
            axes = figure.add_axes((left / WIDTH, bottom / total, panel / WIDTH, row / total))
            plot_style.show_pixels(axes, image, interpolation="auto")
            if line == 0:
                axes.set_title(titles[column], fontsize=plot_style.NORMAL, pad=4)
        figure.text(
            (LABEL - 0.1) / WIDTH,
            (bottom + row / 2) / total,
            _row_label(shown),
            ha="right",
            va="center",
            fontsize=plot_style.SMALL,
        )
    if len(comparison.frames) > 1:
        axes = figure.add_axes((LABEL / WIDTH, 0.45 / total, 1 - (LABEL + 0.15) / WIDTH, (curve - 0.75) / total))
        _draw_curve(axes, comparison)
    return figure


def _title(comparison: Comparison) -> str:
    summary = comparison.summary
    sides = [f"{letter}  {_short(side['path'])}" for letter, side in (("A", comparison.a), ("B", comparison.b))]
    if summary.identical:
        figures = f"{summary.frames} frame{'s' * (summary.frames != 1)}, identical"
    else:
        many, differing = summary.frames > 1, summary.frames - summary.identical_frames
        verb = "frames that differ" if differing > 1 else "frame that differs"
        over = f" of the {differing} {verb}" if summary.identical_frames else ""
        figures = f"PSNR {_decibels(summary.psnr_mean)}" + (f" (mean{over})" if many else "")
        figures += f", worst {_decibels(summary.worst['psnr'])}" if many else ""
        for name, value in (("SSIM", summary.means["ssim"]), ("LPIPS", summary.means["lpips"])):
            if value is not None:
                figures += f";  {name} {value:.4f}" + (f" (mean of {summary.frames} frames)" if many else "")
    return "\n".join([*sides, figures])


def _short(path: str, most: int = 100) -> str:
    # Matplotlib reads $…$ as mathematics.
    text = path if len(path) <= most else "…" + path[-most + 1 :]
    return "".join(c if c.isprintable() else "�" for c in text).replace("$", r"\$")


def _row_label(shown: Shown) -> str:
    found = shown.result.figures
    # The column is narrow: two reasons stand on two lines.
    lines = [f"frame {shown.result.index}", f"({shown.why})".replace(", ", ",\n")] if shown.why else []
    lines.append("identical" if found.identical else _decibels(found.psnr))
    if found.ssim is not None and not found.identical:
        lines.append(f"SSIM {found.ssim:.3f}")
    return "\n".join(lines)


def _decibels(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} dB"


def _draw_curve(axes: Axes, comparison: Comparison) -> None:
    from matplotlib.ticker import MaxNLocator

    frames, summary = comparison.frames, comparison.summary
    places = np.arange(len(frames))
    values = np.array([np.nan if f.figures.identical else f.figures.psnr for f in frames], np.float64)
    same = [f.index for f in frames if f.figures.identical]
    few = len(frames) <= 60
    axes.plot(places, values, color=plot_style.COMPUTED, linewidth=1.3, marker="o" if few else "", markersize=3)
    axes.set_xlim(-0.02 * len(frames) - 0.3, len(frames) * 1.02 - 0.7)
    axes.set_ylabel("PSNR, dB", fontsize=plot_style.SMALL)
    axes.set_xlabel("frame", fontsize=plot_style.SMALL, labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    plot_style.grid(axes, axis="y")
    plot_style.tidy(axes, size=plot_style.SMALL)
    axes.margins(y=0.25)
    low, high = axes.get_ylim()
    if high - low < NARROWEST_CURVE:
        axes.set_ylim((low + high - NARROWEST_CURVE) / 2, (low + high + NARROWEST_CURVE) / 2)
    if same:
        _mark_identical(axes, same)
    worst = _worst(summary)
    if worst is None or summary.psnr_mean is None:
        return
    axes.axhline(summary.psnr_mean, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)))
    label: dict[str, Any] = {"fontsize": plot_style.SMALL, "xycoords": "axes fraction", "va": "bottom", "ha": "right"}
    axes.annotate(
        f"mean {summary.psnr_mean:.1f}",
        (1.0, summary.psnr_mean),
        **{**label, "xycoords": ("axes fraction", "data")},
        color="0.35",
        xytext=(0, 2),
        textcoords="offset points",
    )
    axes.plot([worst], [values[worst]], marker="v", markersize=7, color=plot_style.ACCENT)
    right = worst > 0.85 * len(frames)
    axes.annotate(
        f"worst: frame {worst}, {values[worst]:.1f} dB",
        (worst, values[worst]),
        xytext=(-7 if right else 7, -3),
        textcoords="offset points",
        fontsize=plot_style.SMALL,
        color=plot_style.ACCENT,
        ha="right" if right else "left",
        va="top",
    )


def _mark_identical(axes: Axes, places: Sequence[int]) -> None:
    # Infinity has no place on the curve: these frames stand on its upper edge.
    axes.plot(
        places, np.full(len(places), 0.97), marker="|", linestyle="", color="0.3", transform=axes.get_xaxis_transform()
    )
    axes.text(
        places[0],
        1.02,
        "identical",
        fontsize=plot_style.SMALL,
        color="0.3",
        ha="left",
        va="bottom",
        transform=axes.get_xaxis_transform(),
    )
