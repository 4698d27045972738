from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from easyteacache.policy.curves import Polynomial
from easyteacache.policy.policy import BucketShare, Policy
from easyteacache.teacache import TeaCache


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def make_policy() -> Callable[..., Policy]:
    """A policy whose predicted distance is the signal distance itself."""

    def make(**changes: Any) -> Policy:
        base: dict[str, Any] = {
            "model_key": "toy",
            "revision": 1,
            "status": "draft",
            "layer": "given",
            "signal": "timestep_projection",
            "curve": Polynomial((1.0, 0.0)),
            "threshold": 0.25,
            "first_skip_step": 1,
            "last_skip_step": None,
            "max_consecutive_skips": None,
            "buckets": (BucketShare(None, None, None, 1.0),),
        }
        return Policy(**{**base, **changes})

    return make


@pytest.fixture
def make_cache(make_policy: Callable[..., Policy]) -> Callable[..., TeaCache]:
    return lambda **changes: TeaCache.from_policy(make_policy(**changes))


@pytest.fixture
def seed_json(tmp_path: Path) -> Callable[..., Path]:
    """A file exactly as the original project writes it: ``json.dump(..., indent=4)`` of its four fields."""

    def write(fits: dict[int, Sequence[float]], keys: Sequence[str] = ("mymodel", "function"), size: int = 200) -> Path:
        node: dict[str, Any] = {
            str(length): {
                "meta_data": {
                    "complexity": len(coefficients) - 1,
                    "coefficients": list(coefficients),
                    "fit_length": length,
                    "calibration_size": size,
                }
            }
            for length, coefficients in fits.items()
        }
        for key in reversed(keys):
            node = {key: node}
        path = tmp_path / "cache.json"
        path.write_text(json.dumps(node, indent=4))
        return path

    return write


def signal_at(size: float, *, shape: tuple[int, ...] = (1, 6, 4), dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A signal whose relative L1 distance to ``signal_at(other)`` is |size − other| / other."""
    return torch.full(shape, size, dtype=dtype)


@pytest.fixture
def drive() -> Callable[..., list[bool]]:
    """Runs a cache over signals as a transformer would, and gives what was reused.

    The block stack adds ``residual(step)`` to its input; a reused step is checked for nothing but its shape.
    """

    def run(
        cache: TeaCache,
        signals: Sequence[torch.Tensor],
        *,
        start: int = 0,
        residual: Callable[[int], float] = lambda step: float(step + 1),
        hidden: torch.Tensor | None = None,
        **arguments: Any,
    ) -> list[bool]:
        latent = torch.zeros(1, 8, 4) if hidden is None else hidden
        reused = []
        for step, signal in enumerate(signals, start):
            skip = cache.check(step, signal, **arguments)
            branch = {"branch": arguments["branch"]} if "branch" in arguments else {}
            if skip:
                assert cache.update(signal, latent, **branch).shape == latent.shape
            else:
                cache.store_truth(step, signal, latent, latent + residual(step), **branch)
            reused.append(skip)
        return reused

    return run


@pytest.fixture
def signal() -> Callable[..., torch.Tensor]:
    return signal_at
