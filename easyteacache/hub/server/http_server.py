"""A private hub in one process: the service over plain HTTP, for teams without internet access and for tests.

What it is not: no TLS (put a proxy in front), no web pages, no large-file storage, no accounts beyond a list of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from easyteacache.errors import HubError
from easyteacache.hub.server.messages import Refusal, Reply, Request
from easyteacache.hub.server.service import HubService
from easyteacache.hub.server.tokens import Tokens

MAX_BODY_BYTES = 256 * 1024 * 1024
IDLE_SECONDS = 60


class HubServer(ThreadingHTTPServer):
    """Serves the repositories of one folder.

    Args:
        address: host and port; port 0 takes a free one, see ``endpoint``.
        folder: as ``HubService`` has it.
        tokens: who may do what; None: everybody may read, nobody may write.
        log: told one line a request, without any token.

    Raises:
        HubError: the address cannot be listened on.
    """

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        folder: Path,
        *,
        tokens: Tokens | None = None,
        log: Callable[[str], object] = lambda _: None,
    ) -> None:
        # Before the socket: what fails to bind is closed again.
        self.service = HubService(folder)
        self.tokens = tokens or Tokens()
        self.log = log
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            host, port = address
            raise HubError(f"{host}:{port}", f"cannot be listened on: {error.strerror}; choose another") from error

    @property
    def endpoint(self) -> str:
        """What clients pass as ``endpoint=``."""
        host, port = self.server_address[:2]
        name = host.decode() if isinstance(host, (bytes, bytearray)) else host
        return f"http://{f'[{name}]' if ':' in name else name}:{port}"

    def server_close(self) -> None:
        """Close the socket and the repositories."""
        super().server_close()
        self.service.close()


class _Handler(BaseHTTPRequestHandler):
    """Turns HTTP into requests and replies into HTTP."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    server: HubServer
    # Without it every small reply waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self._body()
        if body is None:
            self.close_connection = True
            self._send(Refusal(411, f"a body needs a Content-Length of at most {MAX_BODY_BYTES} bytes").reply())
            return
        self._send(self.server.service.answer(self._request(body)))

    def _request(self, body: bytes) -> Request:
        address = urlsplit(self.path)
        return Request(
            self.command,
            address.path,
            {name: values[0] for name, values in parse_qs(address.query, max_num_fields=100).items()},
            body,
            self.server.tokens.user(self.headers.get("Authorization")),
            f"http://{self.headers.get('Host') or self.server.endpoint.removeprefix('http://')}",
        )

    def _body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding"):
            return None
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return None
        return self.rfile.read(int(length))

    def _send(self, reply: Reply) -> None:
        data = reply.content if isinstance(reply.content, bytes) else json.dumps(reply.content).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value.replace("\r", " ").replace("\n", " "))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        self.server.log(format % arguments)
