"""Samples made without a model, and a calibration of the reference model that is good enough to run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from easyteacache.demo.sampling import CACHED, FEWER, KEY, UNCACHED, Run, Sample
from easyteacache.records.calibration import Calibration, save

MakeSamples = Callable[..., list[Sample]]


def make_sample(
    number: int, *, frames: int = 3, size: tuple[int, int] = (16, 16), change: float = 0.1, pattern: str = "█·█·"
) -> Sample:
    height, width = size
    video = np.random.default_rng(number).random((frames, height, width, 1)).astype(np.float32) * 0.5
    patterns = {"cond": pattern, "uncond": pattern}
    computed = pattern.count("█")
    runs = {
        UNCACHED: Run(UNCACHED, video, 2.0, len(pattern), len(pattern), {}),
        CACHED: Run(CACHED, video + np.float32(change), 1.0, len(pattern), computed, patterns),
        FEWER: Run(FEWER, video + np.float32(2 * change), 0.8, computed, computed, {}),
    }
    return Sample(f"{number % 10} right", number, runs)


@pytest.fixture
def make_samples() -> MakeSamples:
    """``make_samples(2, change=0.1)``: samples whose cached run is brighter than the uncached one by ``change``."""
    return lambda count, **options: [make_sample(number, **options) for number in range(count)]


@pytest.fixture
def reference_registry(tmp_path: Path) -> Path:
    """A registry with the reference model's key: y = x, three thresholds; drafted for tests."""
    points = [
        {"threshold": threshold, "speedup": speedup, "evidence": "replayed", "forecaster": "linear"}
        for threshold, speedup in ((0.1, 1.2), (0.4, 2.0), (2.0, 4.0))
    ]
    bucket = {
        "sequence_length": 64,
        "num_steps": 8,
        "coefficients": [1.0, 0.0],
        "domain": [0.0, 4.0],
        "operating_points": points,
    }
    content = {
        "schema_version": 2,
        "model_key": KEY,
        "revision": 1,
        "status": "draft",
        "title": "Moving digits",
        "modality": "video",
        "method": "teacache",
        "signal": "timestep_projection",
        "buckets": [bucket],
        "provenance": {},
    }
    save(Calibration.from_mapping(content), tmp_path / "registry" / f"{KEY}.json")
    return tmp_path / "registry"
