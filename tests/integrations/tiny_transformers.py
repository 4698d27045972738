"""A tiny randomly initialised instance of every covered transformer class, and the arguments of its forwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One class: how to build it, and what a forward at one step takes.

    Attributes:
        config: of the class; small.
        inputs: arguments of a forward from ``(step, branch)``, without the timestep; equal for equal arguments.
        time: the timestep argument from a noise level in (0, 1].
        signals: the signals the class offers besides ``hidden_states`` and ``first_block_residual``.
        tokens: sequence length of its generated stream.
    """

    config: Arguments
    inputs: Callable[[int, str], Arguments]
    time: Callable[[float], torch.Tensor] = lambda sigma: torch.tensor([1000.0 * sigma])
    tokens: int = 16
    prepare: Callable[[Any], None] = field(default=lambda model: None)


def build(name: str) -> Any:
    """The tiny instance of class ``name``; the same weights every time."""
    case = CASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(diffusers, name)(**case.config).eval().requires_grad_(False)
        _spread(model)
        case.prepare(model)
        return model


def _spread(model: torch.nn.Module) -> None:
    # Some classes start with zeroed gates, with which blocks would do nothing.
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data.normal_(std=0.05)


def noise(*shape: int, seed: int) -> torch.Tensor:
    """Normal numbers, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def text(branch: str, *shape: int) -> torch.Tensor:
    """Conditioning of one branch: the same tensor values at every step."""
    return noise(*shape, seed=1000 + sum(map(ord, branch)))


def latent(step: int, *shape: int) -> torch.Tensor:
    """A latent that drifts smoothly over the steps."""
    return noise(*shape, seed=1) * (1 - 0.05 * step) + 0.05 * step * noise(*shape, seed=2)


def arguments(name: str, step: int, branch: str, *, steps: int = 8) -> Arguments:
    """Everything a forward of class ``name`` takes at ``step``."""
    case = CASES[name]
    from easyteacache.integrations.diffusers import adapters

    [adapter] = [adapter for adapter in adapters() if adapter.transformer == name]
    return {**case.inputs(step, branch), adapter.timestep: case.time(1 - step / steps)}


CASES: dict[str, Case] = {
    "FluxTransformer2DModel": Case(
        {
            "in_channels": 4,
            "num_layers": 2,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 8,
            "pooled_projection_dim": 8,
            "axes_dims_rope": (4, 4, 8),
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 16, 4),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "pooled_projections": text(branch, 1, 8),
            "txt_ids": torch.zeros(5, 3),
            "img_ids": torch.zeros(16, 3),
        },
        time=lambda sigma: torch.tensor([sigma]),
    ),
    "WanTransformer3DModel": Case(
        {
            "patch_size": (1, 2, 2),
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "in_channels": 4,
            "out_channels": 4,
            "text_dim": 8,
            "freq_dim": 16,
            "ffn_dim": 32,
            "num_layers": 3,
            "rope_max_seq_len": 32,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 1, 8, 8),
            "encoder_hidden_states": text(branch, 1, 5, 8),
        },
    ),
}
