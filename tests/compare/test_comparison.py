"""Figures against scikit-image and by hand; what cannot be compared is an error that names both."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from easyteacache.compare import compare
from easyteacache.errors import FramesMismatch, UnreadableFrames

from .conftest import changed, noise, write_deep_png, write_folder, write_image, write_video


@pytest.mark.parametrize("channels", [1, 3])
def test_figures_are_those_of_scikit_image(tmp_path: Path, channels: int) -> None:
    (a,), (b,) = noise(1, channels=channels), noise(1, channels=channels, seed=1)
    found = compare(write_image(tmp_path / "a.png", a), write_image(tmp_path / "b.png", b)).comparisons[0].frames[0]
    assert found.figures.psnr == pytest.approx(peak_signal_noise_ratio(a, b))
    assert found.figures.ssim == pytest.approx(structural_similarity(a, b, channel_axis=-1))
    assert found.figures.relative_l2 is None


def test_grey_of_16_bits_is_measured_on_its_own_range(tmp_path: Path) -> None:
    a = np.random.default_rng(0).integers(0, 60000, (16, 20), dtype=np.uint16)
    b = a + np.random.default_rng(1).integers(0, 5000, a.shape, dtype=np.uint16)
    Image.fromarray(a).save(tmp_path / "a.png")
    Image.fromarray(b).save(tmp_path / "b.tiff")
    summary = compare(tmp_path / "a.png", tmp_path / "b.tiff").summary
    assert summary.psnr_mean == pytest.approx(peak_signal_noise_ratio(a, b, data_range=65535))
    assert summary.means["ssim"] == pytest.approx(structural_similarity(a, b, data_range=65535))


def test_a_picture_and_its_16_bit_copy_are_identical(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (frame,) = noise(1, low=0, high=256)
    deep = write_deep_png(tmp_path / "b.png", frame.astype(np.uint16) * 257)
    report = compare(write_image(tmp_path / "a.png", frame), deep)
    assert report.summary.identical
    assert "scaled to 16" in report.comparisons[0].notes[0]


def test_a_video_is_summarised_in_both_ways(tmp_path: Path) -> None:
    a = noise(4)
    summary = compare(write_folder(tmp_path / "a", a), write_folder(tmp_path / "b", changed(a, [0, 5, 51, 5]))).summary
    by_hand = [20 * math.log10(255 / amount) for amount in (5, 51, 5)]
    assert summary.psnr_mean == pytest.approx(sum(by_hand) / 3)
    assert summary.psnr_of_mean_mse == pytest.approx(10 * math.log10(255**2 / ((25 + 51**2 + 25) / 4)))
    assert (summary.frames, summary.identical_frames) == (4, 1)
    assert summary.worst["psnr"] == pytest.approx(by_hand[1])
    assert summary.worst_frame["psnr"] == summary.worst_frame["ssim"] == 2


def test_equal_results_are_identical_whatever_they_are_stored_in(tmp_path: Path) -> None:
    frames = noise(11)
    folder, video = write_folder(tmp_path / "a", frames), write_video(tmp_path / "a.mp4", frames)
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], lossless=True)
    for other in (video, tmp_path / "a.webp"):
        summary = compare(folder, other).summary
        assert summary.identical
        assert summary.psnr_mean == math.inf
        assert summary.means["ssim"] == 1.0


def test_an_opaque_alpha_channel_does_not_count(tmp_path: Path) -> None:
    (frame,) = noise(1)
    Image.fromarray(frame).convert("RGBA").save(tmp_path / "b.png")
    assert compare(write_image(tmp_path / "a.png", frame), tmp_path / "b.png").summary.identical


def test_colours_nobody_sees_do_not_count_but_opacity_does(tmp_path: Path) -> None:
    (frame,) = noise(1, channels=4)
    hidden, other = frame.copy(), frame.copy()
    frame[:4, :, 3] = hidden[:4, :, 3] = 0
    hidden[:4, :, :3] = 7
    other[..., 3] = frame[..., 3] + 10
    a = write_image(tmp_path / "a.png", frame)
    assert compare(a, write_image(tmp_path / "b.png", hidden)).summary.identical
    assert not compare(a, write_image(tmp_path / "c.png", other)).summary.identical


def test_something_that_shows_through_needs_alpha_in_both(tmp_path: Path) -> None:
    (frame,) = noise(1, channels=4)
    a = write_image(tmp_path / "a.png", frame)
    with pytest.raises(FramesMismatch, match=r"RGB and alpha, the second 32 × 24 pixels, RGB\."):
        compare(a, write_image(tmp_path / "b.png", frame[..., :3]))


def test_tiny_frames_have_no_ssim_and_say_so(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (2, 2), (name == "a" and (9, 9, 9)) or (0, 0, 0)).save(tmp_path / f"{name}.png")
    (pair,) = compare(tmp_path / "a.png", tmp_path / "b.png").comparisons
    assert pair.frames[0].figures.ssim is None
    assert pair.notes == ("no SSIM: the frames are smaller than 3 × 3 pixels",)


def in_folders(path: Path, count: int) -> Path:
    return write_folder(path, noise(count))


def in_video(path: Path, count: int) -> Path:
    return write_video(path.with_suffix(".mkv"), noise(count), codec="ffv1", pixels="bgr0")


@pytest.mark.parametrize("write", [in_folders, in_video])
def test_another_number_of_frames_is_an_error_with_both_numbers(
    tmp_path: Path, write: Callable[[Path, int], Path]
) -> None:
    a, b = write(tmp_path / "a", 5), write(tmp_path / "b", 3)
    with pytest.raises(FramesMismatch, match=r"the first has 5 frames, the second 3\..*--frames first"):
        compare(a, b)
    with pytest.raises(FramesMismatch, match=r"the first has 3 frames, the second 5\."):
        compare(b, a)
    (pair,) = compare(b, a, common_beginning=True).comparisons
    assert len(pair.frames) == 3
    assert pair.summary.identical
    assert pair.notes == ("only the common beginning was compared, 3 frames",)


def test_another_size_or_other_channels_name_both(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", noise(2))
    b = write_folder(tmp_path / "b", [noise(1)[0], noise(1)[0][:, 1:]])
    with pytest.raises(FramesMismatch, match=r"a \(frame frame1\.png\).*32 × 24 pixels, RGB.*31 × 24"):
        compare(a, b)
    grey = write_image(tmp_path / "grey.png", noise(1, channels=1)[0])
    with pytest.raises(FramesMismatch, match="grey, the second 32 × 24 pixels, RGB"):
        compare(grey, a / "frame0.png")


def test_an_array_is_no_picture(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", noise(1)[0])
    with pytest.raises(FramesMismatch, match="the first is an image, the second an array"):
        compare(write_image(tmp_path / "a.png", noise(1)[0]), tmp_path / "b.npy")


def test_folders_of_results_are_paired_by_name(tmp_path: Path) -> None:
    frames = noise(2)
    for side, amounts in (("a", [0, 0]), ("b", [51, 51])):
        (tmp_path / side).mkdir()
        write_video(tmp_path / side / "clip10.mp4", changed(frames, amounts))
        # What is a folder of frames here may be a video there.
        write_folder(tmp_path / side / "clip2", frames) if side == "a" else write_video(
            tmp_path / side / "clip2.mp4", frames
        )
    report = compare(tmp_path / "a", tmp_path / "b")
    assert [pair.name for pair in report.comparisons] == ["clip2", "clip10"]
    assert [pair.summary.identical for pair in report.comparisons] == [True, False]
    assert report.comparisons[1].summary.psnr_mean == pytest.approx(20 * math.log10(5))
    assert (report.summary.frames, report.summary.worst_frame["psnr"]) == (4, 2)


def test_pictures_are_frames_unless_pairs_are_asked_for(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for number, frame in enumerate(noise(2)):
        write_folder(a, [frame[:, number:]], f"picture{number}.png")
        write_folder(b, [frame[:, number:]], f"picture{number}.webp".replace("webp", "bmp"))
    assert len(compare(a, b, by_name=True).comparisons) == 2
    assert len(compare(a, b).comparisons) == 1


@pytest.mark.parametrize("by_name", [False, True])
def test_a_name_that_one_folder_lacks_is_an_error(tmp_path: Path, by_name: bool) -> None:
    for side, names in (("a", ("x", "y")), ("b", ("x",))):
        for name in names:
            write_folder(tmp_path / side if by_name else tmp_path / side / name, noise(1), f"{name}.png")
    with pytest.raises(FramesMismatch, match=r"b lacks 1 of the names in .*a: y"):
        compare(tmp_path / "a", tmp_path / "b", by_name=by_name)


def test_folders_that_can_be_understood_in_two_ways_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", noise(2))
    write_folder(folder / "more", noise(1))
    with pytest.raises(UnreadableFrames, match="--pairs"):
        compare(folder, folder)
    write_folder(tmp_path / "b" / "x", noise(1))
    with pytest.raises(FramesMismatch, match="holds several results"):
        compare(tmp_path / "b", folder / "more")
    write_folder(tmp_path / "c", noise(1), "x.png")
    write_folder(tmp_path / "c", noise(1), "x.bmp")
    with pytest.raises(UnreadableFrames, match="the same name"):
        compare(tmp_path / "c", tmp_path / "c", by_name=True)
    with pytest.raises(FramesMismatch, match="only two folders"):
        compare(tmp_path / "c", folder / "frame0.png", by_name=True)
