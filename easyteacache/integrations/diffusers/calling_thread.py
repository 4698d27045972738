"""Whose run a cache follows, where several threads call one transformer.

A session follows one run. It belongs to the thread that began it until the pipeline says that its call is over, the run's last step
is done, or the thread has ended. Meanwhile the forwards of other threads are no part of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easyteacache.integrations.diffusers.step_tracker import Clock, Context


class CallingThread:
    """The thread whose run is followed; shared by the experts of one pipeline, which share a run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: threading.Thread | None = None
        self._ident: int | None = None
        # While a run begins or ends, which may take seconds where that makes a record: nobody else waits for it, or takes it.
        self._changing = False

    def mine(self) -> bool:
        """Is it this thread's run? Everybody's, where there is none."""
        return self._ident is None or self._ident == threading.get_ident()

    def claim(self, over: Callable[[], bool], end: Callable[[], None]) -> bool:
        """Take the run over, unless another thread is in the middle of it; ``begun`` is to follow where it is taken.

        Args:
            over: tells whether the run of the other thread has done its last step. Not asked before its forward has begun: until then
                a run that begins looks like none.
            end: forgets that run, where it is taken over.

        Returns:
            True when the run is this thread's now.
        """
        ident = threading.get_ident()
        with self._lock:
            known = self._ident == ident
            if not known and self._owner is not None and self._owner.is_alive() and (self._changing or not over()):
                return False
            self._owner, self._ident, self._changing = threading.current_thread(), ident, True
        if not known:
            try:
                end()
            except BaseException:
                self._changing = False
                raise
        return True

    def begun(self) -> None:
        """The forward that claimed the run has begun, or could not."""
        self._changing = False

    def release(self, end: Callable[[], None]) -> None:
        """The run is over, unless it is another thread's: the next forward's thread begins another one.

        Args:
            end: forgets the run.
        """
        with self._lock:
            if not self.mine():
                return
            self._owner, self._ident, self._changing = threading.current_thread(), threading.get_ident(), True
        try:
            end()
        finally:
            with self._lock:
                self._owner, self._ident, self._changing = None, None, False


class Caller(threading.local):
    """What is known of each thread that calls.

    Attributes:
        latest: what its pipeline said last through ``cache_context``.
        alone: follows the run that was left alone because another thread's went on; None while the thread is served. Such a run is
            left alone to its end: a plan that set in at its middle would be another plan.
    """

    latest: Context | None = None
    alone: Clock | None = None
