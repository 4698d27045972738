"""Which driver a forward goes to: one for everybody who calls, or one for each thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from easyteacache.integrations.diffusers.driver import Driver
from easyteacache.runtime.per_thread import PerThread


class Drivers(Protocol):
    """The drivers of one transformer."""

    @property
    def here(self) -> Driver:
        """The driver of a forward that this thread makes."""
        ...


class OneForAll:
    """One driver, whoever calls.

    Args:
        driver: the driver.
    """

    def __init__(self, driver: Driver) -> None:
        # A plain attribute: it is read inside graphs of the whole model.
        self.here = driver


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
