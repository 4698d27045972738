"""``git clone`` and ``git fetch`` over HTTP, read-only: git's own program answers, as git-http-backend lets it."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator

from easyteacache.hub.server import bounds
from easyteacache.hub.server.git import PIECE, environment
from easyteacache.hub.server.messages import Refusal, Reply, Request, Stream
from easyteacache.hub.server.repository import Repository

SERVICE = "git-upload-pack"
# What git sends of what it has and wants; a packed body may not grow beyond it.
MAX_NEGOTIATION = 4 * bounds.MIB
_FREE = threading.BoundedSemaphore(bounds.CLONES_AT_ONCE)
_NO_CACHE = {"Cache-Control": "no-cache, max-age=0, must-revalidate"}


def advertise(repository: Repository, request: Request, _: dict[str, str]) -> Reply:
    """What there is to fetch."""
    service = request.query.get("service", "")
    if service == "git-receive-pack":
        raise Refusal(501, "this server takes no `git push`: propose with `easyteacache-hub push`, or push on its disk")
    if service != SERVICE:
        raise Refusal(501, "this server speaks git's smart protocol alone: use git 1.6.6 or newer")
    command = ["git", "upload-pack", "--stateless-rpc", "--advertise-refs", str(repository.git.folder)]
    done = subprocess.run(command, capture_output=True, check=False, env=_seen(request), timeout=bounds.CLONE_SECONDS)
    if done.returncode:
        raise Refusal(500, "git cannot read this repository")
    line = f"# service={SERVICE}\n"
    head = b"" if _version(request) == "2" else f"{len(line) + 4:04x}{line}0000".encode()
    kind = {"Content-Type": f"application/x-{SERVICE}-advertisement"}
    return Reply(head + done.stdout, 200, kind | _NO_CACHE)


def fetch(repository: Repository, request: Request, _: dict[str, str]) -> Reply:
    """The objects that a client lacks."""
    body = _unpacked(request)
    if not _FREE.acquire(timeout=5.0):
        raise Refusal(503, "too many clones at once: try again in a minute", None, {"Retry-After": "30"})
    pieces = _objects(repository, request, body)
    # Begun here: what was never begun is never ended either, and would keep its place for ever.
    next(pieces)
    return Reply(Stream(pieces), 200, {"Content-Type": f"application/x-{SERVICE}-result"} | _NO_CACHE)


def _objects(repository: Repository, request: Request, body: bytes) -> Iterator[bytes]:
    """Nothing, then what git answers, piece by piece; gives the free place back at its end."""
    try:
        yield b""
        with tempfile.TemporaryFile() as asked:
            asked.write(body)
            asked.seek(0)
            command = ["git", "upload-pack", "--stateless-rpc", str(repository.git.folder)]
            process = subprocess.Popen(
                command, stdin=asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_seen(request)
            )
            assert process.stdout is not None
            end = time.monotonic() + bounds.CLONE_SECONDS
            try:
                while time.monotonic() < end and (piece := process.stdout.read1(PIECE)):  # type: ignore[attr-defined]
                    yield piece
            finally:
                process.stdout.close()
                process.kill()
                process.wait()
    finally:
        _FREE.release()


def _unpacked(request: Request) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return request.body
    if encoding not in ("gzip", "x-gzip"):
        raise Refusal(415, f"a body in the encoding {encoding[:40]!r} is not read")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        data = unpacker.decompress(request.body, MAX_NEGOTIATION)
    except zlib.error as error:
        raise Refusal(400, "the body is not in the encoding that it says") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise Refusal(413, f"a body of more than {MAX_NEGOTIATION} bytes")
    return data


def _version(request: Request) -> str:
    """The version of git's protocol that the client asks for."""
    return "2" if request.headers.get("git-protocol", "").strip() == "version=2" else "0"


def _seen(request: Request) -> dict[str, str]:
    return environment(GIT_PROTOCOL="version=2") if _version(request) == "2" else environment()
