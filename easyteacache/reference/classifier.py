"""A small digit classifier that says whether a sampled video shows the digit it was asked for.

It is trained on the training split only, so its accuracy on held-out handwriting is a fair measure of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from easyteacache.errors import ReferenceModelError
from easyteacache.reference.digits import draw_clips, load_glyphs

CLASSIFIER_WEIGHTS = Path(__file__).parent / "weights" / "classifier.safetensors"
SIZES = (16, 20, 24, 28, 32)
STEPS = 1500
BATCH = 96
LEARNING_RATE = 2e-3
# Samples are never as clean as renderings: the classifier learns to read through this much noise.
NOISE = 0.15


class DigitClassifier(nn.Module):
    """Convolutions and a maximum over space: reads a digit anywhere on a canvas of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.GELU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.GELU(),
            nn.Conv2d(32, 64, 3, padding=1, stride=2), nn.GELU(),
            nn.Conv2d(64, 64, 3, padding=1), nn.GELU(),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def forward(self, videos: Tensor) -> Tensor:
        """Return class logits (B, 10), averaged over frames, of videos (B, 1, F, H, W) in [-1, 1]."""
        images = videos.transpose(1, 2).flatten(0, 1)
        logits: Tensor = self.head(self.features(images).amax((2, 3)))
        return logits.view(len(videos), -1, logits.shape[-1]).mean(1)

    @torch.no_grad()
    def read(self, videos: Tensor) -> Tensor:
        """Return the digit (B,) that each video (B, 1, F, H, W) shows."""
        return self.forward(videos).argmax(1)


def load_classifier() -> DigitClassifier:
    """Load the classifier that travels with the package.

    Raises:
        ReferenceModelError: the installation lacks its weights.
    """
    if not CLASSIFIER_WEIGHTS.is_file():
        raise ReferenceModelError(f"expected the classifier's weights in {CLASSIFIER_WEIGHTS}; reinstall easyteacache")
    classifier = DigitClassifier()
    classifier.load_state_dict({k: v.float() for k, v in load_file(CLASSIFIER_WEIGHTS).items()})
    return classifier.eval().requires_grad_(False)


def train_classifier(
    *, steps: int = STEPS, seed: int = 0, progress: Callable[[Iterable[int]], Iterable[int]] = iter
) -> DigitClassifier:
    """Train a classifier; `progress` wraps the range of steps, as `tqdm` does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = DigitClassifier()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in progress(range(steps)):
        images, digits = _noisy_batch(generator)
        optimizer.zero_grad()
        loss = functional.cross_entropy(classifier(images), digits, label_smoothing=0.05)
        torch.autograd.backward(loss)
        optimizer.step()
        decay.step()
    return classifier.eval().requires_grad_(False)


def _noisy_batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    height, width = (SIZES[int(i)] for i in torch.randint(len(SIZES), (2,), generator=generator))
    clip = draw_clips(load_glyphs("train"), batch=BATCH, frames=1, height=height, width=width, generator=generator)
    strength = NOISE * torch.rand(BATCH, 1, 1, 1, 1, generator=generator)
    noise = torch.randn(clip.pixels.shape, generator=generator) * strength
    return clip.pixels + noise, clip.digits


def held_out_accuracy(classifier: DigitClassifier, *, size: int, seed: int = 0, batch: int = 1000) -> float:
    """Return the share of single held-out renderings of `size` × `size` pixels that are read correctly."""
    clip = draw_clips(
        load_glyphs("held_out"), batch=batch, frames=1, height=size, width=size,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return (classifier.read(clip.pixels) == clip.digits).float().mean().item()
