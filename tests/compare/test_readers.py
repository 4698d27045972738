"""Every kind of file gives the frames it was made from."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from easyteacache.compare.opening import ArrayOptions, open_source
from easyteacache.compare.source import natural
from easyteacache.errors import MissingPackage, UnreadableFrames

from .conftest import Pixels, noise, write_deep_png, write_folder, write_image, write_video


def read(path: Path) -> list[Pixels]:
    return [frame.pixels for frame in open_source(path, ArrayOptions()).frames()]


def assert_same(found: list[Pixels], expected: list[Pixels]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_without_loss_is_read_as_it_was_written(tmp_path: Path, suffix: str, channels: int) -> None:
    if suffix == ".webp" and channels == 1:
        pytest.skip("WebP has no grey")
    (frame,) = noise(1, channels=channels)
    path = write_image(tmp_path / f"a{suffix}", frame, **({"lossless": True} if suffix == ".webp" else {}))
    assert_same(read(path), [frame])
    assert open_source(path, ArrayOptions()).kind == "image"


def test_a_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.jpg", noise(1)[0])
    assert_same(read(path), [np.asarray(Image.open(path))])


def test_grey_of_16_bits_keeps_them(tmp_path: Path) -> None:
    deep = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 80
    Image.fromarray(deep).save(tmp_path / "a.png")
    Image.fromarray(deep).save(tmp_path / "a.tiff")
    for name in ("a.png", "a.tiff"):
        (frame,) = open_source(tmp_path / name, ArrayOptions()).frames()
        assert frame.peak == 65535
        np.testing.assert_array_equal(frame.pixels[..., 0], deep)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colour_of_16_bits_keeps_them(tmp_path: Path, channels: int) -> None:
    pytest.importorskip("av")
    deep = np.random.default_rng(0).integers(0, 65536, (5, 6, channels), dtype=np.uint16)
    (frame,) = open_source(write_deep_png(tmp_path / "a.png", deep), ArrayOptions()).frames()
    assert frame.alpha == (channels in (2, 4))
    assert frame.peak == 65535
    # Grey with alpha arrives as three equal colours and alpha.
    np.testing.assert_array_equal(frame.pixels, deep[..., [0, 0, 0, 1]] if channels == 2 else deep)


def test_a_colour_tiff_of_16_bits_keeps_them(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    deep = np.random.default_rng(0).integers(0, 65536, (5, 6, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tiff", deep, photometric="rgb")
    (frame,) = open_source(tmp_path / "a.tiff", ArrayOptions()).frames()
    np.testing.assert_array_equal(frame.pixels, deep)


def test_a_palette_is_read_as_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(noise(1)[0]).quantize(16)
    image.save(tmp_path / "a.png")
    assert_same(read(tmp_path / "a.png"), [np.asarray(image.convert("RGB"))])


def test_a_colour_that_stands_for_nothing_is_transparent(tmp_path: Path) -> None:
    grey = np.full((4, 4), 9, np.uint8)
    grey[0] = 200
    Image.fromarray(grey).save(tmp_path / "a.png", transparency=200)
    (frame,) = open_source(tmp_path / "a.png", ArrayOptions()).frames()
    assert frame.alpha
    assert frame.pixels[0, 0, 3] == 0
    assert frame.pixels[1, 0, 3] == 255


def test_a_gif_gives_the_frames_it_was_made_from(tmp_path: Path) -> None:
    """Few colours, so that the format loses nothing; only what changes between frames is stored, and put together again."""
    frames = []
    for place in range(4):
        frame = np.zeros((24, 32, 3), np.uint8)
        frame[..., 2] = 90
        frame[4:9, 5 * place : 5 * place + 6] = (250, 10, 30)
        frames.append(frame)
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=100, disposal=1)
    found = read(tmp_path / "a.gif")
    assert_same([frame[..., :3] for frame in found], frames)


def test_an_apng_gives_its_frames_and_not_the_still_for_other_programs(tmp_path: Path) -> None:
    frames = noise(4)
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:], default_image=True)
    assert_same(read(tmp_path / "a.png"), frames[1:])
    images[0].save(tmp_path / "b.png", save_all=True, append_images=images[1:])
    assert_same(read(tmp_path / "b.png"), frames)
    assert open_source(tmp_path / "b.png", ArrayOptions()).kind == "animation"


def test_a_webp_animation_gives_its_frames(tmp_path: Path) -> None:
    frames = noise(3)
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], lossless=True, duration=100)
    assert_same([frame[..., :3] for frame in read(tmp_path / "a.webp")], frames)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.mp4", "libx264rgb", "rgb24"), ("a.mkv", "ffv1", "bgr0"), ("a.mov", "png", "rgb24")],
)
def test_a_video_without_loss_gives_its_frames(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    frames = noise(5)
    assert_same(read(write_video(tmp_path / name, frames, codec=codec, pixels=pixels)), frames)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_grey_video_has_one_channel_and_keeps_its_bits(tmp_path: Path, dtype: type) -> None:
    frames = [np.random.default_rng(i).integers(0, np.iinfo(dtype).max, (16, 20, 1), dtype=dtype) for i in range(3)]
    pixels = "gray" if dtype is np.uint8 else "gray16le"
    path = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixels=pixels)
    found = list(open_source(path, ArrayOptions()).frames())
    assert_same([frame.pixels for frame in found], frames)
    assert {frame.peak for frame in found} == {float(np.iinfo(dtype).max)}


def test_a_video_is_decoded_as_its_frames_are_asked_for(tmp_path: Path) -> None:
    """The first frame of a file that is not whole is given before its end is found missing."""
    frames = noise(40)
    path = write_video(tmp_path / "a.mp4", frames)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    stream = open_source(path, ArrayOptions()).frames()
    np.testing.assert_array_equal(next(stream).pixels, frames[0])
    with pytest.raises(UnreadableFrames, match="damaged"):
        list(stream)


def test_a_folder_is_read_in_the_order_people_count(tmp_path: Path) -> None:
    frames = noise(12)
    folder = write_folder(tmp_path / "frames", frames)
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".hidden.png").write_bytes(b"not a frame either")
    source = open_source(folder, ArrayOptions())
    assert [frame.label for frame in source.frames()] == [f"frame{number}.png" for number in range(12)]
    assert_same(read(folder), frames)


def test_natural_order() -> None:
    names = ["a10b2", "a2b10", "a2b9", "a", "b1", "7", "07", "10"]
    assert sorted(names, key=natural) == ["07", "7", "10", "a", "a2b9", "a2b10", "a10b2", "b1"]


def test_without_pyav_a_video_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"\0\0\0\x14ftypisom")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackage, match=r'PyAV.*pip install "easyteacache\[video\]"'):
        open_source(path, ArrayOptions())
