"""How long to wait for the other end of a connection: in all, not only between two bytes.

A socket's own timeout begins anew with every byte; who sends one every two seconds holds a reader for as long as he likes.
"""

from __future__ import annotations

import io
import math
import socket
import time
from collections.abc import Callable
from typing import Any

CHUNK = 1 << 16


class Patience:
    """When a part of a conversation must be over.

    Args:
        first: seconds until its first byte.
        grace: seconds, counted from the first byte, that it may take whatever arrives.
        rate: bytes that every second beyond ``grace`` must have brought on average; infinite: ``grace`` is all there is.
        total: seconds from its beginning after which it ends in any case.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        *,
        first: float,
        grace: float,
        rate: float = math.inf,
        total: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first, self._grace, self._rate, self._total, self._clock = first, grace, rate, total, clock
        self._begun = clock()
        self._first_byte: float | None = None
        self.bytes = 0

    def left(self) -> float:
        """Seconds until it is over.

        Raises:
            TimeoutError: it is over.
        """
        if self._first_byte is None:
            end = self._begun + min(self._first, self._total)
        else:
            end = min(self._begun + self._total, self._first_byte + self._grace + self.bytes / self._rate)
        left = end - self._clock()
        if left <= 0:
            raise TimeoutError(self.spent())
        return left

    def spent(self) -> str:
        """What became of it so far, for an error."""
        return f"{self.bytes} bytes in {self._clock() - self._begun:.0f} s"

    def count(self, size: int) -> None:
        """``size`` bytes came or went."""
        if size and self._first_byte is None:
            self._first_byte = self._clock()
        self.bytes += size


class PatientReader(io.RawIOBase):
    """The reading end of a socket under the patience of the moment; wrap it in ``io.BufferedReader``."""

    def __init__(self, connection: PatientSocket) -> None:
        super().__init__()
        self._connection = connection
        self._raw = connection.socket.makefile("rb", buffering=0)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """What is there, up to the buffer's size; 0 at the end.

        Raises:
            TimeoutError: the patience is over.
            OSError: the connection broke.
        """
        patience = self._connection.patience
        self._connection.socket.settimeout(patience.left())
        count = self._raw.readinto(buffer)  # type: ignore[attr-defined]
        patience.count(count or 0)
        return count  # type: ignore[no-any-return]

    def close(self) -> None:
        """Give the socket back; it stays open while others use it."""
        if not self.closed:
            self._raw.close()
        super().close()


class _CountedReader(io.BufferedReader):
    """A reader that is always told how much: "all there is" would be as much as the other end likes.

    ``http.client`` takes the size of a chunk as it is sent, and −1 for one.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise ValueError(f"asked for {size} bytes")
        return super().read(size)


class PatientSocket:
    """A connected socket as ``http.client`` and ``http.server`` use one, read and written under a patience.

    Attributes:
        socket: the socket.
        patience: what holds now; replaced from one part of the conversation to the next.
    """

    def __init__(self, connected: socket.socket, patience: Patience) -> None:
        self.socket, self.patience = connected, patience

    def makefile(self, mode: str = "rb", buffering: int | None = None) -> io.BufferedReader:
        """A reader; ``mode`` is always ``rb`` here."""
        return _CountedReader(PatientReader(self), CHUNK)

    def sendall(self, data: Any) -> None:
        """Send everything.

        Raises:
            TimeoutError: the patience is over.
            OSError: the connection broke.
        """
        view = memoryview(data).cast("B")
        for start in range(0, len(view), CHUNK):
            piece = view[start : start + CHUNK]
            self.socket.settimeout(self.patience.left())
            self.socket.sendall(piece)
            self.patience.count(len(piece))

    def close(self) -> None:
        """Close the socket once nothing reads from it any more."""
        self.socket.close()
