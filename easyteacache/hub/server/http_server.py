"""A private hub in one process: the service over plain HTTP, for teams without internet access and for tests.

What it is not: no TLS (put a proxy in front), no web pages, no large-file storage, no accounts beyond a list of tokens. Every
request ends in an answer; what one client may hold is bounded (``bounds``).
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import socket
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from easyteacache._version import __version__
from easyteacache.errors import HubError
from easyteacache.hub.patience import CHUNK, Patience, PatientSocket
from easyteacache.hub.server import bounds
from easyteacache.hub.server.connections import Budget, Connections
from easyteacache.hub.server.messages import Head, Refusal, Reply, Stream
from easyteacache.hub.server.service import HubService, Opened
from easyteacache.hub.server.tokens import Tokens

FULL = b'{"error": "the server has as many connections as it takes: try again in a few seconds"}'


class HubServer(ThreadingHTTPServer):
    """Serves the repositories of one folder.

    Args:
        address: host and port; port 0 takes a free one, see ``endpoint``.
        folder: as ``HubService`` has it.
        tokens: who may do what; None: everybody may read, nobody may write.
        url: the address that clients use, where that is another one (a proxy in front); None: this server's own.
        log: told one line a request, without any token and without anything that a terminal acts on.

    Raises:
        HubError: the address cannot be listened on.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        folder: Path,
        *,
        tokens: Tokens | None = None,
        url: str | None = None,
        log: Callable[[str], object] = lambda _: None,
    ) -> None:
        # Before the socket: what fails to bind is closed again.
        self.service = HubService(folder)
        self.tokens = tokens or Tokens()
        self.log = log
        self.url = None if url is None else url.rstrip("/")
        self.connections = Connections(bounds.CONNECTIONS)
        self.budget = Budget(bounds.BODIES_AT_ONCE)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Handler)
        except (OSError, OverflowError, UnicodeError) as error:
            host, port = address
            reason = getattr(error, "strerror", None) or error
            raise HubError(f"{host}:{port}", f"cannot be listened on: {reason}; choose another") from error

    @property
    def endpoint(self) -> str:
        """What clients pass as ``endpoint=``."""
        return self.url or f"http://{_named(*self.server_address[:2])}"

    def origin(self, asked: str | None, reached: tuple[Any, ...]) -> str:
        """The address for links in an answer: this server's own, by the name that the client used where that is one of them.

        Args:
            asked: the header ``Host``.
            reached: host and port that the client connected to.
        """
        if self.url is not None:
            return self.url
        host, port = str(reached[0]), int(reached[1])
        own = {_named(host, port), _named(*self.server_address[:2]), f"{self.server_name}:{port}".lower()}
        if host.startswith("127.") or host in ("::1", "::ffff:127.0.0.1"):
            own.add(f"localhost:{port}")
        known = (asked or "").lower()
        return f"http://{known if known in own else _named(host, port)}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own, or say that there are too many."""
        if self.connections.admit():
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.settimeout(1.0)
            head = (
                f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(FULL)}\r\n"
            )
            request.sendall(f"{head}Retry-After: 5\r\nConnection: close\r\n\r\n".encode() + FULL)
            request.shutdown(socket.SHUT_WR)
            # A connection that is closed with something unread takes the answer with it.
            request.recv(CHUNK)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection, from its first request to its last."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.leave()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection broke: nobody is left to be told, and a traceback is nothing for a log."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.log(_shown(f"failed: {type(error).__name__}: {error}"))

    def server_close(self) -> None:
        """Close the socket and the repositories."""
        super().server_close()
        self.service.close()


class _Handler(BaseHTTPRequestHandler):
    """Turns HTTP into requests and replies into HTTP."""

    protocol_version = "HTTP/1.1"
    server: HubServer
    # Without it every small reply waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True

    def version_string(self) -> str:
        return f"easyteacache-hub/{__version__}"

    def setup(self) -> None:
        super().setup()
        self.patient = PatientSocket(self.connection, self._next_head())
        self.rfile.close()
        self.rfile = self.patient.makefile()
        self._unread = 0

    def finish(self) -> None:
        try:
            self._linger()
        finally:
            self.rfile.close()
            self.wfile.close()

    def _next_head(self) -> Patience:
        return Patience(first=bounds.IDLE_SECONDS, grace=bounds.HEAD_SECONDS, total=math.inf)

    def handle_one_request(self) -> None:
        """Read one request and answer it, whatever it is."""
        self.close_connection = True
        self.requestline, self.request_version, self.command, self._unread = "", "HTTP/1.1", "", 0
        self.patient.patience = self._next_head()
        self.server.connections.waits(self.connection)
        try:
            self.raw_requestline = self.rfile.readline(65537)
            self.server.connections.works(self.connection)
            # A client may send an empty line after a body.
            for _ in range(2):
                if self.raw_requestline.strip(b"\r\n") or not self.raw_requestline:
                    break
                self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline:
                return
            self._answered()
        except TimeoutError:
            if self.patient.patience.bytes:
                with contextlib.suppress(OSError):
                    self._refuse(408, "the request did not come to its end in time")
        finally:
            self.server.connections.works(self.connection)

    def _answered(self) -> None:
        if len(self.raw_requestline) > 65536:
            self._refuse(414, "the address is longer than 65,536 bytes")
            return
        if not self.raw_requestline.strip():
            self._refuse(400, "a request begins with a line METHOD ADDRESS HTTP/1.1")
            return
        # What cannot be parsed is answered by send_error below.
        if not self.parse_request():
            return
        if self.request_version == "HTTP/0.9":
            # Its answers have no status: nobody could tell an error from a file.
            self.send_error(400, "a line without HTTP/1.1 at its end")
            return
        try:
            reply = self._reply()
        except Refusal as refusal:
            reply = refusal.reply()
        except TimeoutError:
            self.close_connection = True
            reply = Refusal(408, "the body did not come in time").reply()
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            self.close_connection = True
            reply = self._failed(error)
        except Exception as error:
            # Nobody may stop the server, or see its inside, by something that was not thought of.
            self.close_connection = True
            reply = self._failed(error)
        self._send(reply)

    def _failed(self, error: Exception) -> Reply:
        self.server.log(_shown(f"failed: {self.requestline}: {type(error).__name__}: {error}"))
        return Refusal(500, "the server failed at this request; its log says why").reply()

    def _reply(self) -> Reply:
        size = self._length()
        self._unread = size
        opened = self.server.service.begin(self._head())
        if size > opened.max_body:
            raise Refusal(413, f"a body of {size} bytes; at most {opened.max_body} are taken here from you")
        with self.server.budget.take(size):
            return self._within(opened, size)

    def _within(self, opened: Opened, size: int) -> Reply:
        if size and self.headers.get("Expect", "").lower() == "100-continue" and self.request_version != "HTTP/1.0":
            self.send_response_only(100)
            self.end_headers()
        grace = bounds.GRACE_SECONDS
        self.patient.patience = Patience(first=grace, grace=grace, rate=bounds.SLOWEST)
        body = self.rfile.read(size)
        self._unread = 0
        if len(body) < size:
            self.close_connection = True
            raise Refusal(400, f"the body ended after {len(body)} of {size} bytes")
        return opened.answer(body)

    def _length(self) -> int:
        """Bytes of the body.

        Raises:
            Refusal: that is not known, or said in two ways.
        """
        lengths = set(self.headers.get_all("Content-Length", ["0"]))
        if self.headers.get("Transfer-Encoding") is not None or len(lengths) > 1:
            self._unread, self.close_connection = bounds.DISCARDED, True
            raise Refusal(411, "a body needs one Content-Length and no Transfer-Encoding")
        length = lengths.pop().strip()
        if not re.fullmatch(r"[0-9]{1,12}", length):
            self._unread, self.close_connection = bounds.DISCARDED, True
            raise Refusal(411 if length[:1].isdigit() else 400, "Content-Length is a number of at most twelve digits")
        return int(length)

    def _head(self) -> Head:
        try:
            address = urlsplit(self.path)
            fields = parse_qs(address.query, max_num_fields=bounds.QUERY_FIELDS)
        except ValueError as error:
            reason = f"the address cannot be read; its query has at most {bounds.QUERY_FIELDS} fields"
            raise Refusal(400, reason) from error
        return Head(
            self.command,
            address.path,
            {name: values[0] for name, values in fields.items()},
            {name.lower(): value for name, value in reversed(self.headers.items())},
            self.server.tokens.user(self.headers.get("Authorization")),
            self.server.origin(self.headers.get("Host"), self.connection.getsockname()),
        )

    def handle_expect_100(self) -> bool:
        """Not before it is known whether the body is wanted."""
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is no HTTP, as the base class found it."""
        # It takes a line without a version for HTTP/0.9, which has no errors.
        self.request_version = "HTTP/1.1"
        self._refuse(int(code), f"this is no request that can be read: {message or self.responses[code][0]}")

    def _refuse(self, status: int, message: str) -> None:
        self.close_connection = True
        self._unread = bounds.DISCARDED
        self._send(Refusal(status, message).reply())

    def _send(self, reply: Reply) -> None:
        self.patient.patience = Patience(
            first=bounds.SEND_SECONDS, grace=bounds.SEND_SECONDS, rate=bounds.SLOWEST, total=math.inf
        )
        if self._unread:
            self.close_connection = True
        stream = reply.content if isinstance(reply.content, Stream) else None
        data = reply.content if isinstance(reply.content, bytes) else b""
        if stream is None and not isinstance(reply.content, bytes):
            data = json.dumps(reply.content).encode()
        size = len(data) if stream is None else stream.size
        chunked = size is None and self.request_version == "HTTP/1.1"
        if size is None and not chunked:
            self.close_connection = True
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, "".join(c if " " <= c <= "~" else "?" for c in value))
        self.send_header("X-Content-Type-Options", "nosniff")
        if size is not None:
            self.send_header("Content-Length", str(size))
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        if self.close_connection:
            self.send_header("Connection", "close")
        head = b"".join(getattr(self, "_headers_buffer", [])) + (b"\r\n" if self.request_version != "HTTP/0.9" else b"")
        self._headers_buffer: list[bytes] = []
        pieces = iter((data,)) if stream is None else stream.pieces
        try:
            self._write(head, pieces, chunked=chunked, size=size)
        finally:
            if stream is not None and hasattr(stream.pieces, "close"):
                stream.pieces.close()

    def _write(self, head: bytes, pieces: Iterator[bytes], *, chunked: bool, size: int | None) -> None:
        if self.command == "HEAD":
            self.patient.sendall(head)
            return
        sent = 0
        for piece in pieces:
            sent += len(piece)
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if chunked and piece else piece
            # One packet for a small answer.
            self.patient.sendall(head + framed)
            head = b""
        self.patient.sendall(head + (b"0\r\n\r\n" if chunked else b""))
        if size is not None and sent != size:
            # What was promised cannot be kept: the client must see that it is not whole.
            self.close_connection = True

    def _linger(self) -> None:
        """Read a little of what was refused: a connection that is closed with something unread takes the answer with it."""
        with contextlib.suppress(OSError, ValueError):
            self.connection.shutdown(socket.SHUT_WR)
            self.patient.patience = Patience(first=1.0, grace=2.0)
            left = min(self._unread, bounds.DISCARDED)
            while left > 0 and (piece := self.rfile.read1(min(left, CHUNK))):  # type: ignore[attr-defined]
                left -= len(piece)

    def log_message(self, format: str, *arguments: object) -> None:
        self.server.log(_shown(format % arguments))


def _named(host: Any, port: Any) -> str:
    name = host.decode() if isinstance(host, (bytes, bytearray)) else str(host)
    return f"{f'[{name}]' if ':' in name else name}:{port}".lower()


def _shown(line: str) -> str:
    """A line of a log: everything that a terminal could act on is spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)[:2000]
