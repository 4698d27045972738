"""Registry folders, homes and programs for the tests of the hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from easyteacache.cli.hub import main as hub
from easyteacache.hub.store import Store
from easyteacache.records.calibration import Calibration, save
from easyteacache.registry import index

from .fault_proxy import FaultProxy, fault_proxy
from .hub_process import HubProcess
from .solved import Solved, solve_small

Program = Callable[..., Result]
Pull = Callable[..., Any]


def build_record(key: str = "tiny/video", **changes: Any) -> Calibration:
    """A draft with one bucket, fitted on x in [0.1, 0.5]; ``changes`` are of the newest version of the format.

    ``schema_version`` among them makes it, changes and all, one of that version.
    """
    bucket = {
        "sequence_length": 100,
        "num_steps": 20,
        "shift": 3.0,
        "coefficients": [2.0, 0.0],
        "domain": [0.1, 0.5],
        "operating_points": [
            {
                "threshold": 0.1,
                "computed_steps": 14,
                "speedup": 1.42857,
                "error": {"mean": 0.02},
                "evidence": "replayed",
            },
            {"threshold": 0.3, "computed_steps": 8, "speedup": 2.5, "error": {"mean": 0.08}, "evidence": "replayed"},
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
        "buckets": [bucket],
        "provenance": {"license": "CC0-1.0", "author": "A tester"},
    }
    if "schema_version" in changes:
        return Calibration.from_mapping(content | changes)
    return Calibration.from_mapping(json.loads(Calibration.from_mapping(content).to_json()) | changes)


def build_folder(folder: Path, *records: Calibration) -> Path:
    """A registry folder of ``records`` with its index."""
    for record in records:
        save(record, folder / f"{record.model_key}.json")
    folder.mkdir(parents=True, exist_ok=True)
    index.write(folder, index.build(folder))
    return folder


#: What `upstream` publishes.
BASE = [build_record(), build_record("tiny/other"), build_record("far/image", title="Far")]


def states(result: Any) -> dict[str, str]:
    """Key → what a pull with ``--json`` says became of it."""
    return {one["key"]: one["state"] for one in json.loads(result.stdout)["pulls"][0]["records"]}


def pulled_keys() -> list[str]:
    """What the pulled layer holds."""
    return sorted(Store().current().index.records)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the layers, the lock file, the downloads, the terminal or the tokens of the machine it runs on."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    for name in (
        "EASYTEACACHE_REGISTRY",
        "EASYTEACACHE_LOCK",
        "EASYTEACACHE_TRACEBACK",
        "NO_COLOR",
        "COLUMNS",
        "HF_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run_hub() -> Program:
    """``run_hub("verify", folder)`` runs `easyteacache-hub verify FOLDER` in this process."""
    return lambda *arguments, **options: CliRunner().invoke(hub, [*map(str, arguments)], **options)


@pytest.fixture(scope="session")
def hub_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub that all tests of this process share; each makes repositories of its own."""
    server = HubProcess(tmp_path_factory.mktemp("hub")).start()
    yield server
    server.stop()


@pytest.fixture
def repository(hub_process: HubProcess) -> str:
    """A new, empty repository."""
    return hub_process.new_repository()


@pytest.fixture
def upstream(tmp_path: Path, hub_process: HubProcess, repository: str) -> Path:
    """The folder that was published as ``repository``."""
    folder = build_folder(tmp_path / "upstream", *BASE)
    hub_process.publish(repository, folder)
    return folder


@pytest.fixture
def pull(run_hub: Program, hub_process: HubProcess, repository: str, monkeypatch: pytest.MonkeyPatch) -> Pull:
    """`easyteacache-hub pull` from ``repository``."""
    monkeypatch.setenv("EASYTEACACHE_REPOSITORY", repository)
    return lambda *arguments: run_hub("pull", *arguments, "--endpoint", hub_process.endpoint)


@pytest.fixture(scope="session")
def solved(shared: Callable[[str, Callable[[Path], None]], Path]) -> Solved:
    """A validated calibration with its traces."""
    return Solved.in_folder(shared("validated", solve_small))


@pytest.fixture
def proxy(hub_process: HubProcess) -> Iterator[FaultProxy]:
    """A way to the hub on which requests can be made to fail."""
    with fault_proxy(hub_process.endpoint) as found:
        yield found
