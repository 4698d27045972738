"""Which pipeline is calling a transformer: the one whose own method runs, further up in the calling thread.

Where several pipelines share a transformer, each in a thread of its own and with a scheduler of its own, nothing that a forward is
handed says whose it is.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from types import FrameType
from typing import Any

from torch import nn

from easyteacache.integrations.diffusers.pipeline import PARTS, is_pipeline


def pipeline_above(transformers: Collection[nn.Module]) -> Any:
    """The nearest pipeline with one of these transformers whose method is running in this thread; None where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_argcount and code.co_varnames[0] == "self":
            found = frame.f_locals.get("self")
            if is_pipeline(found) and _has(found, transformers):
                return found
        frame = frame.f_back
    return None


class CallingPipeline:
    """The pipeline that calls in this thread.

    Args:
        transformers: those that a cache is attached to.
        otherwise: the pipeline of a loop outside any pipeline's methods; None where that is not known.
    """

    def __init__(self, transformers: Collection[nn.Module], otherwise: Any = None) -> None:
        self._transformers, self._otherwise = transformers, otherwise
        self._pipe: Any = otherwise

    def look(self) -> None:
        """See who is calling; before each forward, as one thread may run one pipeline after the other."""
        found = pipeline_above(self._transformers)
        self._pipe = self._otherwise if found is None else found

    def __call__(self) -> Any:
        """The pipeline that was seen; ``otherwise`` where none was."""
        return self._pipe


def _has(pipe: Any, transformers: Collection[nn.Module]) -> bool:
    for name in PARTS:
        part = getattr(pipe, name, None)
        part = getattr(part, "_orig_mod", part)
        if any(part is one for one in transformers):
            return True
    return False
