"""What a comparison found: one line a frame, and what they amount to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from easyteacache.compare.measures import Figures
from easyteacache.compare.quality import decibels

# The worst of these is the largest; of the others the smallest.
_LARGER_IS_WORSE = ("lpips", "relative_l2")
_MEASURED = ("psnr", "ssim", "lpips", "relative_l2", "cosine")


@dataclass(frozen=True)
class FrameResult:
    """One pair of frames: its place from 0, what the two are called where they have names, and the figures."""

    index: int
    a: str | None
    b: str | None
    figures: Figures

    def as_data(self) -> dict[str, Any]:
        """Plain values; the PSNR of identical frames is None."""
        names = {"a": self.a, "b": self.b}
        return {"index": self.index, **names, **self.figures._asdict(), "psnr": finite(self.figures.psnr)}


@dataclass(frozen=True)
class Summary:
    """Figures of several pairs of frames.

    Attributes:
        frames: how many pairs of frames.
        identical_frames: how many of them are identical.
        psnr_mean: mean of the PSNR of the frames *that differ*, dB; infinity when none does, None when not measured.
        psnr_of_mean_mse: PSNR of the mean squared error over all frames, identical ones too (FFmpeg's "average").
        means: mean over all frames of ssim, lpips, relative_l2 and cosine; a figure that some frame lacks is None.
        worst: the worst frame's psnr, ssim, lpips, relative_l2 and cosine.
        worst_frame: for each of them, the place of that frame.
    """

    frames: int
    identical_frames: int
    psnr_mean: float | None
    psnr_of_mean_mse: float | None
    means: dict[str, float | None]
    worst: dict[str, float | None]
    worst_frame: dict[str, int | None]

    @classmethod
    def of(cls, results: Sequence[FrameResult]) -> Summary:
        """Summarise at least one frame; places count through ``results``."""
        found = [result.figures for result in results]
        columns = {name: [getattr(figures, name) for figures in found] for name in _MEASURED}
        means = {name: _mean(values) for name, values in columns.items() if name != "psnr"}
        differing = [figures.psnr for figures in found if not figures.identical]
        mse = _mean([figures.mse for figures in found])
        places = {name: _worst(name, values) for name, values in columns.items()}
        return cls(
            frames=len(found),
            identical_frames=len(found) - len(differing),
            psnr_mean=None if mse is None else _mean(differing) if differing else math.inf,
            psnr_of_mean_mse=None if mse is None else decibels(mse),
            means=means,
            worst={name: None if place is None else columns[name][place] for name, place in places.items()},
            worst_frame=places,
        )

    @property
    def identical(self) -> bool:
        """Whether every frame is."""
        return self.identical_frames == self.frames

    def value(self, name: str, *, worst: bool) -> float | None:
        """``psnr`` or ``ssim``: of the worst frame, or the mean."""
        if worst:
            return self.worst[name]
        return self.psnr_mean if name == "psnr" else self.means[name]

    def as_data(self) -> dict[str, Any]:
        """Plain values; an infinite PSNR is None, and ``identical`` says why."""
        return {
            "frames": self.frames,
            "identical_frames": self.identical_frames,
            "identical": self.identical,
            "psnr_mean": finite(self.psnr_mean),
            "psnr_of_mean_mse": finite(self.psnr_of_mean_mse),
            **{f"{name}_mean": value for name, value in self.means.items()},
            **{f"{name}_worst": finite(value) for name, value in self.worst.items()},
            **{f"{name}_worst_frame": place for name, place in self.worst_frame.items()},
        }


@dataclass(frozen=True)
class Comparison:
    """One result against another.

    Attributes:
        name: what both are called, where two folders of results are compared; else None.
        a: what the first one is, as plain values: path, kind, frames, width, height, channels, bits or shape.
        b: the same of the second.
        frames: every pair of frames, in order.
        notes: what a reader of the figures should know.
    """

    name: str | None
    a: dict[str, Any]
    b: dict[str, Any]
    frames: tuple[FrameResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> Summary:
        """Over the frames."""
        return Summary.of(self.frames)

    def as_data(self) -> dict[str, Any]:
        """Plain values."""
        head = {"name": self.name, "a": self.a, "b": self.b, "notes": list(self.notes)}
        return {**head, "summary": self.summary.as_data(), "frames": [result.as_data() for result in self.frames]}


def finite(value: float | None) -> float | None:
    """``value``, or None where it is infinite: JSON has no infinity."""
    return None if value is None or math.isinf(value) else value


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def _worst(name: str, values: Sequence[float | None]) -> int | None:
    known = [(value, place) for place, value in enumerate(values) if value is not None]
    if not known:
        return None
    pick = max if name in _LARGER_IS_WORSE else min
    extreme = pick(value for value, _ in known)
    return next(place for value, place in known if value == extreme)
