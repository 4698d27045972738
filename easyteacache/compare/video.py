"""Videos through PyAV, one decoded frame at a time.

The file is handed over as an open file with its container named: FFmpeg left to guess by content would follow a playlist
that calls itself a video to other files and to the network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from easyteacache.compare.source import EIGHT_BITS, SIXTEEN_BITS, Frame, Source, bounded, check_size, reading, refuse
from easyteacache.errors import MissingPackage

# Suffix → FFmpeg's name of the container.
CONTAINERS = {".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".webm": "matroska", ".mkv": "matroska"}
SUFFIXES = tuple(CONTAINERS)


def open_video(path: Path) -> Source:
    """A source over the first video stream of an MP4, MOV, WebM or Matroska file.

    Raises:
        UnreadableFrames: not the container that its suffix names, no video in it, too large.
        MissingPackage: PyAV is not installed.
    """
    with _opened(path) as opened:
        _stream(path, opened)
    return Source(path, "video", lambda: bounded(path, _frames(path)))


def read_deep_png(path: Path) -> Frame:
    """A PNG of 16 bits a channel, which Pillow cuts to 8.

    Raises:
        UnreadableFrames: damaged.
        MissingPackage: PyAV is not installed.
    """
    av = _av(f"reading 16 bits from the colour PNG {path}")
    with reading(path, "a PNG"), path.open("rb") as file, av.open(file, format="png_pipe") as opened:
        return _frame(next(opened.decode(_stream(path, opened))))


def _av(purpose: str) -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise MissingPackage("PyAV", purpose, 'pip install "easyteacache[video]"') from error
    # FFmpeg's own remarks would go straight to stderr; what matters arrives as an exception.
    av.logging.set_level(None)
    module: ModuleType = av
    return module


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    av, container = _av(f"reading {path}"), CONTAINERS[path.suffix.lower()]
    with (
        reading(path, f"a {path.suffix.lower()} video"),
        path.open("rb") as file,
        av.open(file, format=container) as opened,
    ):
        yield opened


def _stream(path: Path, opened: Any) -> Any:
    if not opened.streams.video:
        refuse(path, "holds no video stream")
    stream = opened.streams.video[0]
    check_size(path, stream.codec_context.width, stream.codec_context.height)
    return stream


def _frames(path: Path) -> Iterator[Frame]:
    with _opened(path) as opened:
        stream = _stream(path, opened)
        stream.thread_type = "AUTO"
        for packet in opened.demux(stream):
            if packet.is_corrupt:
                refuse(path, "a packet is damaged or cut short: the file is not whole")
            for frame in packet.decode():
                check_size(path, frame.width, frame.height)
                if frame.is_corrupt:
                    refuse(path, "a frame is damaged: the file is not whole")
                yield _frame(frame)


def _frame(frame: Any) -> Frame:
    parts = frame.format.components
    deep = max(part.bits for part in parts) > 8
    alpha = any(part.is_alpha for part in parts)
    grey = not alpha and len(parts) == 1 and not frame.format.has_palette
    name = "gray" if grey else "rgba" if alpha or frame.format.has_palette else "rgb24"
    wide = {"gray": "gray16le", "rgba": "rgba64le", "rgb24": "rgb48le"}
    pixels = frame.to_ndarray(format=wide[name] if deep else name)
    peak = SIXTEEN_BITS if deep else EIGHT_BITS
    return Frame(pixels if pixels.ndim == 3 else pixels[..., None], peak, alpha=name == "rgba")
