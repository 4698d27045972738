"""The picture shows the right frames, and what differs where it differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from easyteacache.compare import Comparison, compare, picture, plot_style
from easyteacache.compare.opening import ArrayOptions
from easyteacache.errors import UnreadableFrames

from .conftest import changed, noise, write_folder, write_image, write_video


def compared(folder: Path, amounts: list[int], *, channels: int = 3) -> Comparison:
    frames = noise(len(amounts), channels=channels)
    a, b = write_folder(folder / "a", frames), write_folder(folder / "b", changed(frames, amounts))
    return compare(a, b).comparisons[0]


def test_first_middle_and_worst_are_shown_once_each(tmp_path: Path) -> None:
    assert picture.chosen(compared(tmp_path / "1", [1, 1, 1, 9, 1])) == {0: "first", 2: "middle", 3: "worst"}
    assert picture.chosen(compared(tmp_path / "2", [9, 1, 1])) == {0: "first, worst", 1: "middle"}
    assert picture.chosen(compared(tmp_path / "3", [0, 0])) == {0: "first"}
    assert picture.chosen(compared(tmp_path / "4", [5])) == {0: ""}


def test_the_difference_is_amplified_until_white(tmp_path: Path) -> None:
    for amount, factor in ((50, 5), (5, 50), (0, 1), (128, 1)):
        row = picture.Shown(None, "", np.zeros((4, 4), np.float32), np.full((4, 4), amount / 255, np.float32))  # type: ignore[arg-type]
        assert picture.gain([row]) == factor


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("amounts", [[5, 0, 51, 5], [0, 0, 0], [7], [0], [30, 30]])
def test_every_kind_of_result_can_be_drawn(tmp_path: Path, amounts: list[int], channels: int) -> None:
    picture.save(compared(tmp_path, amounts, channels=channels), tmp_path / "out.png", ArrayOptions())
    image = np.asarray(Image.open(tmp_path / "out.png").convert("L"))
    assert image.shape[1] == int(picture.WIDTH * plot_style.DOTS_PER_INCH)
    assert (image < 250).mean() > 0.1


def test_it_says_what_was_compared_and_how_far_apart_it_is(tmp_path: Path) -> None:
    found = compared(tmp_path, [5, 0, 51, 5])
    rows = [
        picture.Shown(found.frames[place], why, np.zeros((8, 8), np.float32), np.ones((8, 8), np.float32))
        for place, why in picture.chosen(found).items()
    ]
    figure = picture.draw(found, rows)
    words = "\n".join(text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text")))
    for expected in (
        str(tmp_path / "a"),
        "PSNR 27.4 dB",
        "frame 2",
        "14.0 dB",
        "worst: frame 2",
        "identical",
        "mean 27.4",
    ):
        assert expected in words


def test_the_shown_frames_are_those_of_the_files(tmp_path: Path) -> None:
    frames = noise(5)
    a = write_video(tmp_path / "a.mp4", frames)
    b = write_video(tmp_path / "b.mp4", changed(frames, [1, 1, 1, 9, 1]))
    rows = picture._shown(compare(a, b).comparisons[0], ArrayOptions(), common_beginning=False)
    assert [row.result.index for row in rows] == [0, 2, 3]
    np.testing.assert_allclose(rows[2].a, frames[3] / np.float32(255), rtol=1e-6)
    np.testing.assert_allclose(rows[2].b - rows[2].a, 9 / 255, rtol=1e-3)


def test_a_large_frame_is_drawn_smaller(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", np.zeros((picture.LONGEST_SIDE * 3, 40, 3), np.uint8))
    (row,) = picture._shown(compare(path, path).comparisons[0], ArrayOptions(), common_beginning=False)
    assert max(row.a.shape) <= picture.LONGEST_SIDE


def test_a_latent_without_a_layout_has_no_picture(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 8, 8)))
    with pytest.raises(UnreadableFrames, match="--layout"):
        picture.save(compare(tmp_path / "a.npy", tmp_path / "a.npy").comparisons[0], tmp_path / "x.png", ArrayOptions())
    options = ArrayOptions(layout="CHW", data_range=1.0)
    found = compare(tmp_path / "a.npy", tmp_path / "a.npy", layout="CHW", data_range=1.0).comparisons[0]
    with pytest.raises(UnreadableFrames, match="found 4 channels"):
        picture.save(found, tmp_path / "x.png", options)
    assert not (tmp_path / "x.png").exists()
