"""Compare two paths: open, pair, stream, measure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyteacache.compare.measures import NotFinite, aligned, figures
from easyteacache.compare.opening import ArrayOptions, Pair, open_source, pairs_of
from easyteacache.compare.results import Comparison, FrameResult, Summary
from easyteacache.compare.source import EIGHT_BITS, Frame, Source, refuse
from easyteacache.errors import FramesMismatch

if TYPE_CHECKING:
    from easyteacache.compare.perceptual import Perceptual


@dataclass(frozen=True)
class Report:
    """Every pair that was compared.

    Attributes:
        a: the first path.
        b: the second path.
        comparisons: one for two results, several for two folders of them, in natural order of their names.
    """

    a: Path
    b: Path
    comparisons: tuple[Comparison, ...]

    @property
    def summary(self) -> Summary:
        """Over the frames of all pairs together; places count through them."""
        return Summary.of([frame for comparison in self.comparisons for frame in comparison.frames])

    def as_data(self) -> dict[str, Any]:
        """Plain values, the JSON of `easyteacache compare`."""
        pairs = [comparison.as_data() for comparison in self.comparisons]
        return {"a": str(self.a), "b": str(self.b), "summary": self.summary.as_data(), "pairs": pairs}


def compare(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    common_beginning: bool = False,
    by_name: bool = False,
    tensor: str | None = None,
    layout: str | None = None,
    data_range: float | None = None,
    perceptual: Perceptual | None = None,
    progress: Callable[[], None] | None = None,
) -> Report:
    """Compare B with A, frame by frame; both are read once, one frame of each in memory at a time.

    Args:
        a: the uncached result: a picture, an animation, a video, a folder, or an array (see docs/compare.md).
        b: the cached one.
        common_beginning: where one has more frames, leave out what the other lacks instead of refusing.
        by_name: two folders of pictures are results to pair by name, not the frames of one video.
        tensor: the array to take from files that hold several.
        layout: the axes of arrays, for example ``"BCFHW"``; None: the array is compared as one whole.
        data_range: largest minus smallest possible value of arrays; None: an unsigned integer type's own, else unknown.
        perceptual: measures LPIPS.
        progress: called after every pair of frames.

    Raises:
        UnreadableFrames: missing, damaged, too large, or of a kind that is not read.
        FramesMismatch: another number of frames, another size, other channels or other names.
        MissingPackage: a decoder is not installed.
    """
    options = ArrayOptions(tensor, layout, data_range)
    paths = Path(a), Path(b)
    comparisons = [
        _compare(pair, options, common_beginning=common_beginning, perceptual=perceptual, progress=progress)
        for pair in pairs_of(*paths, by_name=by_name)
    ]
    return Report(*paths, tuple(comparisons))


def frame_pairs(a: Source, b: Source, *, common_beginning: bool = False) -> Iterator[tuple[Frame, Frame, Frame, Frame]]:
    """``(a as read, b as read, a aligned, b aligned)`` of every pair of frames.

    Raises:
        FramesMismatch: see ``compare``.
    """
    if (a.kind == "array") != (b.kind == "array"):
        raise FramesMismatch(str(a.path), str(b.path), f"the first is {_article(a)}, the second {_article(b)}")
    if not common_beginning and a.count is not None and b.count is not None and a.count != b.count:
        _refuse_counts(a, b, a.count, b.count)
    stream_a, stream_b = a.frames(), b.frames()
    number = 0
    for one, other in zip_longest(stream_a, stream_b):
        if one is None or other is None:
            if common_beginning and number:
                return
            rest = 1 + sum(1 for _ in (stream_b if one is None else stream_a))
            _refuse_counts(a, b, number + rest * (one is not None), number + rest * (other is not None))
        try:
            same = aligned(one, other)
        except ValueError as error:
            raise FramesMismatch(
                f"{a.path} (frame {one.label or number})",
                f"{b.path} (frame {other.label or number})",
                f"{error}. Nothing is resized or converted here: write both with the same settings",
            ) from error
        yield one, other, *same
        number += 1
    if not number:
        refuse(a.path, "no frames")


def _compare(
    pair: Pair,
    options: ArrayOptions,
    *,
    common_beginning: bool,
    perceptual: Perceptual | None,
    progress: Callable[[], None] | None,
) -> Comparison:
    a, b = open_source(pair.a, options), open_source(pair.b, options)
    results: list[FrameResult] = []
    head_a: dict[str, Any] = {}
    head_b: dict[str, Any] = {}
    for one, other, same_one, same_other in frame_pairs(a, b, common_beginning=common_beginning):
        if not results:
            head_a, head_b = _described(a, one), _described(b, other)
        try:
            found = figures(
                same_one,
                same_other,
                pictures=a.pictures and b.pictures,
                array=a.kind == "array",
                perceptual=perceptual,
            )
        except NotFinite as error:
            source, frame = (b, other) if error.second else (a, one)
            refuse(source.path, f"NaN or infinity in frame {frame.label or len(results)}: not a result to compare")
        results.append(FrameResult(len(results), one.label, other.label, found))
        if progress is not None:
            progress()
    for head, source in ((head_a, a), (head_b, b)):
        # A video's count is known once it was read to its end; with a common beginning it may not have been.
        if source.count is None and not common_beginning:
            head["frames"] = len(results)
    return Comparison(pair.name, head_a, head_b, tuple(results), _notes(a, results, head_a, head_b, common_beginning))


def _described(source: Source, frame: Frame) -> dict[str, Any]:
    head = {"path": str(source.path), "kind": source.kind, "frames": source.count}
    if source.kind == "array":
        return {**head, **source.details}
    height, width, channels = frame.pixels.shape
    bits = 8 if frame.peak == EIGHT_BITS else 16
    return {**head, "width": width, "height": height, "channels": channels, "alpha": frame.alpha, "bits": bits}


def _notes(
    source: Source, results: list[FrameResult], a: dict[str, Any], b: dict[str, Any], common_beginning: bool
) -> tuple[str, ...]:
    notes = []
    if results[0].figures.mse is None:
        notes.append("no PSNR and no SSIM: the range of the values is not known, give --data-range")
    elif not source.pictures:
        notes.append("no SSIM: which axes are height and width is not known, give --layout")
    elif results[0].figures.ssim is None:
        notes.append("no SSIM: the frames are smaller than 3 × 3 pixels")
    if a.get("bits") != b.get("bits"):
        notes.append("8 bits against 16: both were scaled to 16")
    if common_beginning and not a["frames"] == b["frames"] == len(results):
        notes.append(f"only the common beginning was compared, {len(results)} frames")
    return tuple(notes)


def _refuse_counts(a: Source, b: Source, frames_a: int, frames_b: int) -> None:
    raise FramesMismatch(
        str(a.path),
        str(b.path),
        f"the first has {frames_a} frame{'s' * (frames_a != 1)}, the second {frames_b}. Compare their common beginning "
        "with --frames first if that is what you mean",
    )


def _article(source: Source) -> str:
    return f"an {source.kind}" if source.kind[0] in "aeiou" else f"a {source.kind}"
