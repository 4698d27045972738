"""The models of the law study, behind one function: run a sampler over them, uncached or by a plan.

Every model is sampled in a batch of several seeds, both guidance branches in one forward. A plan fills reused steps by extending the guided
output linearly over the step index, through the last two computed outputs: the same as extending both branches' outputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scenes
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanTransformer3DModel
from numpy.typing import NDArray
from torch import Tensor

from easyteacache.reference import load_pipeline, prompts
from easyteacache.reference.architectures import predict_velocity
from easyteacache.reference.saved import load_saved

Array = NDArray[np.float64]
Velocity = Callable[[Tensor, Tensor], Tensor]
PATCH_AREA = 4


@dataclass(frozen=True)
class Setting:
    """One way to sample: model, size in frames × pixels, shift, steps, sampler (``euler`` or ``unipc``) and guidance scale."""

    model: str
    frames: int
    pixels: int
    shift: float
    steps: int = 50
    sampler: str = "euler"
    guidance: float = 3.0

    @property
    def tokens(self) -> int:
        """Tokens entering the blocks."""
        return self.frames * self.pixels * self.pixels // PATCH_AREA

    @property
    def name(self) -> str:
        """A file name."""
        return (
            f"{self.model}-{self.frames}x{self.pixels}-s{self.shift:g}-n{self.steps}-{self.sampler}-g{self.guidance:g}"
        )


@dataclass(frozen=True)
class Sampled:
    """What a run gave.

    Attributes:
        final: (B, …) samples in about [-1, 1].
        outputs: (S, B, …) guided outputs where they were asked for.
        levels: (S + 1,) noise levels.
    """

    final: Tensor
    outputs: Tensor | None
    levels: Array


class Models:
    """Loads each model once.

    Args:
        folder: holds ``flux`` and ``scenes`` as their training tools export them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @functools.cache  # noqa: B019
    def _transformer(self, name: str) -> Any:
        if name == "digits":
            return load_pipeline().transformer
        if name == "flux":
            return load_saved(self._folder / "flux").transformer
        return WanTransformer3DModel.from_pretrained(self._folder / "scenes" / "transformer").eval()

    def velocity(self, setting: Setting, seeds: Sequence[int]) -> Velocity:
        """(state, timestep) → guided velocity for the prompts that belong to ``seeds``."""
        transformer = self._transformer(setting.model)
        if setting.model == "scenes":
            drawn = [scenes.draw(1, 8, np.random.default_rng((7, seed))).prompts for seed in seeds]
            wanted = torch.cat(drawn)
            text = torch.cat((scenes.embed(wanted), scenes.embed(torch.full_like(wanted, scenes.NULL))))
        else:
            asked = [prompts.Prompt(seed % 10, (seed // 10) % 8) for seed in seeds]
            text = torch.cat((prompts.embed_prompts(asked), prompts.embed_null(len(asked))))

        def guided(state: Tensor, timestep: Tensor) -> Tensor:
            both = torch.cat((state, state))
            velocity = predict_velocity(transformer, both, timestep=timestep.expand(len(both)), text=text)
            cond, uncond = velocity.chunk(2)
            return uncond + setting.guidance * (cond - uncond)

        return guided


def scheduler_of(setting: Setting) -> Any:
    """A fresh scheduler with its steps set."""
    if setting.sampler == "euler":
        scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=setting.shift)
    else:
        scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=setting.shift
        )
    scheduler.set_timesteps(setting.steps)
    return scheduler


def noise_of(setting: Setting, seeds: Sequence[int]) -> Tensor:
    """(B, C, F, H, W) initial noise, one seed a sample."""
    channels = scenes.CHANNELS if setting.model == "scenes" else 1
    shape = (channels, setting.frames, setting.pixels, setting.pixels)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(5_000 + seed)) for seed in seeds])


@torch.no_grad()
def sample(
    models: Models,
    setting: Setting,
    seeds: Sequence[int],
    *,
    plan: Sequence[int] | None = None,
    fill: str = "linear",
    keep: bool = False,
    disturb: tuple[int, Tensor] | None = None,
) -> Sampled:
    """Run the sampler.

    Args:
        plan: computed steps; None computes all.
        fill: ``linear`` or ``hold``.
        keep: keep every guided output.
        disturb: (step, change of the state before it).
    """
    velocity, scheduler = models.velocity(setting, seeds), scheduler_of(setting)
    state, outputs, known = noise_of(setting, seeds), [], list[tuple[int, Tensor]]()
    computed = set(range(setting.steps) if plan is None else plan)
    for step, timestep in enumerate(scheduler.timesteps):
        if disturb is not None and disturb[0] == step:
            state = state + disturb[1]
        if step in computed:
            output = velocity(state, timestep)
            known = [*known[-1:], (step, output)]
        else:
            output = _filled(known, step, fill)
        if keep:
            outputs.append(output)
        state = scheduler.step(output, timestep, state, return_dict=False)[0]
    levels = scheduler.sigmas.double().numpy()
    return Sampled(state, torch.stack(outputs) if keep else None, levels)


def _filled(known: Sequence[tuple[int, Tensor]], step: int, fill: str) -> Tensor:
    latest, output = known[-1]
    if fill == "hold" or len(known) < 2:
        return output
    before, earlier = known[0]
    return output + (output - earlier) * ((step - latest) / (latest - before))


def gram(outputs: Tensor) -> Array:
    """(B, S, S) inner products of the outputs of every run, divided by the elements of a sample."""
    flat = outputs.transpose(0, 1).flatten(2).double()
    return np.asarray((flat @ flat.transpose(1, 2) / flat.shape[-1]).numpy())


def decibels(final: Tensor, exact: Tensor) -> Array:
    """PSNR of every sample against the uncached one, clamped to [-1, 1], (B,); at most 100 dB."""
    error = (final.clamp(-1, 1) - exact.clamp(-1, 1)).flatten(1).double().square().mean(dim=1)
    return np.asarray((10.0 * torch.log10(4.0 / error.clamp_min(4e-10))).numpy())
