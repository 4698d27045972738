"""What every reader gives: a source of frames, read one at a time, with bounds that hold for files nobody vouches for."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import numpy.typing as npt

from easyteacache.errors import EasyTeaCacheError, UnreadableFrames

Pixels = npt.NDArray[Any]
Kind = Literal["image", "animation", "video", "folder", "array"]

# 8192 × 8192, twice an 8K frame; SSIM takes some hundred bytes for each pixel of it.
MAX_PIXELS = 1 << 26
MAX_FRAMES = 100_000
MAX_ITEMS = 1 << 30
EIGHT_BITS, SIXTEEN_BITS = 255.0, 65535.0


class Frame(NamedTuple):
    """One frame, or one whole array.

    Attributes:
        pixels: ``(H, W, C)`` for pictures, any shape for an array without a layout.
        peak: difference between the largest and the smallest possible value; None where nobody knows.
        alpha: whether the last channel is opacity.
        label: what the frame is called in its source, for example a file name; None where it has only a number.
    """

    pixels: Pixels
    peak: float | None
    alpha: bool = False
    label: str | None = None


@dataclass(frozen=True)
class Source:
    """A readable file or folder.

    Attributes:
        path: what was named.
        kind: what it turned out to be.
        frames: starts reading from the first frame, as often as it is called.
        count: the number of frames where it is known without decoding them.
        pictures: whether frames are ``(H, W, C)``; False for an array without a layout.
        details: what a report says of it besides, as plain values.
    """

    path: Path
    kind: Kind
    frames: Callable[[], Iterator[Frame]]
    count: int | None = None
    pictures: bool = True
    details: dict[str, Any] = field(default_factory=dict)


def refuse(path: Path | str, reason: str) -> NoReturn:
    """Raise ``UnreadableFrames``."""
    raise UnreadableFrames(str(path), reason)


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into ``UnreadableFrames``: each has its own idea of an exception."""
    try:
        yield
    except EasyTeaCacheError:
        raise
    except Exception as error:
        found = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnreadableFrames(
            str(path), f"cannot be read as {what}: {found}. It is damaged, cut short or something else."
        ) from error


def check_regular(path: Path) -> None:
    """Refuse what may never end.

    Raises:
        UnreadableFrames: it is a pipe, a device or gone.
    """
    if not path.is_file():
        refuse(path, "no regular file; a pipe or a device may never end")


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse a picture before its pixels are decoded.

    Raises:
        UnreadableFrames: it has no pixels or more than ``MAX_PIXELS``.
    """
    if width < 1 or height < 1:
        refuse(path, f"a picture of {width} × {height} pixels; expected at least one")
    if width * height > MAX_PIXELS:
        refuse(path, f"{width} × {height} pixels; at most {MAX_PIXELS} are read, so that no file can fill the memory")


def bounded(path: Path, frames: Iterator[Frame]) -> Iterator[Frame]:
    """``frames``, refused where they do not end.

    Raises:
        UnreadableFrames: there are more than ``MAX_FRAMES``.
    """
    for number, frame in enumerate(frames):
        if number >= MAX_FRAMES:
            refuse(path, f"more than {MAX_FRAMES} frames; cut it into pieces")
        yield frame


def natural(name: str) -> tuple[Any, ...]:
    """Sort key that puts ``frame2`` before ``frame10``."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((1, int(part), "") if part.isascii() and part.isdecimal() else (0, 0, part) for part in parts), name
