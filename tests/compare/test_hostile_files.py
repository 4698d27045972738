"""Files that are damaged, lie about their size or want to be run: each is one clear error, before memory is taken."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from easyteacache.compare import arrays, compare, source
from easyteacache.errors import EasyTeaCacheError, FramesMismatch, UnreadableFrames

from .conftest import noise, write_folder, write_image, write_video


def refused(path: Path, match: str) -> None:
    with pytest.raises(UnreadableFrames, match=match) as raised:
        compare(path, path)
    assert raised.value.where.endswith(path.name)


def png_of(width: int, height: int) -> bytes:
    """A PNG that promises ``width`` × ``height`` pixels and holds none."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(8193, 8193), (10_000, 10_000), (200_000, 200_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(png_of(*size))
    refused(tmp_path / "bomb.png", "fill the memory")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".webp", ".tiff", ".bmp"])
def test_a_picture_cut_short_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = write_image(tmp_path / f"a{suffix}", noise(1)[0])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, "cannot be read as a picture.*damaged, cut short")


@pytest.mark.parametrize("suffix", [".png", ".mp4", ".mkv", ".npy", ".npz", ".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/x.ts\n", b"GIF89a"])
def test_a_file_of_something_else_is_an_error(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    refused(tmp_path / f"a{suffix}", r"cannot be read as|not an? |damaged")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_cut_short_is_not_taken_for_a_shorter_one(tmp_path: Path, suffix: str) -> None:
    codec, pixels = ("libx264rgb", "rgb24") if suffix == ".mp4" else ("ffv1", "bgr0")
    whole = write_video(tmp_path / f"whole{suffix}", noise(12), codec=codec, pixels=pixels)
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with pytest.raises((UnreadableFrames, FramesMismatch)):
        compare(whole, cut)


def test_flipped_bytes_never_end_in_anything_but_the_projects_errors(tmp_path: Path) -> None:
    """A seeded walk over files of every kind: some stay readable, none may crash."""
    frames = noise(3)
    write_video(tmp_path / "a.mp4", frames)
    Image.fromarray(frames[0]).save(
        tmp_path / "a.gif", save_all=True, append_images=[Image.fromarray(frame) for frame in frames[1:]]
    )
    for name in ("a.png", "a.jpg", "a.webp", "a.tiff"):
        write_image(tmp_path / name, frames[0])
    np.savez(tmp_path / "a.npz", x=frames[0])
    np.save(tmp_path / "a.npy", frames[0])
    torch.save(torch.from_numpy(frames[0].copy()), tmp_path / "a.pt")
    rng = np.random.default_rng(0)
    refusals = 0
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        broken = path.with_name(f"broken{path.suffix}")
        for _ in range(25):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 400), 4):
                data[place] = rng.integers(0, 256)
            broken.write_bytes(data)
            try:
                compare(path, broken)
            except EasyTeaCacheError:
                refusals += 1
    assert refusals > 50


def test_a_gif_that_does_not_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easyteacache.compare.images.MAX_FRAMES", 3)
    monkeypatch.setattr(source, "MAX_FRAMES", 3)
    frames = noise(4)
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:])
    refused(tmp_path / "a.gif", "4 frames; at most 3")
    refused(write_video(tmp_path / "a.mp4", frames), "more than 3 frames")


class Runs:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".npy", ".npz"])
def test_nothing_in_a_file_is_run(tmp_path: Path, suffix: str) -> None:
    trace, path = tmp_path / "was-run", tmp_path / f"a{suffix}"
    evil = np.array([Runs(trace)], dtype=object)
    if suffix in (".pt", ".pth"):
        torch.save({"x": Runs(trace)}, path)
    elif suffix == ".npy":
        np.save(path, evil, allow_pickle=True)
    else:
        np.savez(path, x=evil)
    refused(path, r"cannot be read as|unpickling")
    assert not trace.exists()


def test_a_pickle_that_calls_itself_a_tensor_file_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Runs(tmp_path / "was-run")))
    refused(tmp_path / "a.pt", "not a file of torch.save")
    assert not (tmp_path / "was-run").exists()


def header(shape: tuple[int, ...]) -> bytes:
    target = io.BytesIO()
    np.lib.format.write_array_header_1_0(target, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return target.getvalue()


@pytest.mark.parametrize("shape", [(2**40,), (2**20, 2**20), (2**62, 4)])
def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    (tmp_path / "a.npy").write_bytes(header(shape))
    refused(tmp_path / "a.npy", r"cannot be read as a \.npy file.*damaged, cut short")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header(shape))
    refused(tmp_path / "a.npz", r"cannot be read as a \.npz file.*damaged, cut short")


def test_a_member_that_unfolds_to_too_much_is_refused_before_it_is_unfolded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "MAX_BYTES", 1000)
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(1000))
    refused(tmp_path / "a.npz", "x.npy unfolds to 8128 bytes; at most 1000")


def test_more_values_than_are_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MAX_ITEMS", 100)
    np.save(tmp_path / "a.npy", np.zeros((11, 10)))
    np.savez(tmp_path / "a.npz", x=np.zeros((11, 10)))
    for name in ("a.npy", "a.npz"):
        refused(tmp_path / name, r"an array of shape \(11, 10\); at most 100 values")


def test_an_archive_that_calls_itself_one_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    refused(tmp_path / "a.npy", r"cannot be read as a \.npy file")


def test_a_member_that_holds_less_than_it_promises_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header((1000,)) + b"\0" * 40)
    refused(tmp_path / "a.npz", "expected 4000 bytes got 40")


def test_a_compressed_tensor_file_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(4), tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "a.pt", "w", 8) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    refused(tmp_path / "a.pt", "torch.save never writes")


def test_a_small_file_with_a_tensor_spread_out_by_strides_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "MAX_ITEMS", 100)
    torch.save(torch.zeros(1).expand(101), tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "at most 100 values")


@pytest.mark.parametrize("suffix", [".png", ".mp4", ".npy", ".npz", ".pt", ".safetensors", ".gif"])
def test_a_pipe_is_refused_before_anybody_waits_for_it(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "frames").mkdir()
    for path in (tmp_path / f"pipe{suffix}", tmp_path / "frames" / f"pipe{suffix}"):
        os.mkfifo(path)
    refused(tmp_path / f"pipe{suffix}", "no regular file")
    with pytest.raises(UnreadableFrames, match="no regular file"):
        compare(tmp_path / "frames", tmp_path / "frames")


def test_a_device_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "zeros.npy").symlink_to("/dev/zero")
    refused(tmp_path / "zeros.npy", "no regular file")


def test_kinds_that_are_not_read_say_what_is(tmp_path: Path) -> None:
    (tmp_path / "a.eps").write_bytes(b"%!PS")
    refused(tmp_path / "a.eps", r"the suffix '\.eps'; what is read ends in \.png")
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    refused(tmp_path / "a.png", "cannot be read as a picture")
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.jpg")
    refused(tmp_path / "a.jpg", "colour mode CMYK")
    refused(tmp_path / "nothing.png", "does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "nothing to compare")


def test_an_animation_among_frames_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", noise(1))
    images = [Image.fromarray(frame) for frame in noise(2)]
    images[0].save(folder / "z.png", save_all=True, append_images=images[1:])
    with pytest.raises(UnreadableFrames, match="2 frames in a folder of pictures"):
        compare(folder, folder)
