"""Make and check ``easyteacache.lock``; what it holds and who obeys it is ``lock_file``'s and the registry's business."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from easyteacache import lock_file
from easyteacache.errors import EasyTeaCacheError, HubError
from easyteacache.hub.store import Store
from easyteacache.lock_file import LockedRecord, LockFile
from easyteacache.registry import Registry


def extended(path: Path, keys: Iterable[str] = ()) -> LockFile:
    """The lock at ``path`` (none: an empty one) with ``keys`` as a lookup finds them now, the lock itself left aside.

    Args:
        path: the lock file.
        keys: model keys or exact aliases; none means every pulled record.

    Raises:
        UnknownModelKey: a key is in no layer.
        HubError: there is nothing to lock.
        InvalidCalibration: the lock or a record is damaged.
    """
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
