"""Plans known before step 0: distances of a signal that follows from the sampler's timesteps alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from easyteacache.integrations.diffusers.models.adapter import Adapter
from easyteacache.integrations.diffusers.models.signals import SEED_SIGNAL
from easyteacache.integrations.diffusers.step_tracker import Clock
from easyteacache.records.calibration import TIMESTEP_SIGNALS

if TYPE_CHECKING:
    from torch import nn


def of_timestep(signal: str) -> bool:
    """Does the signal follow from the noise level alone?"""
    return signal == SEED_SIGNAL or signal in TIMESTEP_SIGNALS


def plannable(adapter: Adapter, signal: str, clock: Clock, timestep: torch.Tensor | None) -> bool:
    """Can every distance of this run be known from its timesteps?

    A timestep per token (image-to-video with a clean first frame) follows from more than the sampler's list.
    """
    name = "timestep_projection" if signal == SEED_SIGNAL else signal
    return name in adapter.embeds and timestep is not None and timestep.ndim <= 1 and clock.timesteps() is not None


@torch.no_grad()
def distances(
    adapter: Adapter, transformer: nn.Module, signal: str, clock: Clock, arguments: Mapping[str, Any]
) -> list[float]:
    """Signal distance of each step to the one before, from the second step on; empty where it cannot be known.

    The device is waited for once. The sums are float32, as ``relative_l1``'s are.
    """
    timestep = arguments.get(adapter.timestep)
    if not plannable(adapter, signal, clock, timestep):
        return []
    assert isinstance(timestep, torch.Tensor)
    times = clock.timesteps()
    assert times is not None
    weight = next(transformer.parameters())
    if weight.device != timestep.device:
        # Weights rest elsewhere between forwards (offloading): the signal is measured instead.
        return []
    embed = adapter.embeds["timestep_projection" if signal == SEED_SIGNAL else signal]
    values = embed(transformer, times.to(device=timestep.device, dtype=timestep.dtype), arguments).flatten(1)
    values = values if values.dtype == torch.float64 else values.float()
    change, size = (values[1:] - values[:-1]).abs().sum(1), values[:-1].abs().sum(1)
    return (change / size).tolist()  # type: ignore[no-any-return]
