"""Is the node pack loaded, which record held, and what was reused in the last run: for ``easyteacache doctor`` and for people."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyteacache.errors import InvalidCalibration
from easyteacache.files import atomic_write, regular_files, strict_json
from easyteacache.integrations.comfyui.install import FOLDER
from easyteacache.integrations.comfyui.report import RunReport
from easyteacache.registry.registry import home

MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class ComfyStatus:
    """What can be said of the node pack from outside.

    Attributes:
        installed: the folder of the node pack in ComfyUI; None where it is not there, or nobody said where ComfyUI is.
        last: the last run of any ComfyUI on this machine, as ``RunReport.content``; None where there was none.
    """

    installed: Path | None
    last: dict[str, Any] | None

    @property
    def text(self) -> str:
        """A few lines for people."""
        lines = [f"node pack: {'not found' if self.installed is None else self.installed}"]
        if self.last is None:
            return "\n".join([*lines, "no run yet"])
        lines.append(f"last run: {self.last.get('sampler')}")
        refusal, record = self.last.get("refusal"), self.last.get("record")
        lines.append(f"record: {record or 'none'}")
        lines.append(f"computed in full: {refusal}" if refusal else f"evidence: {self.last.get('evidence') or 'none'}")
        patterns = self.last.get("pattern")
        lines.extend(f"{name}: {pattern}" for name, pattern in (patterns if isinstance(patterns, dict) else {}).items())
        return "\n".join(lines)


def status(comfyui: str | os.PathLike[str] | None = None) -> ComfyStatus:
    """The status of the node pack.

    Args:
        comfyui: ComfyUI's folder; None: only the last run can be told.
    """
    folder = None if comfyui is None else Path(comfyui) / "custom_nodes" / FOLDER
    return ComfyStatus(folder if folder is not None and (folder / "__init__.py").is_file() else None, _last())


def write(report: RunReport) -> None:
    """Remember the last run; a folder that cannot be written is no reason to lose a picture."""
    text = json.dumps(report.content(), ensure_ascii=False, indent=1)
    with contextlib.suppress(OSError, InvalidCalibration):
        atomic_write.write_bytes(_file(), text.encode(), durable=False)


def _file() -> Path:
    return home() / "engines" / "comfyui.json"


def _last() -> dict[str, Any] | None:
    try:
        found = strict_json.parse(regular_files.read_bytes(_file(), max_bytes=MAX_BYTES), max_bytes=MAX_BYTES)
    except (OSError, strict_json.JSONTextError, InvalidCalibration):
        return None
    return found if isinstance(found, dict) else None
