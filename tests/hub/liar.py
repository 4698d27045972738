"""A hub that lies: it answers with whatever bytes it is given, as slowly as it likes, and notes what it was asked."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Answer = Callable[["Asked", socket.socket], None]


@dataclass(frozen=True)
class Asked:
    """One request: first line, headers by lower-case name, and what came with them of the body."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Liar:
    """``answer`` is called with every request and the socket to answer on; the connection ends afterwards."""

    answer: Answer
    asked: list[Asked] = field(default_factory=list)
    endpoint: str = ""
    stopped: threading.Event = field(default_factory=threading.Event)

    def serve(self, listener: socket.socket) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            asked = _read(connection)
            if asked is not None:
                self.asked.append(asked)
                self.answer(asked, connection)


def _read(connection: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(1 << 16)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
    size = int(headers.get("content-length", "0"))
    while len(body) < size:
        piece = connection.recv(1 << 16)
        if not piece:
            break
        body += piece
    return Asked(line, headers, body)


def reply(content: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """The bytes of an answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + content


@contextmanager
def liar(answer: Answer) -> Iterator[Liar]:
    """A lying hub on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        found = Liar(answer, endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=found.serve, args=(listener,), daemon=True)
        thread.start()
        yield found
        found.stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
