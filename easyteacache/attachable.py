"""Putting a cache on a diffusers pipeline or transformer, and taking it off again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from easyteacache.errors import AttachError
from easyteacache.policy.request import Setting
from easyteacache.runtime.driven import DrivenCache

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


class AttachableCache(DrivenCache):
    """Base of ``TeaCache``; not made by itself."""

    def _prepare(self, setting: Setting, *, enable: bool) -> None:
        super()._prepare(setting, enable=enable)
        self._detach: Callable[[], None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # The hooks are the model's.
        return {**super().__getstate__(), "_detach": None}

    def attach(
        self,
        pipe_or_transformer: Any,
        *,
        residual_device: torch.device | str | None = None,
        allow_borrowed: bool = False,
    ) -> Self:
        """Put the cache on a diffusers pipeline or transformer by its hooks; returns the cache itself.

        Args:
            pipe_or_transformer: better the pipeline, whose scheduler tells step count and noise levels.
            residual_device: where residuals rest between steps, for example ``"cpu"``; None: where they are computed.
            allow_borrowed: attach a record that was fitted to a model of another class.

        Raises:
            AttachError: no adapter for the class, another cache is active, or this one is attached already.
            SignalMismatch: the calibration's signal cannot be taken from this model.
        """
        from easyteacache.integrations.diffusers import attach

        if self._detach is not None:
            raise AttachError("this cache is attached already: detach() it first, or make a second one")
        self._detach = attach(self, pipe_or_transformer, residual_device=residual_device, allow_borrowed=allow_borrowed)
        return self

    def detach(self) -> None:
        """Take the cache off again; the model is bit for bit as before. Does nothing when it is not attached."""
        if self._detach is not None:
            detach, self._detach = self._detach, None
            detach()

    @contextlib.contextmanager
    def attached(
        self,
        pipe_or_transformer: Any,
        *,
        residual_device: torch.device | str | None = None,
        allow_borrowed: bool = False,
    ) -> Iterator[Self]:
        """``with cache.attached(pipe): …`` attaches, and detaches whatever happens."""
        self.attach(pipe_or_transformer, residual_device=residual_device, allow_borrowed=allow_borrowed)
        try:
            yield self
        finally:
            self.detach()
