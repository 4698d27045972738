"""What differs between a registry folder's ``index.json`` and its records."""

from __future__ import annotations

from pathlib import Path

from easyteacache.errors import InvalidCalibration
from easyteacache.registry import index
from easyteacache.registry.index import Index


def differences(folder: Path, fresh: Index) -> list[str]:
    """One line for each way in which the index on disk differs from ``fresh``, the one built from the records."""
    path = folder / index.FILE_NAME
    if not path.exists():
        return [f"{path}: missing"]
    try:
        known = index.read(folder)
    except InvalidCalibration as error:
        return [str(error)]
    assert known is not None
    if path.read_bytes() == fresh.to_json().encode():
        return []
    keys = sorted(known.records.keys() | fresh.records.keys())
    changed = [key for key in keys if known.records.get(key) != fresh.records.get(key)]
    return [f"{key}: {_change(key, known, fresh)}" for key in changed] or [f"{path}: not in its canonical spelling"]


def _change(key: str, known: Index, fresh: Index) -> str:
    if key not in fresh.records:
        return "listed, but its file is gone"
    return "changed since it was listed" if key in known.records else "not listed"
