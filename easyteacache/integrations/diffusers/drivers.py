"""Which driver a forward goes to: one for everybody who calls, or one for each thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import nn

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.driver import Driver
from easyteacache.runtime.per_thread import PerThread


class Drivers(Protocol):
    """The drivers of one transformer."""

    @property
    def here(self) -> Driver:
        """The driver of a forward that this thread makes."""
        ...

    def refuse_graph(self, target: nn.Module) -> None:
        """Raise ``AttachError`` where ``target`` was compiled as a whole and that cannot be served."""
        ...


class OneForAll:
    """One driver, whoever calls.

    Args:
        driver: the driver.
    """

    def __init__(self, driver: Driver) -> None:
        # A plain attribute: it is read inside graphs of the whole model.
        self.here = driver

    def refuse_graph(self, target: nn.Module) -> None:
        """One graph follows one run, as this does."""


class OnePerThread:
    """A driver for each thread that calls.

    Args:
        threads: each thread's drivers, one for each transformer.
        position: of this transformer's.
    """

    def __init__(self, threads: PerThread[Sequence[Driver]], position: int) -> None:
        self._threads, self._position = threads, position

    @property
    def here(self) -> Driver:
        """The calling thread's."""
        return self._threads.here()[self._position]

    def refuse_graph(self, target: nn.Module) -> None:
        """A graph holds the driver that it was traced with.

        Raises:
            AttachError: ``target`` is a graph, or has one.
        """
        module = getattr(target, "_orig_mod", target)
        if module is not target or module._compiled_call_impl is not None:
            raise AttachError(
                f"this {type(module).__name__} was compiled as a whole, and one graph follows one thread's run: compile its blocks "
                "instead (transformer.compile_repeated_blocks()), or attach without sessions="
            )
