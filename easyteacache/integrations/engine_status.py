"""Is this package at work inside an engine on this machine: is it loaded there, which record held, what was reused in the last request."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from easyteacache.integrations import last_run
from easyteacache.integrations.comfyui import status as comfyui
from easyteacache.integrations.sglang.plugin import MODEL

#: Entry point groups of the engines that load plug-ins by them.
GROUPS = {"sglang": "sglang.multimodal_gen.plugins", "vllm-omni": "vllm_omni.general_plugins"}
ENGINES = ("comfyui", *GROUPS)


@dataclass(frozen=True)
class EngineStatus:
    """What can be said of one engine from outside.

    Attributes:
        engine: its name.
        loaded: whether it would load the plug-in when it starts here; None where that cannot be told.
        why: how that is known, or what is missing, a sentence.
        last: the last request: ``record``, ``evidence``, ``refusal``, ``warnings``, ``pattern`` (branch → one character a step, ``█`` computed,
            ``·`` reused), ``speedup``; None where there was none.
    """

    engine: str
    loaded: bool | None
    why: str
    last: dict[str, Any] | None


def engine_status(engine: str, folder: str | os.PathLike[str] | None = None) -> EngineStatus:
    """The status of an engine of ``ENGINES``.

    Args:
        engine: its name.
        folder: where ComfyUI lies; the others are asked for by this Python environment.

    Raises:
        ValueError: an engine that has no plug-in here.
    """
    if engine not in ENGINES:
        raise ValueError(f"{engine!r} has no plug-in here: expected one of {', '.join(ENGINES)}")
    last = last_run.read(engine)
    if engine == "comfyui":
        found = comfyui.status(folder)
        if folder is None:
            return EngineStatus(engine, None, "Nobody said which folder ComfyUI lies in.", last)
        where = "The node pack lies in" if found.installed else "There is no node pack of this package in"
        return EngineStatus(engine, found.installed is not None, f"{where} {found.installed or folder}.", last)
    group = GROUPS[engine]
    if not any(each.value.startswith("easyteacache.") for each in entry_points(group=group)):
        return EngineStatus(
            engine, False, f"This environment has no entry point of this package in {group}: install it anew.", last
        )
    if engine == "sglang" and not os.environ.get(MODEL, "").strip():
        return EngineStatus(engine, False, f"{MODEL} names no model, so that the plug-in leaves SGLang as it is.", last)
    return EngineStatus(engine, True, f"Its entry point in {group} is installed.", last)
