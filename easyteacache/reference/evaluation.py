"""How good a reference transformer is: loss on unseen handwriting, digits recognised per shape, a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from easyteacache.reference import digits
from easyteacache.reference.architectures import Architecture, Transformer, architecture_of
from easyteacache.reference.classifier import DigitClassifier
from easyteacache.reference.pipeline import MovingDigitsPipeline
from easyteacache.reference.prompts import DIGITS
from easyteacache.reference.training import TrainingSettings, draw_example, flow_matching_loss

if TYPE_CHECKING:
    from PIL.Image import Image

Shape = tuple[int, int, int]

FRAMES = (1, 2, 4, 8)
SIZES = (16, 24, 32)
PICTURE_SHAPES: tuple[Shape, ...] = ((1, 16, 16), (4, 16, 16), (4, 24, 24), (3, 32, 32))
# Seeds of samples start far from the small ones people try, so that the table is not about those.
FIRST_SEED = 100_000
_GRID_GREY, _GAP_GREY, _GAP_PIXELS = 90, 40, 3


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many of `total` samples of one shape (frames, height, width) show the digit asked for."""

    shape: Shape
    right: int
    total: int

    @property
    def share(self) -> float:
        """Class accuracy in [0, 1]."""
        return self.right / self.total


def evaluation_shapes(architecture: Architecture) -> list[Shape]:
    """Return the square shapes worth a row of the table, smallest first."""
    return [(f, size, size) for f in FRAMES if f <= architecture.max_frames for size in SIZES]


def class_agreement(
    pipeline: MovingDigitsPipeline,
    classifier: DigitClassifier,
    shape: Shape,
    *,
    samples: int,
    num_inference_steps: int = 50,
    batch: int = DIGITS,
    first_seed: int = FIRST_SEED,
) -> Agreement:
    """Sample every digit equally often and count the samples that the classifier reads as asked for."""
    frames, height, width = shape
    right = 0
    for start in range(0, samples, batch):
        seeds = range(first_seed + start, first_seed + min(start + batch, samples))
        asked = [seed % DIGITS for seed in seeds]
        videos = pipeline(
            asked, frames, height, width, num_inference_steps, seeds=seeds, output_type="latent", return_dict=False
        )[0]
        right += int((classifier.read(videos.clamp(-1, 1)) == torch.tensor(asked)).sum())
    return Agreement(shape, right, samples)


def measure_agreement(
    pipeline: MovingDigitsPipeline,
    classifier: DigitClassifier,
    shapes: Sequence[Shape],
    *,
    samples: int,
    num_inference_steps: int = 50,
) -> Iterator[Agreement]:
    """Yield the class agreement of one shape after the other."""
    for shape in shapes:
        yield class_agreement(pipeline, classifier, shape, samples=samples, num_inference_steps=num_inference_steps)


@torch.no_grad()
def held_out_loss(transformer: Transformer, *, batches: int = 64) -> float:
    """Return the mean training loss over batches drawn from the held-out glyphs, shapes as in training."""
    settings = TrainingSettings(architecture=architecture_of(transformer).name, seed=1)
    glyphs = digits.load_glyphs("held_out")
    losses = [flow_matching_loss(transformer, draw_example(settings, i, glyphs=glyphs)) for i in range(batches)]
    return torch.stack(losses).mean().item()


def picture(pipeline: MovingDigitsPipeline, *, num_inference_steps: int = 50, scale: int = 2) -> Image:
    """Draw digits 0 to 9 side by side (frames downwards), one band per shape."""
    from PIL import Image

    most = architecture_of(pipeline.transformer).max_frames
    shapes = dict.fromkeys((min(frames, most), h, w) for frames, h, w in PICTURE_SHAPES)
    bands = [_band(pipeline, shape, num_inference_steps) for shape in shapes]
    width = max(band.shape[1] for band in bands)
    rows = [_pad(band, bottom=_GAP_PIXELS, right=width - band.shape[1], grey=_GAP_GREY) for band in bands]
    image = Image.fromarray(np.concatenate(rows))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def _band(pipeline: MovingDigitsPipeline, shape: Shape, num_inference_steps: int) -> np.ndarray:
    seeds = range(DIGITS)
    videos = pipeline(list(seeds), *shape, num_inference_steps, seeds=seeds, return_dict=False)[0]
    cells = [[_pad(frame[..., 0], bottom=1, right=1, grey=_GRID_GREY) for frame in video] for video in videos * 255]
    return np.concatenate([np.concatenate(column) for column in cells], axis=1)


def _pad(image: np.ndarray, *, bottom: int, right: int, grey: int) -> np.ndarray:
    return np.pad(image.astype(np.uint8), ((0, bottom), (0, right)), constant_values=grey)
