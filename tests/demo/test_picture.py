from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from easyteacache.demo import picture
from easyteacache.demo.sampling import Sample

MakeSamples = Callable[..., list[Sample]]


def saved(samples: list[Sample], folder: Path) -> tuple[Image.Image, Image.Image]:
    png, gif = folder / "a.png", folder / "a.gif"
    picture.save(samples, title="A title", png=png, gif=gif)
    return Image.open(io.BytesIO(png.read_bytes())), Image.open(io.BytesIO(gif.read_bytes()))


@pytest.mark.parametrize("frames", [1, 3, 8])
def test_the_gif_has_one_picture_a_frame(frames: int, make_samples: MakeSamples, tmp_path: Path) -> None:
    png, gif = saved(make_samples(2, frames=frames), tmp_path)
    assert getattr(gif, "n_frames", 1) == frames
    assert png.format == "PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.png"]


def test_more_samples_than_fit_are_left_out(make_samples: MakeSamples, tmp_path: Path) -> None:
    few, _ = saved(make_samples(picture.MOST_SAMPLES, frames=1), tmp_path)
    many, _ = saved(make_samples(picture.MOST_SAMPLES + 3, frames=1), tmp_path)
    assert many.size == few.size


@pytest.mark.parametrize("size", [(16, 32), (32, 16)])
def test_videos_need_not_be_square(size: tuple[int, int], make_samples: MakeSamples, tmp_path: Path) -> None:
    png, _ = saved(make_samples(1, size=size, frames=2), tmp_path)
    assert min(png.size) > 100


@pytest.mark.parametrize(("change", "factor"), [(0.04, 20), (0.3, 2), (1.5, 1), (0.0, 1)])
def test_differences_are_amplified_as_far_as_none_is_clipped(
    change: float, factor: int, make_samples: MakeSamples
) -> None:
    assert picture.gain(make_samples(2, change=change)) == factor


def test_differing_schedules_get_a_row_each(make_samples: MakeSamples) -> None:
    same = make_samples(2)
    other = [make_samples(1)[0], make_samples(2, pattern="██··")[1]]
    assert [label for label, _ in picture.step_rows(same)] == ["cond", "uncond"]
    assert [label for label, _ in picture.step_rows(other)] == [
        "cond, seed 0",
        "cond, seed 1",
        "uncond, seed 0",
        "uncond, seed 1",
    ]


def test_pixels_show_the_frames_themselves(make_samples: MakeSamples, tmp_path: Path) -> None:
    dark, _ = saved(make_samples(1, frames=1, change=0.0), tmp_path)
    bright, _ = saved(make_samples(1, frames=1, change=0.5), tmp_path)
    width, height = dark.size
    middle = (width // 2 - 30, height // 3, width // 2 + 30, height // 2)
    means = [sum(image.convert("L").crop(middle).tobytes()) for image in (dark, bright)]
    assert means[1] > means[0]
