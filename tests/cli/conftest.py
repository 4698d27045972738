"""A registry of two small records in two layers, and programs run in this process."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from easyteacache.cli.hub import main as hub
from easyteacache.cli.main import main as program
from easyteacache.records.calibration import Calibration, save

from ..smooth_runs import _make_set
from ..smooth_traces import make_trace

__all__ = ["_make_set", "make_trace"]

KEY = "tiny/video"

Program = Callable[..., Result]


def record(key: str = KEY, **changes: Any) -> Calibration:
    """A draft with two buckets at 100 and 400 tokens, fitted on x in [0.1, 0.5]."""
    bucket = {
        "num_steps": 20,
        "shift": 3.0,
        "min_skip_step": 2,
        "max_skip_step": 18,
        "coefficients": [2.0, 0.0],
        "domain": [0.1, 0.5],
        "operating_points": [
            {"threshold": 0.1, "speedup": 1.5, "error": {"mean": 0.02}, "evidence": "replayed", "forecaster": "linear"},
            {"threshold": 0.3, "speedup": 2.5, "error": {"mean": 0.08}, "evidence": "replayed", "forecaster": "linear"},
        ],
    }
    content = {
        "schema_version": 2,
        "model_key": key,
        "revision": 1,
        "status": "draft",
        "title": "A tiny video model",
        "modality": "video",
        "method": "teacache",
        "signal": "timestep_projection",
        "aliases": [{"kind": "hub_repository", "value": "Tiny/Video-Model"}] if key == KEY else [],
        "buckets": [bucket | {"sequence_length": 100}, bucket | {"sequence_length": 400, "coefficients": [4.0, 0.0]}],
        "provenance": {"license": "Apache-2.0"},
        "notes": ["Made for tests."],
    }
    return Calibration.from_mapping(content | changes)


@pytest.fixture
def registry_folder(tmp_path: Path) -> Path:
    """A folder with ``tiny/video`` and the published-looking ``other/image``."""
    folder = tmp_path / "registry"
    save(record(), folder / "tiny" / "video.json")
    other = record("other/image", title="Another model", signal="modulated_input", modality="image")
    save(other, folder / "other" / "image.json")
    return folder


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the layers or the terminal of the machine it runs on."""
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    for name in ("EASYTEACACHE_REGISTRY", "EASYTEACACHE_TRACEBACK", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run_hub() -> Program:
    """``run_hub("list", "--json")`` runs `easyteacache-hub list --json` in this process."""
    return lambda *arguments, **options: CliRunner().invoke(hub, [*map(str, arguments)], **options)


@pytest.fixture
def run_program() -> Program:
    """The same for `easyteacache`."""
    return lambda *arguments, **options: CliRunner().invoke(program, [*map(str, arguments)], **options)


@pytest.fixture
def make_record() -> Callable[..., Calibration]:
    """``make_record("tiny/video", status="draft", …)``: a small record with the given fields changed."""
    return record


@pytest.fixture
def read_json() -> Callable[[Result], Any]:
    """The JSON that a successful command printed."""

    def read(result: Result) -> Any:
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return read


@pytest.fixture
def documented_keys() -> Callable[[click.Command], set[str]]:
    """Every word of the JSON paragraph in a command's help."""

    def words(command: click.Command) -> set[str]:
        _, _, text = inspect.cleandoc(command.help or "").partition("JSON:")
        return set(re.findall(r"[a-z_]+[a-z0-9]", text)) | set(re.findall(r"\b[xy]\b", text))

    return words
