"""Warnings of one cache: each once, where people look, whatever filters say about repeating them."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

from easyteacache.errors import EasyTeaCacheWarning

logger = logging.getLogger("easyteacache")

#: Asked and reached speed-up may differ by this factor before it is worth a warning.
SPEEDUP_SLACK = 1.25
_PACKAGE = str(Path(__file__).resolve().parents[1])


class Notices:
    """What a cache has warned of."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def give(self, text: str, *, reason: str | None = None) -> None:
        """Warn, unless that was done: of the same reason, or with the same words where none is given."""
        key = reason or text
        if key in self._given:
            return
        self._given.add(key)
        warnings.warn(text, EasyTeaCacheWarning, stacklevel=_outside())


def speedup_apart(asked: float, reached: float) -> bool:
    """Is the speed-up that was reached another one than was asked for?"""
    return reached > asked * SPEEDUP_SLACK or reached * SPEEDUP_SLACK < asked


def _outside() -> int:
    """How far up the caller outside this package is, as ``warnings.warn`` counts for the one who calls this."""
    # 1 is who calls `warnings.warn`, which is `give`; this frame is one below it.
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
