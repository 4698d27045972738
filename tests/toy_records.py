from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyteacache.files import atomic_write
from easyteacache.records import model_key
from easyteacache.records.calibration import Calibration
from easyteacache.registry import index

TRACE = {"file": "runs.safetensors", "sha256": "0" * 64, "runs": 4}
SOURCE = {"repository": "owner/name", "path": "code.py"}


def bucket_of(length: int | None = 1024, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "sequence_length": length,
        "num_steps": 50,
        "coefficients": [1.0, 0.0],
        "domain": [0.0, 1.0],
        "operating_points": [{"threshold": 0.1, "speedup": 1.5, "evidence": "replayed"}],
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


@pytest.fixture(scope="session")
def bucket() -> Callable[..., dict[str, Any]]:
    return bucket_of


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Calibration]:
    """A record that was fitted here; ``status="published"`` makes it one that was taken from literature."""

    def make(
        *buckets: dict[str, Any], key: str = "toy/model", status: str = "validated", **changes: Any
    ) -> Calibration:
        content: dict[str, Any] = {
            "schema_version": 2,
            "model_key": key,
            "revision": 1,
            "status": status,
            "title": "Toy",
            "modality": "image",
            "method": "teacache",
            "signal": "timestep_projection",
            "buckets": list(buckets) or [bucket_of()],
            "provenance": {"sources": [SOURCE]} if status == "published" else {"traces": [TRACE]},
        }
        if status in ("deprecated", "yanked"):
            content["retirement"] = {"date": "2026-01-02", "reason": "It was fitted to another signal."}
        return Calibration.from_mapping({**content, **changes})

    return make


@pytest.fixture(scope="session")
def file_record() -> Callable[..., Path]:
    """Puts a record where its key says, below a registry folder, without touching the index."""

    def put(folder: Path, record: Calibration) -> Path:
        path = folder / model_key.path_of(record.model_key)
        atomic_write.write_text(path, record.to_json())
        return path

    return put


@pytest.fixture
def registry_folder(tmp_path: Path, make_record: Any, file_record: Any) -> Path:
    """Three records with aliases, indexed."""
    folder = tmp_path / "registry"
    own = {"kind": "hub_repository", "value": "Toy-AI/Toy-Model"}
    borrowed = {"kind": "hub_repository", "value": "Toy-AI/Other", "borrowed": True}
    shared = {"kind": "hub_repository", "value": "Toy-AI/Shared"}
    file_record(folder, make_record(key="toy/model", aliases=[own, borrowed, shared]))
    file_record(folder, make_record(key="toy/model/part", aliases=[shared]))
    file_record(folder, make_record(key="single"))
    index.write(folder, index.build(folder))
    return folder
