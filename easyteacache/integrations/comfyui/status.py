"""Is the node pack loaded, which record held, and what was reused in the last run: for ``easyteacache doctor`` and for people."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyteacache.integrations import last_run
from easyteacache.integrations.comfyui.install import FOLDER
from easyteacache.integrations.comfyui.report import RunReport


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
    return ComfyStatus(
        folder if folder is not None and (folder / "__init__.py").is_file() else None, last_run.read("comfyui")
    )


def write(report: RunReport) -> None:
    """Remember the last run."""
    last_run.write("comfyui", report.content())
