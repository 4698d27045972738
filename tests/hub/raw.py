"""HTTP as it stands on the wire, for requests that no client would send."""

from __future__ import annotations

import http.client
import io
import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

#: Longer than anything a server may wait for here; a test that gets there has found a hang.
SECONDS = 90


@dataclass(frozen=True)
class Said:
    """One answer."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def sentence(self) -> str:
        """What an error says, in the body and in the header alike."""
        found = json.loads(self.content)["error"]
        assert isinstance(found, str)
        header = self.headers["x-error-message"]
        assert header == "".join(c if " " <= c <= "~" else "?" for c in found)[:1000]
        return found


class _Wire:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


def open_socket(endpoint: str) -> socket.socket:
    parts = urlsplit(endpoint)
    return socket.create_connection((parts.hostname, parts.port), timeout=SECONDS)


def send(endpoint: str, data: bytes, *, method: str = "GET") -> Said | None:
    """The first answer to ``data``; None where the connection ended without one."""
    with open_socket(endpoint) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            # The server answered and closed before it had read everything.
            pass
        received = bytearray()
        while piece := connection.recv(1 << 16):
            received += piece
    return parse(bytes(received), method=method) if received else None


def parse(data: bytes, *, method: str = "GET") -> Said:
    """An answer from its bytes."""
    response = http.client.HTTPResponse(_Wire(data), method=method)  # type: ignore[arg-type]
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Said(response.status, headers, response.read())


def request(method: str, path: str, *, token: str | None = None, body: bytes | None = None, **headers: str) -> bytes:
    """The bytes of a well-formed request; ``Content_Length`` and other headers replace the usual ones."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    usual = {"Host": "hub", "Connection": "close"}
    if body is not None:
        usual["Content-Length"] = str(len(body))
    if token is not None:
        usual["Authorization"] = f"Bearer {token}"
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in {**usual, **named}.items())]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + (body or b"")
