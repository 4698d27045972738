"""One cache per expert of a pipeline with two transformers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from easyteacache.integrations.diffusers.attach import Cache, attach_parts
from easyteacache.runtime.attachment import Attachment
from easyteacache.runtime.statistics import speedup

if TYPE_CHECKING:
    import torch

    from easyteacache.policy.policy import Policy
    from easyteacache.runtime.session import Session
    from easyteacache.runtime.statistics import RunStatistics


class ExpertCaches:
    """One cache per expert of a pipeline with two transformers; attached and detached together.

    Steps are the sampler's, counted through both experts. When one expert takes over, the other lets go of its tensors.

    Args:
        caches: component name (``transformer``, ``transformer_2``) → its cache.
    """

    def __init__(self, caches: Mapping[str, Cache]) -> None:
        self.caches = dict(caches)
        self._attachment = Attachment("these caches are attached already: detach() them first")

    def attach(
        self,
        pipe: Any,
        *,
        residual_device: torch.device | str | None = None,
        allow_borrowed: bool = False,
        sessions: str | None = None,
    ) -> ExpertCaches:
        """Attach every cache to its expert, as ``TeaCache.attach`` does; returns self.

        Raises:
            AttachError: the pipeline's transformers are not those the caches are for, or as ``TeaCache.attach``.
        """
        self._attachment.put_on(
            lambda: attach_parts(
                self.caches, pipe, residual_device=residual_device, allow_borrowed=allow_borrowed, sessions=sessions
            )
        )
        return self

    def detach(self) -> None:
        """Take every cache off again; does nothing when they are not attached."""
        self._attachment.take_off()

    @contextlib.contextmanager
    def attached(
        self,
        pipe: Any,
        *,
        residual_device: torch.device | str | None = None,
        allow_borrowed: bool = False,
        sessions: str | None = None,
    ) -> Iterator[ExpertCaches]:
        """``with caches.attached(pipe): …`` attaches, and detaches whatever happens."""
        self.attach(pipe, residual_device=residual_device, allow_borrowed=allow_borrowed, sessions=sessions)
        try:
            yield self
        finally:
            self.detach()

    @property
    def sessions(self) -> dict[str, Session]:
        """What decides for each expert."""
        return {name: cache.session for name, cache in self.caches.items()}

    @property
    def policies(self) -> dict[str, Policy]:
        """What each expert applies."""
        return {name: session.policy for name, session in self.sessions.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of tensors held at this moment."""
        return sum(session.whole.nbytes for session in self.sessions.values())

    def statistics(self) -> dict[str, RunStatistics]:
        """Per expert and branch, ``component/branch``."""
        return {
            f"{name}/{branch}": run
            for name, session in self.sessions.items()
            for branch, run in session.statistics().items()
        }

    def current_speedup_rate(self) -> float:
        """Steps divided by computed steps over both experts; 1 before the first step."""
        return speedup(self.statistics().values())

    def summary(self) -> str:
        """Both experts' runs in readable lines."""
        return "\n\n".join(f"{name}: {session.summary()}" for name, session in self.sessions.items())

    @property
    def notes(self) -> dict[str, tuple[str, ...]]:
        """Every choice that was made for each expert's run, one sentence each."""
        return {name: policy.notes for name, policy in self.policies.items()}

    def __repr__(self) -> str:
        return f"ExpertCaches({self.caches!r})"
