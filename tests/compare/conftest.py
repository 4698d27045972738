"""Frames with known differences, and files of every kind written from them by the libraries that read them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from easyteacache.cli.main import main as program

Pixels = npt.NDArray[np.generic]
Program = Callable[..., Result]

HEIGHT, WIDTH = 24, 32


def noise(count: int = 5, *, channels: int = 3, seed: int = 0, low: int = 40, high: int = 200) -> list[Pixels]:
    """``count`` different frames of 24 × 32 pixels and 8 bits, (H, W, C), away from black and white."""
    values = np.random.default_rng(seed).integers(low, high, (count, HEIGHT, WIDTH, channels), dtype=np.uint8)
    return list(values)


def changed(frames: Sequence[Pixels], amounts: Sequence[int]) -> list[Pixels]:
    """Every value of frame i plus ``amounts[i]``: its PSNR is 20·log10(255 / amount)."""
    return [(frame + np.uint8(amount)).astype(np.uint8) for frame, amount in zip(frames, amounts, strict=True)]


def write_folder(folder: Path, frames: Sequence[Pixels], name: str = "frame{}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        write_image(folder / name.format(number), frame)
    return folder


def write_image(path: Path, frame: Pixels, **options: object) -> Path:
    Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).save(path, **options)  # type: ignore[arg-type]
    return path


def write_video(path: Path, frames: Sequence[Pixels], *, codec: str = "libx264rgb", pixels: str = "rgb24") -> Path:
    """A lossless video: x264 without quantisation in MP4, FFV1 in Matroska."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as file:
        stream = file.add_stream(codec, rate=8)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if codec.startswith("libx264"):
            stream.options = {"crf": "0", "g": "2"}
        for frame in frames:
            grey = frame.shape[-1] == 1
            name = ("gray16le" if frame.dtype == np.uint16 else "gray") if grey else "rgb24"
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame[..., 0] if grey else frame, format=name)))
        file.mux(stream.encode())
    return path


def write_deep_png(path: Path, frame: Pixels) -> Path:
    """A PNG of 16 bits a channel from the format's own definition: no library here writes one."""
    height, width, channels = frame.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in frame)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.fixture
def run_compare() -> Program:
    """``run_compare(a, b, "--json")`` runs the command in this process."""
    return lambda *arguments: CliRunner().invoke(program, ["compare", *map(str, arguments)])
