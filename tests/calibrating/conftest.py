"""A machine's home of one's own, and pipelines that generate in a blink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from easyteacache.reference import MovingDigitsPipeline, load_pipeline

from ..smooth_traces import make_trace
from ..toy_records import bucket, make_record

__all__ = ["bucket", "make_record", "make_trace"]

STEPS = 8
Generate = Callable[..., torch.Tensor]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the layers of the machine it runs on."""
    for name in ("EASYTEACACHE_REGISTRY", "EASYTEACACHE_LOCK", "EASYTEACACHE_CALIBRATE", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pipe() -> MovingDigitsPipeline:
    """The reference model."""
    found = load_pipeline()
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture
def generate(pipe: MovingDigitsPipeline) -> Generate:
    """``generate(seed)`` samples one small picture, as latents; keyword arguments are the pipeline's."""

    def run(seed: int, **changes: Any) -> torch.Tensor:
        usual = {"num_frames": 1, "num_inference_steps": STEPS, "seeds": [seed], "output_type": "latent"}
        return pipe(f"{seed % 10} down", **usual | changes).frames

    return run


def error_of(found: torch.Tensor, full: torch.Tensor, noise: torch.Tensor) -> float:
    """‖found − full‖ as a share of how far the sampler moved the noise."""
    return float((found - full).norm() / (full - noise).norm())
