"""Somebody who watches the runs of an attached session: what the driver tells of each, and when.

A driver calls these around its own work; where nobody watches, it calls nothing. What an observer raises would end a generation, so
that it has to keep its own errors to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from easyteacache.policy.request import RunContext


class RunObserver(Protocol):
    """Watches runs, forward by forward."""

    def attached(self, transformer: Any, *, adapter: Any, guidance_scale: Callable[[], float | None]) -> None:
        """The session is on ``transformer`` now.

        Args:
            transformer: the module.
            adapter: of its class.
            guidance_scale: what the pipeline guides its present call with; None where it does not say.
        """
        ...

    def detached(self) -> None:
        """The session was taken off."""
        ...

    def run_begins(self, run: RunContext, facts: Any) -> None:
        """A run begins, before its policy is asked for.

        Args:
            run: what is known of it; its length is not.
            facts: of its scheduler; None where nobody knows it.
        """
        ...

    def forward_begins(self, branch: str, arguments: Mapping[str, Any]) -> None:
        """The transformer is called for ``branch``."""
        ...

    def entered(self, block: Any, arguments: Mapping[str, Any], outputs: Mapping[Any, Any]) -> None:
        """The first block is called; ``outputs`` of submodules that signals are taken from."""
        ...

    def after_first(self, output: Any) -> None:
        """The first block returned."""
        ...

    def left(self, output: Any) -> None:
        """The last block returned."""
        ...

    def returned(self, output: Any) -> None:
        """The transformer returned."""
        ...

    def changed(self, why: str) -> None:
        """Something happened in the middle of the run that makes it another one than it began as."""
        ...

    def run_ends(self) -> None:
        """The run is over, or was broken off; told more than once of one run."""
        ...
