"""A third model for studies: colour scenes of two shapes, drawn in numpy, and a Wan transformer trained on them.

    python tools/studies/scenes.py --checkpoint runs/scenes.pt --steps 2600 --export runs/scenes

A scene is a shape in front of another one on a plain ground; prompts name both shapes and both colours. The whole scene scales with the
canvas, so that more tokens show the same content at more pixels, as with real images; digits keep their size instead. Ctrl-C stops
a training run, the same command goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from diffusers import WanTransformer3DModel
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

SHAPES = ("disc", "square", "triangle", "cross", "ring", "bar")
COLOURS = {
    "red": (0.9, 0.15, 0.15),
    "green": (0.15, 0.75, 0.25),
    "blue": (0.2, 0.3, 0.95),
    "yellow": (0.95, 0.85, 0.2),
    "white": (0.95, 0.95, 0.95),
    "purple": (0.6, 0.2, 0.75),
}
CHANNELS = 3
TEXT_DIM = 64
NULL = len(SHAPES) + len(COLOURS)
_TABLE_SEED = 20_261_128
SIZES = ((16, 5), (24, 6), (32, 5), (40, 2), (48, 2))
TOKENS_PER_STEP = 3072
NULL_PROBABILITY = 0.1
# As for the reference model, but centred where sampling at matched shifts of 0.25 to 1 spends its steps.
LOGIT_MEAN, LOGIT_DEVIATION, UNIFORM_PROBABILITY = 0.0, 1.4, 0.1
CONFIG = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 4,
    "attention_head_dim": 24,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "text_dim": TEXT_DIM,
    "freq_dim": 128,
    "ffn_dim": 384,
    "num_layers": 6,
    "cross_attn_norm": True,
    "rope_max_seq_len": 128,
}


@dataclass(frozen=True)
class Scenes:
    """B scenes: pixels (B, 3, 1, N, N) in [-1, 1] and prompts (B, 4), indices of two shapes and two colours in the text table."""

    pixels: Tensor
    prompts: Tensor


def _inside(shape: str, x: Array, y: Array) -> Array:
    """Signed distance-like value, positive inside a shape of radius 1 around the origin."""
    if shape == "disc":
        return 1.0 - np.hypot(x, y)
    if shape == "square":
        return 0.85 - np.maximum(np.abs(x), np.abs(y))
    if shape == "triangle":
        return np.minimum(0.6 - y, (y + 1.0) * 0.45 - np.abs(x) * 0.9)
    if shape == "cross":
        return np.minimum(np.maximum(0.35 - np.abs(x), 0.35 - np.abs(y)), 1.0 - np.maximum(np.abs(x), np.abs(y)))
    if shape == "ring":
        return 0.28 - np.abs(np.hypot(x, y) - 0.7)
    return np.minimum(0.4 - np.abs(y), 1.0 - np.abs(x))


def draw(batch: int, size: int, rng: np.random.Generator) -> Scenes:
    """Draw ``batch`` scenes of ``size`` × ``size`` pixels."""
    grid = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(grid, grid)
    colours = np.array(list(COLOURS.values()))
    pixels, prompts = np.empty((batch, CHANNELS, size, size)), np.empty((batch, 4), dtype=np.int64)
    softness = 1.0 / size
    for b in range(batch):
        ground = rng.uniform(0.05, 0.35, 3)
        image = np.broadcast_to(ground[:, None, None], (CHANNELS, size, size)).copy()
        shapes, tints = rng.integers(len(SHAPES), size=2), rng.integers(len(COLOURS), size=2)
        for shape, tint in zip(shapes, tints, strict=True):
            centre, radius, turn = rng.uniform(0.25, 0.75, 2), rng.uniform(0.16, 0.3), rng.uniform(-0.4, 0.4)
            u, v = (x - centre[0]) / radius, (y - centre[1]) / radius
            u, v = np.cos(turn) * u + np.sin(turn) * v, np.cos(turn) * v - np.sin(turn) * u
            cover = np.clip(_inside(SHAPES[shape], u, v) * radius / softness + 0.5, 0.0, 1.0)
            shade = 1.0 - 0.25 * (v + 1.0) / 2.0
            image = image * (1.0 - cover) + colours[tint][:, None, None] * np.clip(shade, 0.6, 1.0) * cover
        pixels[b] = image
        prompts[b] = (shapes[0], len(SHAPES) + tints[0], shapes[1], len(SHAPES) + tints[1])
    return Scenes(torch.from_numpy(2.0 * pixels - 1.0).float()[:, :, None], torch.from_numpy(prompts))


def embed(prompts: Tensor) -> Tensor:
    """(B, 4) indices to (B, 4, 64) text embeddings; ``NULL`` is the empty word."""
    generator = torch.Generator().manual_seed(_TABLE_SEED)
    table = torch.randn(NULL + 1, TEXT_DIM, generator=generator)
    place = torch.randn(4, TEXT_DIM, generator=generator)
    return table[prompts] + place


def build() -> WanTransformer3DModel:
    """An untrained transformer whose first prediction is zero."""
    transformer = WanTransformer3DModel(**CONFIG)
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)
    return transformer


def loss_of(transformer: WanTransformer3DModel, step: int, *, seed: int = 0) -> Tensor:
    """Flow-matching loss on the batch that belongs to ``step``."""
    rng = np.random.default_rng((seed, step))
    sizes, weights = np.array(SIZES).T
    size = int(rng.choice(sizes, p=weights / weights.sum()))
    scenes = draw(max(1, TOKENS_PER_STEP // (size // 2) ** 2), size, rng)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    batch = len(scenes.pixels)
    empty = torch.rand(batch, generator=generator) < NULL_PROBABILITY
    text = embed(scenes.prompts.masked_fill(empty[:, None], NULL))
    sigma = (torch.randn(batch, generator=generator) * LOGIT_DEVIATION + LOGIT_MEAN).sigmoid()
    uniform = torch.rand(batch, generator=generator) < UNIFORM_PROBABILITY
    sigma = torch.where(uniform, torch.rand(batch, generator=generator), sigma)
    noise = torch.randn(scenes.pixels.shape, generator=generator)
    noisy = torch.lerp(scenes.pixels, noise, sigma.view(-1, 1, 1, 1, 1))
    velocity = transformer(hidden_states=noisy, timestep=sigma * 1000, encoder_hidden_states=text, return_dict=False)[0]
    return (velocity - (noise - scenes.pixels)).square().mean()


def train(path: Path, steps: int, *, rate: float = 2e-3, save_every: int = 50) -> WanTransformer3DModel:
    """Train to ``steps``, going on from ``path`` where it exists; returns the moving average of the weights."""
    torch.manual_seed(0)
    model, average = build().train(), build().eval().requires_grad_(False)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("blocks.")]
    others = [p for name, p in model.named_parameters() if not (p.ndim == 2 and name.startswith("blocks."))]
    optimizers = (
        torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=0.0),
    )
    done = 0
    average.load_state_dict(model.state_dict())
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        done = state["done"]
    smooth = float("nan")
    while done < steps:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (done + 1) / 60, (steps - done) / (0.6 * steps))
        loss = loss_of(model, done)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        decay = min(0.998, (1 + done) / (10 + done))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        done += 1
        smooth = loss.item() if done == 1 or smooth != smooth else 0.98 * smooth + 0.02 * loss.item()
        if done % save_every == 0 or done == steps:
            states = [optimizer.state_dict() for optimizer in optimizers]
            torch.save(
                {"model": model.state_dict(), "average": average.state_dict(), "optimizers": states, "done": done}, path
            )
            click.echo(f"{done} of {steps} steps, loss {smooth:.4f}")
    return average


@click.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="File to resume from and save to.")
@click.option("--steps", default=2600, show_default=True)
@click.option("--export", "folder", type=click.Path(path_type=Path), required=True, help="Folder for the weights.")
def main(checkpoint: Path, steps: int, folder: Path) -> None:
    """Train the scenes model and write its weights."""
    train(checkpoint, steps).save_pretrained(folder / "transformer")


if __name__ == "__main__":
    main()
