"""Traces with smooth residuals, made without a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from easyteacache.records.trace_set import Trace, TraceHeader

MakeTrace = Callable[..., Trace]


def smooth_rows(steps: int, size: int, seed: int) -> np.ndarray:
    """(steps, size) residuals that move along a random cubic."""
    t = np.linspace(0.0, 1.0, steps)
    return np.stack([t**k for k in range(4)], axis=1) @ np.random.default_rng(seed).normal(size=(4, size))


def build_trace(
    seed: int = 0, *, steps: int = 8, branches: tuple[str, ...] = ("cond", "uncond"), **fields: Any
) -> Trace:
    random = np.random.default_rng(seed)
    signals = ("timestep_projection", "modulated_input")
    header = {"model_key": "reference/moving-digits", "sequence_length": 64, "shift": 3.0, "prompt": "7", "seed": seed}
    grams = {}
    for position, name in enumerate((*branches, "guided", "output:guided")):
        rows = smooth_rows(steps, 40, 100 * seed + position)
        grams[name] = rows @ rows.T
    return Trace(
        header=TraceHeader(**{**header, **fields}, signals=signals, branches=branches, num_steps=steps),
        timesteps=np.linspace(1000.0, 20.0, steps),
        sigmas=np.linspace(1.0, 0.0, steps + 1),
        signal_distances={s: {b: random.random(steps - 1) for b in branches} for s in signals},
        output_distances={b: random.random(steps - 1) for b in branches},
        residual_distances={b: random.random(steps - 1) for b in branches},
        grams={name: (gram + gram.T) / 2 for name, gram in grams.items()},
    )


@pytest.fixture
def make_trace() -> MakeTrace:
    return build_trace
