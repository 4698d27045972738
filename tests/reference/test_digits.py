from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from easyteacache.reference.digits import (
    GLYPH_PIXELS,
    PIXELS_PER_FRAME,
    bounce,
    draw_clips,
    load_clear_glyphs,
    load_glyphs,
    render,
    trajectories,
)
from easyteacache.reference.prompts import DIRECTIONS


def clips(seed: int = 0, **shape: int):
    shape = {"batch": 32, "frames": 3, "height": 16, "width": 24, **shape}
    return draw_clips(load_glyphs("train"), generator=torch.Generator().manual_seed(seed), **shape)


def test_splits_hold_every_glyph_once() -> None:
    train, held_out = load_glyphs("train"), load_glyphs("held_out")
    assert (len(train), len(held_out)) == (1500, 297)
    assert 0 <= train.images.min() < train.images.max() <= 1
    assert set(held_out.labels.tolist()) == set(range(10))


def test_clear_glyphs_are_most_of_the_training_split() -> None:
    clear = load_clear_glyphs()
    assert 0.75 * 1500 < len(clear) < 1500
    assert clear.labels.bincount().min() >= 80


def test_clips_depend_on_the_generator_alone() -> None:
    first, again, other = clips(1), clips(1), clips(2)
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.digits, other.digits)
    assert first.pixels.shape == (32, 1, 3, 16, 24)
    assert first.pixels.min() == -1
    assert first.pixels.max() == 1


def test_glyph_lies_inside_the_canvas_with_its_centre_where_asked() -> None:
    square = torch.ones(1, 8, 8)
    image = render(square, torch.tensor([[10.0, 7.5]]), height=16, width=32)[0, 0]
    ink = (image + 1) / 2
    assert (ink.sum(0) @ (torch.arange(32) + 0.5)) / ink.sum() == pytest.approx(10, abs=0.05)
    assert (ink.sum(1) @ (torch.arange(16) + 0.5)) / ink.sum() == pytest.approx(7.5, abs=0.05)
    assert ink.sum().sqrt() == pytest.approx(GLYPH_PIXELS, abs=1.5)


@given(st.floats(-100, 100), st.floats(0.5, 50))
def test_bouncing_stays_between_the_walls_and_never_jumps(position: float, room: float) -> None:
    here, near = bounce(torch.tensor([position, position + 0.1], dtype=torch.float64), room)
    assert 0 <= here <= room
    assert abs(near - here) <= 0.1 + 1e-6


@pytest.mark.parametrize(("index", "heading"), list(enumerate(DIRECTIONS.values())))
def test_first_movement_is_in_the_direction_asked_for(index: int, heading: tuple[int, int]) -> None:
    room = torch.tensor([20.0, 20.0])
    path = trajectories(torch.full((1, 2), 0.5), torch.tensor([index]), frames=2, room=room)[0]
    moved = path[1] - path[0]
    assert moved.norm() == pytest.approx(PIXELS_PER_FRAME)
    assert torch.equal(moved.sign(), torch.tensor(heading).sign())
