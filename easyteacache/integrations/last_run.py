"""What the last run in another engine did: one small file an engine, for whoever asks from outside its process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easyteacache.errors import InvalidCalibration
from easyteacache.files import atomic_write, regular_files, strict_json
from easyteacache.registry.registry import home

MAX_BYTES = 1024 * 1024


def write(engine: str, content: Mapping[str, Any]) -> None:
    """Remember a run; a folder that cannot be written is no reason to lose a sample."""
    text = json.dumps(content, ensure_ascii=False, indent=1)
    with contextlib.suppress(OSError, InvalidCalibration):
        atomic_write.write_bytes(_file(engine), text.encode(), durable=False)


def read(engine: str) -> dict[str, Any] | None:
    """The last run of an engine on this machine; None where there was none, or its file is damaged."""
    try:
        found = strict_json.parse(regular_files.read_bytes(_file(engine), max_bytes=MAX_BYTES), max_bytes=MAX_BYTES)
    except (OSError, strict_json.JSONTextError, InvalidCalibration):
        return None
    return found if isinstance(found, dict) else None


def _file(engine: str) -> Path:
    return home() / "engines" / f"{engine}.json"
