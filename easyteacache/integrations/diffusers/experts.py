"""The transformers of a pipeline: one, or two experts that share the sampler's steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from easyteacache.errors import AttachError

if TYPE_CHECKING:
    import torch

    from easyteacache.policy.policy import Policy
    from easyteacache.runtime.statistics import RunStatistics
    from easyteacache.teacache import TeaCache

#: Component of a two-expert pipeline → the last part of its model key (Wan2.2 calls them so).
PARTS = {"transformer": "high-noise", "transformer_2": "low-noise"}


def is_pipeline(target: Any) -> bool:
    """Is it a pipeline rather than a model?"""
    return hasattr(target, "scheduler") and not isinstance(target, nn.Module)


def parts_of(pipe: Any) -> dict[str, Any]:
    """The transformers of a pipeline by component name.

    Raises:
        AttachError: there is none.
    """
    found = {name: getattr(pipe, name, None) for name in PARTS}
    present = {name: module for name, module in found.items() if module is not None}
    if not present:
        raise AttachError(
            f"{type(pipe).__name__} has no transformer: the cache skips the blocks of a diffusion transformer, "
            "so a U-Net pipeline cannot use it"
        )
    return present


class ExpertCaches:
    """One cache per expert of a pipeline with two transformers; attached and detached together.

    Steps are the sampler's, counted through both experts. When one expert takes over, the other lets go of its tensors.

    Args:
        caches: component name (``transformer``, ``transformer_2``) → its cache.
    """

    def __init__(self, caches: Mapping[str, TeaCache]) -> None:
        self.caches = dict(caches)
        self._detach: Callable[[], None] | None = None

    def attach(self, pipe: Any, *, residual_device: torch.device | str | None = None) -> ExpertCaches:
        """Attach every cache to its expert; returns self.

        Raises:
            AttachError: the pipeline's transformers are not those the caches are for, or as ``TeaCache.attach``.
        """
        from easyteacache.integrations.diffusers.attach import attach_parts

        if self._detach is not None:
            raise AttachError("these caches are attached already: detach() them first")
        self._detach = attach_parts(self.caches, pipe, residual_device=residual_device)
        return self

    def detach(self) -> None:
        """Take every cache off again; does nothing when they are not attached."""
        if self._detach is not None:
            detach, self._detach = self._detach, None
            detach()

    @contextlib.contextmanager
    def attached(self, pipe: Any, *, residual_device: torch.device | str | None = None) -> Iterator[ExpertCaches]:
        """``with caches.attached(pipe): …`` attaches, and detaches whatever happens."""
        self.attach(pipe, residual_device=residual_device)
        try:
            yield self
        finally:
            self.detach()

    @property
    def policies(self) -> dict[str, Policy]:
        """What each expert applies."""
        return {name: cache.policy for name, cache in self.caches.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of tensors held at this moment."""
        return sum(cache.nbytes for cache in self.caches.values())

    def statistics(self) -> dict[str, RunStatistics]:
        """Per expert and branch, ``component/branch``."""
        return {
            f"{name}/{branch}": run for name, cache in self.caches.items() for branch, run in cache.statistics().items()
        }

    def current_speedup_rate(self) -> float:
        """Steps divided by computed steps over both experts; 1 before the first step."""
        runs = self.statistics().values()
        total, computed = sum(len(run.steps) for run in runs), sum(run.computed for run in runs)
        return total / computed if computed else 1.0

    def summary(self) -> str:
        """Both experts' runs in readable lines."""
        return "\n\n".join(f"{name}: {cache.summary()}" for name, cache in self.caches.items())

    def __repr__(self) -> str:
        return f"ExpertCaches({self.caches!r})"
