"""Records made for these tests, and both programs run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from easyteacache.cli.main import main as program
from easyteacache.records.calibration import Calibration, save
from easyteacache.registry.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))


def make(key: str, **changes: Any) -> Calibration:
    """A draft for 20 steps whose p is 0.4·x + 0.01 on [0.1, 0.5]; ``bucket`` changes the bucket."""
    bucket = {
        "sequence_length": 400,
        "num_steps": 20,
        "shift": 3.0,
        "min_skip_step": 1,
        "max_skip_step": 18,
        "coefficients": [0.4, 0.01],
        "domain": [0.1, 0.5],
        "operating_points": [{"threshold": 0.3, "speedup": 2.0, "evidence": "replayed"}],
    } | changes.pop("bucket", {})
    content = {
        "schema_version": 2,
        "model_key": key,
        "revision": 3,
        "status": "draft",
        "title": "Made for tests",
        "modality": "image",
        "method": "teacache",
        "signal": "modulated_input",
        "buckets": [{name: value for name, value in bucket.items() if value is not None}],
        "provenance": {"license": "Apache-2.0"},
    }
    return Calibration.from_mapping(content | changes)


@pytest.fixture(scope="session")
def bundled() -> Registry:
    """The published records."""
    return Registry.from_folder(ROOT / "registry")


@pytest.fixture
def record() -> Callable[..., Calibration]:
    """``record("any/key", signal=…, bucket={…})``: a small draft with the given fields changed."""
    return make


@pytest.fixture
def make_registry(tmp_path: Path) -> Callable[..., Registry]:
    """``make_registry(record, …)``: a registry of these records alone."""

    def build(*records: Calibration) -> Registry:
        for each in records:
            save(each, tmp_path / "registry" / f"{each.model_key}.json")
        return Registry.from_folder(tmp_path / "registry")

    return build


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``run("export", …)`` runs `easyteacache export …` in this process, with the bundled registry alone."""
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EASYTEACACHE_REGISTRY", raising=False)
    return lambda *arguments: CliRunner().invoke(program, [*map(str, arguments)])
