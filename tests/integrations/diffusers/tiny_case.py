"""How a tiny transformer and its forwards are described."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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


def noise(*shape: int, seed: int) -> torch.Tensor:
    """Normal numbers, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def text(branch: str, *shape: int) -> torch.Tensor:
    """Conditioning of one branch: the same tensor values at every step."""
    return noise(*shape, seed=1000 + sum(map(ord, branch)))


def latent(step: int, *shape: int) -> torch.Tensor:
    """A latent that drifts smoothly over the steps."""
    return noise(*shape, seed=1) * (1 - 0.05 * step) + 0.05 * step * noise(*shape, seed=2)
