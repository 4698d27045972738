"""Make and check ``easyteacache.lock``; what it holds and who obeys it is ``lock_file``'s and the registry's business."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from easyteacache.errors import EasyTeaCacheError, HubError
from easyteacache.hub.alone import alone
from easyteacache.hub.store import Store
from easyteacache.registry import lock_file
from easyteacache.registry.lock_file import LockedRecord, LockFile
from easyteacache.registry.registry import Registry


def add(path: Path, keys: Iterable[str] = ()) -> LockFile:
    """Add ``keys`` to the lock at ``path`` as a lookup finds them now, the lock itself left aside; returns what was written.

    Two processes that add at once wait for each other, so that neither loses what the other wrote.

    Args:
        path: the lock file; none there is an empty one.
        keys: model keys or exact aliases; none means every pulled record.

    Raises:
        UnknownModelKey: a key is in no layer.
        HubError: there is nothing to lock, or another process holds the file for minutes.
        InvalidCalibration: the lock or a record is damaged.
        OSError: the file cannot be written; it is then as it was.
    """
    if not path.parent.is_dir():
        raise HubError("lock", f"there is no folder {path.parent}")
    with alone(path):
        lock = _extended(path, keys)
        lock_file.write(path, lock)
    return lock


def _extended(path: Path, keys: Iterable[str]) -> LockFile:
    before = lock_file.read(path) if os.path.lexists(path) else lock_file.empty()
    registry = Registry(Registry.default().layers)
    snapshot = Store().current()
    wanted = list(keys) or list(snapshot.index.records)
    if not wanted:
        raise HubError("lock", "nothing was pulled to this machine: name the keys to lock, or pull first")
    fresh = {}
    for name in wanted:
        found = registry.find(name)
        key = found.calibration.model_key
        holder = next(layer for layer in registry.layers if key in layer.index.records)
        entry = holder.index.records[key]
        origin = snapshot.origins.records.get(key)
        if origin is None or origin.sha256 != entry.sha256:
            origin = LockedRecord(sha256=entry.sha256, revision=entry.revision)
        fresh[key] = origin
    return LockFile(lock_version=1, records=dict(sorted({**before.records, **fresh}.items())))


def problems(path: Path) -> list[str]:
    """One sentence for each locked record that no layer holds with that content."""
    registry = Registry(Registry.default().layers, lock=path)
    found = []
    for key in lock_file.read(path).records:
        try:
            registry.find(key)
        except EasyTeaCacheError as error:
            found.append(str(error))
    return found
