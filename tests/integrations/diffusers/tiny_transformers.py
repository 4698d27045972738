"""A tiny randomly initialised instance of every covered transformer class, and the arguments of its forwards."""

from __future__ import annotations

import contextlib
from typing import Any

import diffusers
import tiny_image
import tiny_joined
import tiny_video
import torch
from tiny_case import Arguments, Case

from easyteacache.integrations.diffusers import Adapter, adapters

CASES: dict[str, Case] = {**tiny_image.CASES, **tiny_joined.CASES, **tiny_video.CASES}


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


def arguments(name: str, step: int, branch: str, *, steps: int = 8) -> Arguments:
    """Everything a forward of class ``name`` takes at ``step``."""
    case = CASES[name]
    return {**case.inputs(step, branch), adapter_named(name).timestep: case.time(1 - step / steps)}


def adapter_named(name: str) -> Adapter:
    """The adapter of class ``name``."""
    return next(adapter for adapter in adapters() if adapter.transformer == name)


def flat(output: Any) -> torch.Tensor:
    """Everything a transformer returned, as one vector."""
    if isinstance(output, torch.Tensor):
        return output.flatten().double()
    values = output.values() if hasattr(output, "values") else output
    return torch.cat([flat(value) for value in values if value is not None])


@torch.no_grad()
def run(model: Any, name: str, *, branches=("cond", "uncond"), contexts: bool = True, steps: int = 5) -> torch.Tensor:
    """All outputs of one run; the branches in turn at every step."""
    outputs = []
    for step in range(steps):
        for branch in branches:
            context = (
                model.cache_context(branch)
                if contexts and hasattr(model, "cache_context")
                else contextlib.nullcontext()
            )
            with context:
                outputs.append(flat(model(**arguments(name, step, branch))))
    return torch.stack(outputs)
