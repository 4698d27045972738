"""Whether a cache sits on a model, and how it comes off again."""

from __future__ import annotations

from collections.abc import Callable

from easyteacache.errors import AttachError

Detach = Callable[[], None]


class Attachment:
    """At most one model at a time.

    Args:
        refusal: the sentence that refuses a second one.
    """

    def __init__(self, refusal: str) -> None:
        self._refusal = refusal
        self._detach: Detach | None = None

    def __getstate__(self) -> dict[str, object]:
        # The hooks are the model's: a copy is not attached.
        return {"_refusal": self._refusal, "_detach": None}

    def put_on(self, attach: Callable[[], Detach]) -> None:
        """Attach by ``attach``, which returns what takes the cache off again.

        Raises:
            AttachError: it is attached already, or as ``attach`` does.
        """
        if self._detach is not None:
            raise AttachError(self._refusal)
        self._detach = attach()

    def take_off(self) -> None:
        """Detach; does nothing when nothing is attached."""
        if self._detach is not None:
            detach, self._detach = self._detach, None
            detach()
