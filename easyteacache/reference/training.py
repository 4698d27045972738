"""Flow-matching training of a reference transformer, resumable bit for bit.

A video x and noise n are mixed to (1 − σ)·x + σ·n and the model predicts the velocity n − x
(rectified flow, arXiv 2209.03003). Block matrices learn by Muon (torch.optim.Muon), the rest by AdamW.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from easyteacache.errors import ReferenceModelError
from easyteacache.reference import digits, prompts
from easyteacache.reference.architectures import (
    ARCHITECTURES,
    PATCH,
    TIMESTEPS,
    ArchitectureName,
    Transformer,
    build_transformer,
    predict_velocity,
)

# (value, weight): short and small clips come most often because their class is the hardest to hold.
FRAME_WEIGHTS = ((1, 9), (2, 4), (3, 2), (4, 2), (5, 2), (6, 2), (7, 1), (8, 2))
SIZE_WEIGHTS = ((16, 7), (20, 4), (24, 4), (28, 2), (32, 3))
SQUARE_PROBABILITY = 0.7
NULL_PROMPT_PROBABILITY = 0.1
NULL_DIRECTION_PROBABILITY = 0.1
# σ is logit-normal (arXiv 2403.03206 §3.1), centred where sampling with shift 3 spends its steps,
# with some uniform draws so that both ends of the path are seen.
LOGIT_MEAN, LOGIT_DEVIATION, UNIFORM_PROBABILITY = 0.6, 1.2, 0.1


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What determines a training run, besides library versions and thread count."""

    architecture: ArchitectureName = "wan"
    steps: int = 6500
    seed: int = 0
    tokens_per_step: int = 3072
    learning_rate: float = 2e-3
    warm_up_steps: int = 60
    decay_from: float = 0.4
    ema_decay: float = 0.999
    gradient_norm: float = 1.0

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, plateau, linear decay to zero from `decay_from` of the steps on."""
        warm = (step + 1) / self.warm_up_steps
        left = (self.steps - step) / max(1.0, self.steps * (1 - self.decay_from))
        return self.learning_rate * min(1.0, warm, left)


@dataclass(frozen=True, slots=True)
class Example:
    """One training batch: latents (B, 1, F, H, W), text (B, 4, 64), noise like latents, σ (B,)."""

    latents: Tensor
    text: Tensor
    noise: Tensor
    sigma: Tensor


def _weighted(choices: tuple[tuple[int, int], ...], generator: torch.Generator) -> int:
    weights = torch.tensor([weight for _, weight in choices], dtype=torch.float32)
    return choices[int(torch.multinomial(weights, 1, generator=generator))][0]


def draw_shape(generator: torch.Generator, *, max_frames: int) -> tuple[int, int, int]:
    """Draw frames, height and width."""
    frames = min(max_frames, _weighted(FRAME_WEIGHTS, generator))
    height = _weighted(SIZE_WEIGHTS, generator)
    square = torch.rand((), generator=generator) < SQUARE_PROBABILITY
    return frames, height, height if square else _weighted(SIZE_WEIGHTS, generator)


def _draw_sigma(batch: int, generator: torch.Generator) -> Tensor:
    normal = torch.randn(batch, generator=generator) * LOGIT_DEVIATION + LOGIT_MEAN
    uniform = torch.rand(batch, generator=generator)
    take_uniform = torch.rand(batch, generator=generator) < UNIFORM_PROBABILITY
    return torch.where(take_uniform, uniform, normal.sigmoid())


def _draw_text(clip: digits.Clip, generator: torch.Generator) -> Tensor:
    """Embed the clips' prompts, some without direction and some empty."""
    roll = torch.rand(len(clip.digits), generator=generator)
    empty = roll < NULL_PROMPT_PROBABILITY
    undirected = roll < NULL_PROMPT_PROBABILITY + NULL_DIRECTION_PROBABILITY
    return prompts.embed(
        clip.digits.masked_fill(empty, prompts.NULL_DIGIT),
        clip.directions.masked_fill(undirected, prompts.NULL_DIRECTION),
    )


def draw_example(settings: TrainingSettings, step: int, *, glyphs: digits.Glyphs | None = None) -> Example:
    """Draw the batch of one step; it depends on the seed and the step alone.

    `glyphs` are the clear training glyphs unless others are given.
    """
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    max_frames = ARCHITECTURES[settings.architecture].max_frames
    frames, height, width = draw_shape(generator, max_frames=max_frames)
    tokens = frames * (height // PATCH) * (width // PATCH)
    clip = digits.draw_clips(
        digits.load_clear_glyphs() if glyphs is None else glyphs,
        batch=max(1, settings.tokens_per_step // tokens),
        frames=frames,
        height=height,
        width=width,
        generator=generator,
    )
    return Example(
        latents=clip.pixels,
        text=_draw_text(clip, generator),
        noise=torch.randn(clip.pixels.shape, generator=generator),
        sigma=_draw_sigma(len(clip.digits), generator),
    )


def flow_matching_loss(transformer: Transformer, example: Example) -> Tensor:
    """Mean squared error of the predicted velocity, a scalar."""
    sigma = example.sigma.view(-1, 1, 1, 1, 1)
    noisy = torch.lerp(example.latents, example.noise, sigma)
    timestep = example.sigma * TIMESTEPS
    velocity = predict_velocity(transformer, noisy, timestep=timestep, text=example.text)
    return (velocity - (example.noise - example.latents)).square().mean()


class Training:
    """One run: the transformer, its moving average `ema`, its optimizers and the steps done."""

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self.done = 0
        architecture = ARCHITECTURES[settings.architecture]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.transformer = build_transformer(architecture).train()
        self.ema = build_transformer(architecture).eval().requires_grad_(False)
        self.ema.load_state_dict(self.transformer.state_dict())
        self._optimizers = _optimizers(self.transformer, architecture.block_lists)

    def step(self) -> float:
        """Train one step and return its loss."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = self.settings.learning_rate_at(self.done)
        loss = flow_matching_loss(self.transformer, draw_example(self.settings, self.done))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.transformer.parameters(), self.settings.gradient_norm)
        for optimizer in self._optimizers:
            optimizer.step()
        self._average()
        self.done += 1
        return loss.item()

    @torch.no_grad()
    def _average(self) -> None:
        # Early weights are forgotten quickly: the average spans at most a tenth of the past.
        decay = min(self.settings.ema_decay, (1 + self.done) / (10 + self.done))
        averages, weights = list(self.ema.parameters()), list(self.transformer.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Return everything a later `load_state_dict` needs to go on as if never interrupted."""
        return {
            "settings": asdict(self.settings),
            "done": self.done,
            "transformer": self.transformer.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`.

        Raises:
            ReferenceModelError: it was written by a run with other settings.
        """
        if state["settings"] != asdict(self.settings):
            raise ReferenceModelError(
                f"the checkpoint was written with {state['settings']}, this run has "
                f"{asdict(self.settings)}; repeat the former settings or start elsewhere"
            )
        self.transformer.load_state_dict(state["transformer"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.done = state["done"]


def _optimizers(transformer: Transformer, block_lists: tuple[str, ...]) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the matrices inside the blocks, AdamW for everything else; their learning rates are set each step."""
    if not hasattr(torch.optim, "Muon"):
        raise ReferenceModelError(f"training needs torch 2.9 or later (torch.optim.Muon), found {torch.__version__}")
    prefixes = tuple(f"{name}." for name in block_lists)
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in transformer.named_parameters():
        is_matrix = parameter.ndim == 2 and name.startswith(prefixes)
        (matrices if is_matrix else others).append(parameter)
    return (
        torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=0.0),
    )
