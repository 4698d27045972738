"""One process at a time for a file that is read, changed and written: none loses what another wrote meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from easyteacache.errors import HubError
from easyteacache.registry import registry

WAIT_SECONDS = 300


@contextlib.contextmanager
def alone(path: Path, *, lock: Path | None = None, wait: float = WAIT_SECONDS) -> Iterator[None]:
    """Wait until no other process of this user is changing ``path``, and keep others waiting meanwhile.

    The system frees the lock of a process that was killed.

    Args:
        path: the file or folder that will be changed.
        lock: file to lock; None: one in this machine's home, so that nothing is left beside ``path``.
        wait: seconds, 0 or more.

    Raises:
        HubError: another process holds it for so long.
        OSError: the lock cannot be made.
    """
    if lock is None:
        lock = registry.home() / ".locks" / hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock, timeout=wait)
    try:
        held.acquire()
    except TimeoutError as error:
        raise HubError(str(path), f"another process has been changing it for {wait:g} s") from error
    try:
        yield
    finally:
        held.release()
