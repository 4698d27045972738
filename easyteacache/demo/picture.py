"""Draw the samples side by side: uncached, cached, what differs, and which steps were computed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from easyteacache.compare import plot_style
from easyteacache.demo.sampling import CACHED, UNCACHED, Sample
from easyteacache.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

Pixels = npt.NDArray[np.float32]

MOST_SAMPLES = 6
MILLISECONDS_A_FRAME = 250
PANEL_INCHES, LABEL_INCHES, STRIP_INCHES, HEAD_INCHES = 1.5, 1.1, 0.22, 0.75


def save(samples: Sequence[Sample], *, title: str, png: Path, gif: Path) -> None:
    """Write the film strips to ``png`` and the moving pictures to ``gif``, each whole or not at all.

    Args:
        samples: what ``sample_all`` gave; the first six are drawn.
        title: one or two lines of up to 75 characters above the picture.
        png: every frame side by side.
        gif: one frame after the other.
    """
    shown = samples[:MOST_SAMPLES]
    frames = len(shown[0].runs[UNCACHED].frames)
    atomic_write.write_bytes(png, _encoded([_draw(shown, list(range(frames)), title)], "PNG"))
    atomic_write.write_bytes(gif, _encoded([_draw(shown, [frame], title) for frame in range(frames)], "GIF"))


def gain(samples: Sequence[Sample]) -> int:
    """The largest factor of ``plot_style.GAINS`` with which no shown difference exceeds white; at least 1."""
    return plot_style.gain(max(float(_difference(sample).max()) for sample in samples))


def _difference(sample: Sample) -> Pixels:
    difference: Pixels = np.abs(sample.runs[UNCACHED].frames - sample.runs[CACHED].frames)
    return difference


def _encoded(figures: Sequence[Figure], form: str) -> bytes:
    images = [_rendered(figure) for figure in figures]
    target = io.BytesIO()
    moving = {"save_all": True, "append_images": images[1:], "duration": MILLISECONDS_A_FRAME, "loop": 0}
    images[0].save(target, form, **(moving if form == "GIF" and len(images) > 1 else {}))
    return target.getvalue()


def _rendered(figure: Figure) -> Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _draw(samples: Sequence[Sample], frames: Sequence[int], title: str) -> Figure:
    strips = step_rows(samples)
    aspect = samples[0].runs[UNCACHED].frames.shape[1] / samples[0].runs[UNCACHED].frames.shape[2]
    panel = PANEL_INCHES * max(1.0, len(frames) ** 0.5)
    row = max(0.4, panel * aspect / len(frames))
    steps_inches = STRIP_INCHES * len(strips) + 0.75
    width, height = LABEL_INCHES + 3 * panel + 0.2, HEAD_INCHES + row * len(samples) + steps_inches
    figure = plot_style.figure(width, height)
    figure.suptitle(title, x=0.02, y=1 - 0.1 / height, ha="left", va="top", fontsize=plot_style.NORMAL)
    grid = figure.add_gridspec(
        len(samples),
        3,
        left=LABEL_INCHES / width,
        right=1 - 0.1 / width,
        top=1 - HEAD_INCHES / height,
        bottom=steps_inches / height,
        wspace=0.06,
        hspace=0.08,
    )
    _draw_samples([[figure.add_subplot(grid[i, j]) for j in range(3)] for i in range(len(samples))], samples, frames)
    axes = figure.add_axes(
        (LABEL_INCHES / width, 0.45 / height, 1 - (LABEL_INCHES + 0.1) / width, (steps_inches - 0.65) / height)
    )
    _draw_steps(axes, strips)
    return figure


def _draw_samples(axes: Sequence[Sequence[Axes]], samples: Sequence[Sample], frames: Sequence[int]) -> None:
    factor = gain(samples)
    for line, sample in zip(axes, samples, strict=True):
        strips = (sample.runs[UNCACHED].frames, sample.runs[CACHED].frames, factor * _difference(sample))
        for panel, strip in zip(line, strips, strict=True):
            plot_style.show_pixels(panel, _film(strip, frames))
        label = f"“{sample.prompt}”\nseed {sample.seed}"
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=plot_style.SMALL, labelpad=6)
    for panel, name in zip(axes[0], ("uncached", "cached", f"|difference| × {factor}"), strict=True):
        panel.set_title(name, fontsize=plot_style.NORMAL)


def _film(video: Pixels, frames: Sequence[int]) -> Pixels:
    """Frames (F, H, W, C) side by side with a grey line between: (H, W·n + n − 1) or (H, …, 3)."""
    height, _, channels = video.shape[1:]
    parts = [np.full((height, 1, channels), 0.5, np.float32), *(video[frame] for frame in frames)]
    between = [piece for frame in parts[1:] for piece in (parts[0], frame)][1:]
    film: Pixels = np.clip(np.concatenate(between, axis=1), 0, 1)
    return film[..., 0] if channels == 1 else film


def step_rows(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    """``(label, pattern)`` of every branch; one row for all samples where they agree."""
    branches = list(samples[0].runs[CACHED].patterns)
    rows = []
    for branch in branches:
        patterns = {sample.seed: sample.runs[CACHED].patterns.get(branch, "") for sample in samples}
        if len(set(patterns.values())) == 1:
            rows.append((branch, patterns[samples[0].seed]))
        else:
            rows += [(f"{branch}, seed {seed}", pattern) for seed, pattern in patterns.items()]
    return rows


def _draw_steps(axes: Axes, rows: Sequence[tuple[str, str]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for place, (_, pattern) in enumerate(rows):
        colours = [plot_style.REUSED if step == "·" else plot_style.COMPUTED for step in pattern]
        axes.bar(range(len(pattern)), 0.8, width=0.9, bottom=place + 0.1, color=colours)
    axes.set_yticks(
        [place + 0.5 for place in range(len(rows))], [label for label, _ in rows], fontsize=plot_style.SMALL
    )
    axes.set_ylim(len(rows), 0)
    axes.set_xlim(-0.6, max((len(pattern) for _, pattern in rows), default=1) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot_style.tidy(axes, hide=("top", "right", "left", "bottom"), size=plot_style.SMALL, ticks=0)
    axes.set_xlabel("step: dark computed, light reused", fontsize=plot_style.SMALL)
