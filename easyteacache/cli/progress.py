"""A progress bar on stderr; nothing where stderr is no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def bar(unit: str, *, total: int | None = None, about: str | None = None, hidden: bool = False) -> Iterator[Any]:
    """tqdm's bar, gone when the block ends.

    Args:
        unit: what is counted.
        total: how many there will be, where that is known.
        about: what stands before it.
        hidden: show nothing, on a terminal too.
    """
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, desc=about, disable=True if hidden else None, leave=False) as shown:
        yield shown
