"""How pictures look, for every picture this project draws: colours, axes, labels that keep apart, and PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from easyteacache.errors import MissingPackage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours, told apart with any kind of colour vision; line styles and markers repeat the distinction.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
GREY = "#666666"
#: Computed and reused steps; what is plain and what a reader should see first.
COMPUTED, REUSED, ACCENT = "#1f4e79", "#d9e6f2", "#b3261e"
GRID, MUTED, TEXT = "#e6e6e6", "#444444", "#333333"
SMALL, NORMAL, LARGE = 8.0, 9.0, 11.0  # points
DOTS_PER_INCH = 130

# Round factors by which a difference is made visible.
GAINS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


def figure(width: float, height: float, **options: Any) -> Figure:
    """An empty white picture of that size in inches.

    Raises:
        MissingPackage: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackage("matplotlib", "a picture", 'pip install "easyteacache[compare]"') from error
    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white", **options)


def png(drawn: Figure) -> bytes:
    """The picture as PNG; the same numbers give the same bytes, since no version of the drawing library is written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    target = io.BytesIO()
    FigureCanvasAgg(drawn).print_png(target, metadata={"Software": None})
    return target.getvalue()


def tidy(axes: Axes, *, hide: Sequence[str] = ("top", "right"), size: float = NORMAL, ticks: float = 2.0) -> None:
    """Leave out the sides in ``hide``; short ticks of ``ticks`` points with labels of ``size``."""
    axes.spines[list(hide)].set_visible(False)
    axes.tick_params(labelsize=size, length=ticks)


def grid(axes: Axes, *, axis: str = "both") -> None:
    """Pale lines behind what is drawn."""
    axes.grid(axis=axis, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def plain_decades(*axes: Any) -> None:
    """Plain numbers at 1, 2 and 5 of every decade of logarithmic axes."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def show_pixels(axes: Axes, pixels: npt.NDArray[Any], *, interpolation: str = "nearest") -> None:
    """A picture whose values are 0 to 1, ``(H, W)`` grey or ``(H, W, 3)``, without an axis."""
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation=interpolation, aspect="equal")
    axes.set_xticks([])
    axes.set_yticks([])


def gain(largest: float) -> int:
    """The largest factor of ``GAINS`` with which a difference of ``largest`` stays within 1; at least 1."""
    return max((factor for factor in GAINS if factor * largest <= 1.0), default=1) if largest else 1


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Ascending places as near to the ascending wanted ones as a least distance allows, inside [0, 1] where they fit.

    Labels whose places would overlap move apart together, so that their mean stays where it was wanted.
    """
    blocks: list[tuple[float, int]] = []  # (sum of wanted − position in the block · gap, members)
    for place in wanted:
        total, count = place, 1
        while blocks and blocks[-1][0] / blocks[-1][1] + blocks[-1][1] * gap > total / count:
            before, members = blocks.pop()
            total, count = before + total - count * members * gap, count + members
        blocks.append((total, count))
    found = np.array([total / count + i * gap for total, count in blocks for i in range(count)])
    # Those pushed over an edge come back, and push their neighbours.
    ranks = gap * np.arange(len(found))
    top = np.minimum.accumulate((np.minimum(found, 1.0) - ranks)[::-1])[::-1] + ranks
    bottom = np.maximum.accumulate(np.maximum(top, 0.0) - ranks) + ranks
    return [float(place) for place in bottom]


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], *, logarithmic: bool = False) -> None:
    """Write each line's name beside its last point, moved apart where two would overlap.

    Args:
        axes: their vertical limits are where labels may stand.
        ends: (x, y, name, colour) of every line.
        logarithmic: whether the vertical axis is.
    """
    forward, back = (np.log, np.exp) if logarithmic else (np.asarray, np.asarray)
    low, high = (float(forward(value)) for value in axes.get_ylim())
    ordered = sorted(ends, key=lambda end: end[1])
    shares = [(float(forward(max(y, float(back(low))))) - low) / (high - low) for _, y, _, _ in ordered]
    for (x, _, name, colour), place in zip(ordered, spread(shares, 0.055), strict=True):
        axes.annotate(
            name,
            (x, float(back(low + place * (high - low)))),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            fontsize=NORMAL,
            va="center",
            annotation_clip=False,
        )
