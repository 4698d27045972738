"""A proxy between the client and the hub that makes chosen requests fail, as networks and busy hubs do."""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PIECES = 4


@dataclass
class Fault:
    """``action``: a status code to answer with, ``drop`` before the hub sees the request, ``lose`` its answer, ``cut`` it in the
    middle, or bytes to answer."""

    pattern: str
    action: int | str | bytes
    times: int = 1


class FaultProxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.faults: list[Fault] = []
        # Seconds that an answer takes to arrive, in PIECES pieces.
        self.slowness = 0.0
        self.seen: list[str] = []
        self.tokens: list[str | None] = []
        self.ranges: list[str | None] = []

    def fault(self, request: str) -> Fault | None:
        self.seen.append(request)
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, request):
                fault.times -= 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.append(self.headers.get("Authorization"))
        self.server.ranges.append(self.headers.get("Range"))
        fault = self.server.fault(f"{self.command} {self.path}")
        if fault and fault.action == "drop":
            self.close_connection = True
            return None
        if fault and isinstance(fault.action, int):
            return self._send(fault.action, {"Retry-After": "7", "X-Error-Message": "planted"}, b"{}")
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if fault and fault.action == "lose":
            self.close_connection = True
            return None
        if fault and isinstance(fault.action, bytes):
            data = fault.action
        promised = len(data)
        if fault and fault.action == "cut":
            self.close_connection = True
            data = data[: len(data) // 2]
        return self._send(answer.status, dict(answer.getheaders()), data, promised)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _send(self, status: int, headers: dict[str, str], data: bytes, promised: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        size = len(data) if promised is None else promised
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(size)
        self.send_header("Content-Length", length)
        with contextlib.suppress(ConnectionError):
            self._trickle(data if self.command != "HEAD" else b"")

    def _trickle(self, data: bytes) -> None:
        self.end_headers()
        pieces = PIECES if self.server.slowness else 1
        size = -(-len(data) // pieces) or 1
        for start in range(0, len(data), size):
            time.sleep(self.server.slowness / pieces)
            self.wfile.write(data[start : start + size])

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    with FaultProxy(upstream) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()
