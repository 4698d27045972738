"""Look for reference cycles less often while a search runs: it makes millions of small tuples and arrays, and no cycle."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

#: Objects made before the youngest are looked at. Python's own 700 to 2,000 took a tenth of a solution's time.
THRESHOLD = 100_000

_lock = threading.Lock()
_inside = 0
_before = gc.get_threshold()


@contextlib.contextmanager
def rarely_collected() -> Iterator[None]:
    """Within it cycles are looked for every ``THRESHOLD`` objects; the process's own thresholds return with the last thread that leaves."""
    global _inside, _before
    with _lock:
        if not _inside:
            _before = gc.get_threshold()
            # 0 means that somebody turned collecting off.
            if _before[0]:
                gc.set_threshold(max(THRESHOLD, _before[0]), *_before[1:])
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                gc.set_threshold(*_before)
