"""What the last run in another engine did: one small file an engine, for whoever asks from outside its process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyteacache.errors import InvalidCalibration
from easyteacache.files import atomic_write, regular_files, strict_json
from easyteacache.registry.registry import home

if TYPE_CHECKING:
    from easyteacache.runtime.session import Session

MAX_BYTES = 1024 * 1024


def write(engine: str, content: Mapping[str, Any]) -> None:
    """Remember a run; a folder that cannot be written is no reason to lose a sample."""
    text = json.dumps(content, ensure_ascii=False, indent=1)
    with contextlib.suppress(OSError, InvalidCalibration):
        atomic_write.write_bytes(_file(engine), text.encode(), durable=False)


def write_session(engine: str, session: Session | None, refusal: str | None, **who: str) -> None:
    """Remember what a session did in a request.

    Args:
        engine: its name.
        session: None where the request was refused before there was one.
        refusal: why every step was computed; None where it was not.
        **who: what the engine calls what was run.
    """
    policy = None if session is None else session.policy
    patterns = {} if session is None else {name: each.pattern for name, each in session.statistics().items()}
    write(
        engine,
        {
            **who,
            "record": None if policy is None else f"{policy.model_key} revision {policy.revision} ({policy.layer})",
            "evidence": None if policy is None else policy.evidence,
            "refusal": refusal,
            "warnings": [] if policy is None else list(policy.warnings),
            "pattern": patterns,
            "speedup": None if session is None else session.current_speedup_rate(),
        },
    )


def read(engine: str) -> dict[str, Any] | None:
    """The last run of an engine on this machine; None where there was none, or its file is damaged."""
    try:
        found = strict_json.parse(regular_files.read_bytes(_file(engine), max_bytes=MAX_BYTES), max_bytes=MAX_BYTES)
    except (OSError, strict_json.JSONTextError, InvalidCalibration):
        return None
    return found if isinstance(found, dict) and _whole(found) else None


def _whole(found: dict[str, Any]) -> bool:
    """Whether ``write_session`` could have written it."""
    texts = [found.get(name) for name in ("record", "evidence", "refusal")]
    pattern, warnings, speedup = found.get("pattern", {}), found.get("warnings", []), found.get("speedup")
    return (
        all(isinstance(one, str | None) for one in texts)
        and isinstance(pattern, dict)
        and all(isinstance(one, str) for one in pattern.values())
        and isinstance(warnings, list)
        and all(isinstance(one, str) for one in warnings)
        and (speedup is None or (isinstance(speedup, (int, float)) and not isinstance(speedup, bool)))
    )


def _file(engine: str) -> Path:
    return home() / "engines" / f"{engine}.json"
