"""One question to a hub and its answer, bounded in size and in time, whatever the hub does.

The standard library's HTTP: the three clients that huggingface_hub has had (requests, httpx, httpx2) limit the time between two
bytes, not that of an answer, and its own calls read an answer of any size. Nothing of an answer but its content is obeyed,
except a redirection, and that one never with the token to another address.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import ssl
import threading
import time
import urllib.request
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from http.client import HTTPMessage
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from easyteacache._version import __version__
from easyteacache.hub.patience import CHUNK, Patience, PatientSocket

REDIRECTIONS = 5
LONGEST_ADDRESS = 8192
# What is read of an answer that is an error.
ERROR_BYTES = 64 * 1024
# Connections that wait for the next question, and for how long: servers close them after a while.
IDLE_CONNECTIONS, IDLE_SECONDS = 8, 15.0

Origin = tuple[str, str, int]


@dataclass(frozen=True)
class Limits:
    """How long a question and its answer may take.

    Attributes:
        connect: seconds until there is a connection.
        first: seconds until an answer begins, its head included.
        grace: seconds that the rest may take at any speed.
        slowest: bytes that every further second must bring on average.
        pace: bytes that every further second is given for, so that an answer of at most n bytes ends after
            ``first + grace + n / pace`` seconds in any case.
    """

    connect: float = 10.0
    first: float = 30.0
    grace: float = 30.0
    slowest: float = 4096.0
    pace: float = 256 * 1024.0

    def head(self, first: float | None = None) -> Patience:
        """For the beginning of an answer."""
        seconds = self.first if first is None else first
        return Patience(first=seconds, grace=seconds, total=seconds)

    def content(self, size: int) -> Patience:
        """For the content of an answer, or of a question, of at most ``size`` bytes."""
        total = self.grace + size / self.pace
        return Patience(first=self.grace, grace=self.grace, rate=self.slowest, total=total)

    def sending(self, size: int) -> Patience:
        """For a question of ``size`` bytes: people send more slowly than they receive."""
        total = self.grace + size / self.slowest
        return Patience(first=self.grace, grace=self.grace, rate=self.slowest, total=total)


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        method: ``GET``, ``POST`` or ``PUT``; only ``GET`` follows a redirection and uses a connection twice.
        address: the whole address.
        limit: bytes that the answer may have.
        headers: beside those of every question.
        content: what is sent, in pieces, with its size in bytes; None: nothing.
        first: seconds until the answer begins, where that takes longer than usual.
    """

    method: str
    address: str
    limit: int
    headers: Mapping[str, str] | None = None
    content: tuple[int, Iterable[bytes]] | None = None
    first: float | None = None


@dataclass(frozen=True)
class Answer:
    """What came back: the head and the whole content.

    Attributes:
        commit: the commit that the content is of, as the hub itself says and not a place that it redirects to; empty where it
            says none.
    """

    status: int
    headers: HTTPMessage
    content: bytes
    commit: str = ""


class Unanswered(Exception):
    """No answer that can be used.

    Attributes:
        reason: what happened, the end of a sentence that names the hub.
        again: whether asking again may end otherwise.
    """

    def __init__(self, reason: str, *, again: bool) -> None:
        self.reason, self.again = reason, again
        super().__init__(reason)


class Oversized(Exception):
    """The answer has more bytes than were allowed; no more than these were received."""


class ErrorAnswer(Exception):
    """An answer that is an error.

    Attributes:
        status: its status code.
        code, said: what the server's headers say; texts of a stranger.
        retry_after: the header of this name.
    """

    def __init__(self, status: int, *, code: str = "", said: str = "", retry_after: str = "") -> None:
        self.status, self.code, self.said, self.retry_after = status, code, said, retry_after
        super().__init__(str(status))


class _Plain(http.client.HTTPConnection):
    patience: Patience

    def connect(self) -> None:
        super().connect()
        self.sock: Any = PatientSocket(self.sock, self.patience)


class _Secure(http.client.HTTPSConnection):
    patience: Patience

    def connect(self) -> None:
        super().connect()
        self.sock: Any = PatientSocket(self.sock, self.patience)


class Exchange:
    """Asks one hub; may be used by several threads.

    Args:
        endpoint: the hub's address, the only one that is sent ``token``.
        token: of the person who asks; None: none.
        limits: how long anything may take.
    """

    def __init__(self, endpoint: str, token: str | None, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._home = origin_of(endpoint)
        self._token = token
        self._idle: list[tuple[float, Origin, _Plain | _Secure]] = []
        self._lock = threading.Lock()
        # Closed when nobody uses this any more: a socket that is only forgotten is a warning of the interpreter.
        weakref.finalize(self, _close_all, self._idle)

    def ask(self, question: Question) -> Answer:
        """The answer.

        Raises:
            ErrorAnswer: it is an error.
            Oversized: it is larger than the question allows.
            Unanswered: there is none.
        """
        address, at_home, commit = question.address, True, ""
        for _ in range(REDIRECTIONS + 1):
            origin = origin_of(address)
            at_home = at_home and origin == self._home
            if origin != self._home and origin[0] != "https":
                raise Unanswered("names another address without https, which is not used", again=False)
            answer = self._once(question, address, origin, with_token=at_home)
            if at_home:
                commit = commit or answer.headers.get("X-Repo-Commit", "")
            if answer.status not in (301, 302, 303, 307, 308) or question.method != "GET":
                return replace(_good(answer), commit=commit)
            address = _redirected(address, answer.headers.get("Location", ""))
        raise Unanswered(f"redirects more than {REDIRECTIONS} times", again=False)

    def _once(self, question: Question, address: str, origin: Origin, *, with_token: bool) -> Answer:
        connection = self._waiting(origin) if question.method == "GET" else None
        if connection is not None:
            try:
                return self._through(connection, question, address, origin, with_token=with_token)
            except Unanswered as error:
                # The server may have closed it a moment ago; nothing was asked then.
                if not error.again:
                    raise
        return self._through(_connection(origin, self.limits), question, address, origin, with_token=with_token)

    def _through(
        self, connection: _Plain | _Secure, question: Question, address: str, origin: Origin, *, with_token: bool
    ) -> Answer:
        try:
            answer, stays = self._spoken(connection, question, address, origin, with_token=with_token)
        except BaseException as error:
            connection.close()
            if isinstance(error, TimeoutError):
                reason = f"did not answer in the time there is ({connection.patience.spent()})"
                raise Unanswered(reason, again=False) from error
            if isinstance(error, http.client.HTTPException | ValueError) and not isinstance(error, OSError):
                raise Unanswered(f"answered with what is no HTTP ({type(error).__name__})", again=True) from error
            if isinstance(error, OSError):
                raise Unanswered(f"cannot be reached ({_plainly(error)})", again=True) from error
            raise
        if stays:
            self._keep(origin, connection)
        else:
            connection.close()
        return answer

    def _spoken(
        self, connection: _Plain | _Secure, question: Question, address: str, origin: Origin, *, with_token: bool
    ) -> tuple[Answer, bool]:
        """The answer, and whether the connection can take another question."""
        size, pieces = question.content or (0, ())
        connection.patience = self.limits.sending(size)
        if connection.sock is None:
            _connect(connection)
        connection.sock.patience = connection.patience
        connection.putrequest(question.method, _target(address, origin), skip_accept_encoding=True, skip_host=True)
        for name, value in self._headers(question, origin, with_token=with_token).items():
            connection.putheader(name, value)
        connection.endheaders()
        for piece in pieces:
            connection.send(piece)
        socket = connection.sock
        socket.patience = connection.patience = self.limits.head(question.first)
        response = connection.getresponse()
        try:
            failed = response.status >= 300
            limit = min(question.limit, ERROR_BYTES) if failed else question.limit
            socket.patience = connection.patience = self.limits.content(limit)
            content = _content(response, limit, cut=failed)
            return Answer(response.status, response.headers, content), not response.will_close and response.isclosed()
        finally:
            response.close()

    def _headers(self, question: Question, origin: Origin, *, with_token: bool) -> dict[str, str]:
        scheme, host, port = origin
        name = f"[{host}]" if ":" in host else host
        usual = {"http": 80, "https": 443}[scheme]
        headers = {
            "Host": name if port == usual else f"{name}:{port}",
            "User-Agent": f"easyteacache/{__version__}",
            # A few bytes of a compressed answer may be gigabytes.
            "Accept-Encoding": "identity",
            **(question.headers or {}),
        }
        if question.content is not None:
            headers["Content-Length"] = str(question.content[0])
        if with_token and self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        proxy = _proxy(origin)
        if scheme == "http" and proxy is not None and proxy.username is not None:
            headers["Proxy-Authorization"] = _basic(proxy)
        return headers

    def _waiting(self, origin: Origin) -> _Plain | _Secure | None:
        """A connection that is open already."""
        with self._lock:
            for position, (since, place, connection) in reversed(list(enumerate(self._idle))):
                if time.monotonic() - since > IDLE_SECONDS:
                    del self._idle[position]
                    connection.close()
                elif place == origin:
                    del self._idle[position]
                    return connection
        return None

    def _keep(self, origin: Origin, connection: _Plain | _Secure) -> None:
        with self._lock:
            self._idle.append((time.monotonic(), origin, connection))
            if len(self._idle) > IDLE_CONNECTIONS:
                self._idle.pop(0)[2].close()


def _close_all(idle: list[tuple[float, Origin, _Plain | _Secure]]) -> None:
    while idle:
        idle.pop()[2].close()


def origin_of(address: str) -> Origin:
    """Scheme, host and port of an address.

    Raises:
        Unanswered: it is no address of a hub.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        host, port = None, 0
    if not host or parts.username is not None or not re.fullmatch(r"[\x21-\x7e]+", address):
        raise Unanswered("names an address that is none", again=False)
    return parts.scheme, host, port


def _redirected(address: str, location: str) -> str:
    """Where a redirection leads.

    Raises:
        Unanswered: nowhere that is followed.
    """
    if not location or len(location) > LONGEST_ADDRESS:
        raise Unanswered("redirects without saying where to", again=False)
    try:
        there = urljoin(address, location).partition("#")[0]
    except ValueError as error:
        raise Unanswered("redirects to an address that is none", again=False) from error
    return there


def _good(answer: Answer) -> Answer:
    if answer.status < 300:
        return answer
    headers = answer.headers
    raise ErrorAnswer(
        answer.status,
        code=headers.get("X-Error-Code", ""),
        said=headers.get("X-Error-Message", ""),
        retry_after=headers.get("Retry-After", ""),
    )


def _content(response: http.client.HTTPResponse, limit: int, *, cut: bool) -> bytes:
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise http.client.HTTPException("an encoding that was not asked for")
    if response.length is not None and response.length > limit and not cut:
        raise Oversized
    data = bytearray()
    while piece := response.read(min(CHUNK, limit + 1 - len(data))):
        data += piece
        if len(data) > limit:
            if cut:
                return bytes(data[:limit])
            raise Oversized
    if response.length:
        raise ConnectionResetError("the connection ended before the answer did")
    return bytes(data)


def _target(address: str, origin: Origin) -> str:
    """What the first line of a request names: the path, for a proxy the whole address."""
    if origin[0] == "http" and _proxy(origin) is not None:
        return address
    parts = urlsplit(address)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _connection(origin: Origin, limits: Limits) -> _Plain | _Secure:
    scheme, host, port = origin
    proxy = _proxy(origin)
    at = (host, port) if proxy is None else (proxy.hostname or "", proxy.port or 8080)
    if scheme == "http":
        return _Plain(*at, timeout=limits.connect)
    secure = _Secure(*at, timeout=limits.connect, context=_trust())
    if proxy is not None:
        secure.set_tunnel(host, port, {"Proxy-Authorization": _basic(proxy)} if proxy.username is not None else None)
    return secure


def _proxy(origin: Origin) -> Any:
    """The proxy that the environment names for an address, None for none."""
    scheme, host, port = origin
    named = urllib.request.getproxies()
    proxy = named.get(scheme) or named.get("all")
    if not proxy or urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    try:
        found = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
        if found.hostname and found.port != 0 and found.scheme in ("http", "https"):
            return found
    except ValueError:
        pass
    raise Unanswered(f"is to be reached through a proxy whose address is none: see {scheme}_proxy", again=False)


def _basic(proxy: Any) -> str:
    person = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return "Basic " + base64.b64encode(person.encode()).decode()


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    """Whose certificates are believed: the system's, and those that the usual variables or certifi name."""
    context = ssl.create_default_context()
    named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if named:
        try:
            context.load_verify_locations(cafile=named)
        except OSError as error:
            reason = (
                "cannot be trusted: the file that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names is no list of certificates"
            )
            raise Unanswered(reason, again=False) from error
        return context
    with contextlib.suppress(ImportError):
        import certifi

        context.load_verify_locations(cafile=certifi.where())
    return context


def _connect(connection: _Plain | _Secure) -> None:
    try:
        connection.connect()
    except OSError as error:
        raise Unanswered(f"cannot be reached ({_plainly(error)})", again=True) from error


def _plainly(error: OSError) -> str:
    """The system's words where it has some, and no address: that one the sentence names already."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {error.verify_message}"
    return error.strerror if error.strerror and error.strerror.isprintable() else type(error).__name__
