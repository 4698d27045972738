"""Moving digits: the videos the reference model was trained on.

The glyphs are the 8×8 handwritten digits bundled with scikit-learn (UCI "Optical Recognition of
Handwritten Digits", E. Alpaydin and C. Kaynak, 1998, CC BY 4.0). A video shows one glyph at a constant
speed that bounces off the edges of the canvas.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from easyteacache.reference.prompts import DIRECTIONS

Split = Literal["train", "held_out"]

TRAIN_COUNT = 1500
GLYPH_PIXELS = 12.0
PIXELS_PER_FRAME = 1.25
# Bicubic sampling of an 8×8 glyph leaves grey halos; this stretch turns them into black and white.
BLACK_LEVEL, WHITE_LEVEL = 0.22, 0.68
CLEAR_PROBABILITY = 0.95
_SOURCE_PIXELS = 8
_MARGIN = 2


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Handwritten digits: `images` (N, 8, 8) in [0, 1] and their class `labels` (N,) in 0..9."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def keep(self, mask: Tensor) -> "Glyphs":
        """Return the glyphs where the boolean `mask` (N,) is true."""
        return Glyphs(self.images[mask], self.labels[mask])


@dataclass(frozen=True, slots=True)
class Clip:
    """A batch of videos `pixels` (B, 1, F, H, W) in [-1, 1] with what each one shows."""

    pixels: Tensor
    digits: Tensor
    directions: Tensor


@functools.cache
def load_glyphs(split: Split) -> Glyphs:
    """Load one split of scikit-learn's digits: the first 1,500 train, the last 297 are held out.

    The order of the file follows its writers, so no held-out glyph sits between training ones.
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    part = slice(None, TRAIN_COUNT) if split == "train" else slice(TRAIN_COUNT, None)
    images = torch.tensor(source.images[part], dtype=torch.float32) / 16
    return Glyphs(images, torch.tensor(source.target[part], dtype=torch.long))


@functools.cache
def load_clear_glyphs() -> Glyphs:
    """Load the training glyphs that a cross-validated classifier reads as what they are labelled.

    At 8×8 some digits are ambiguous even to a person; a generator that has seen them draws such hybrids.
    """
    from sklearn.model_selection import cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    glyphs = load_glyphs("train")
    flat, labels = glyphs.images.flatten(1).numpy(), glyphs.labels
    nearest = KNeighborsClassifier(n_neighbors=9, weights="distance")
    probabilities = cross_val_predict(nearest, flat, labels.numpy(), cv=10, method="predict_proba")
    own = torch.from_numpy(probabilities)[torch.arange(len(labels)), labels]
    return glyphs.keep(own >= CLEAR_PROBABILITY)


def render(glyph_images: Tensor, centres: Tensor, *, height: int, width: int) -> Tensor:
    """Draw one glyph per image at a sub-pixel position.

    Args:
        glyph_images: (N, 8, 8) in [0, 1].
        centres: (N, 2) pixel coordinates (x, y) of the glyph's centre.
        height: canvas height in pixels.
        width: canvas width in pixels.

    Returns:
        (N, 1, H, W) in [-1, 1], ink = 1.
    """
    padded = functional.pad(glyph_images[:, None], (_MARGIN,) * 4)
    reach = GLYPH_PIXELS / 2 * (1 + 2 * _MARGIN / _SOURCE_PIXELS)
    columns = (torch.arange(width) + 0.5)[None] - centres[:, :1]
    rows = (torch.arange(height) + 0.5)[None] - centres[:, 1:]
    grid = torch.stack((columns[:, None, :].expand(-1, height, -1), rows[:, :, None].expand(-1, -1, width)), -1)
    ink = functional.grid_sample(padded, grid / reach, mode="bicubic", align_corners=False)
    return 2 * ((ink - BLACK_LEVEL) / (WHITE_LEVEL - BLACK_LEVEL)).clamp(0, 1) - 1


def bounce(position: Tensor, room: Tensor | float) -> Tensor:
    """Fold an unbounded coordinate into [0, room] as a ball between two walls would move."""
    wrapped = position.remainder(2 * room)
    return torch.minimum(wrapped, 2 * room - wrapped)


def trajectories(start: Tensor, directions: Tensor, *, frames: int, room: Tensor) -> Tensor:
    """Return the glyph's position per frame, (B, F, 2), inside the free `room` (2,) in pixels.

    Args:
        start: (B, 2) first position as a fraction of the room, in [0, 1].
        directions: (B,) index into `DIRECTIONS`; the first movement.
        frames: number of frames F.
        room: (2,) how far the centre may travel in x and y.
    """
    headings = torch.tensor(list(DIRECTIONS.values()), dtype=torch.float32)[directions]
    headings = headings / headings.norm(dim=1, keepdim=True)
    elapsed = torch.arange(frames, dtype=torch.float32)[None, :, None] * PIXELS_PER_FRAME
    return bounce(start[:, None] * room + headings[:, None] * elapsed, room)


def draw_clips(glyphs: Glyphs, *, batch: int, frames: int, height: int, width: int, generator: torch.Generator) -> Clip:
    """Draw a random batch of videos, every digit equally likely."""
    digits = torch.randint(10, (batch,), generator=generator)
    directions = torch.randint(len(DIRECTIONS), (batch,), generator=generator)
    start = torch.rand(batch, 2, generator=generator)
    order = torch.rand(batch, len(glyphs), generator=generator)
    same_class = glyphs.labels[None] == digits[:, None]
    chosen = glyphs.images[order.masked_fill(~same_class, -1).argmax(1)]
    room = torch.tensor([width, height], dtype=torch.float32) - GLYPH_PIXELS
    centres = trajectories(start, directions, frames=frames, room=room) + GLYPH_PIXELS / 2
    images = render(chosen.repeat_interleave(frames, 0), centres.flatten(0, 1), height=height, width=width)
    pixels = images.view(batch, frames, height, width)[:, None]
    return Clip(pixels, digits, directions)
