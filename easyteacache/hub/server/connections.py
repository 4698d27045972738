"""How many connections and how much content a server holds at one time; whoever waits longest for nothing goes first."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from easyteacache.hub.server.messages import Refusal

# A connection that says nothing is closed for another one, but not in its first second.
YOUNG_SECONDS = 1.0
BODY_WAIT_SECONDS = 10.0


class Connections:
    """The open connections of a server, at most ``most``."""

    def __init__(self, most: int) -> None:
        self._room = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: dict[socket.socket, float] = {}

    def admit(self) -> bool:
        """Take a place, at the cost of the connection that has been silent longest; False when every one is at work."""
        if self._room.acquire(blocking=False):
            return True
        with self._lock:
            oldest = min(self._idle, key=self._idle.__getitem__, default=None)
            if oldest is None or time.monotonic() - self._idle[oldest] < YOUNG_SECONDS:
                return False
            del self._idle[oldest]
            # Its own thread reads the end of the connection and gives the place back.
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        return self._room.acquire(timeout=YOUNG_SECONDS)

    def leave(self) -> None:
        """Give a place back."""
        self._room.release()

    def waits(self, connection: socket.socket) -> None:
        """It waits for a request."""
        with self._lock:
            self._idle[connection] = time.monotonic()

    def works(self, connection: socket.socket) -> None:
        """A request has begun, or the connection ended."""
        with self._lock:
            self._idle.pop(connection, None)


class Budget:
    """Bytes of all bodies together that are held at one time."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._changed = threading.Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Hold ``size`` bytes for the time of the block.

        Raises:
            Refusal: others hold them, and go on holding them for seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._left >= size, BODY_WAIT_SECONDS):
                raise Refusal(
                    503, "the server is reading other uploads: try again in a minute", None, {"Retry-After": "20"}
                )
            self._left -= size
        try:
            yield
        finally:
            with self._changed:
                self._left += size
                self._changed.notify_all()
