"""Read regular files and nothing else: opening a pipe would wait for somebody to write, and a device may never end."""

from __future__ import annotations

import errno
import os
import stat

# Between the look and the opening a name may come to mean something else: then the opening must not wait either.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class NotRegular(OSError):
    """A folder, pipe, socket or device where a file was expected."""


class TooLarge(OSError):
    """More bytes than are read."""


def read_bytes(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """The content of a regular file of at most ``max_bytes``; links are followed.

    Raises:
        NotRegular: it is a folder, a pipe, a socket or a device.
        TooLarge: it is larger.
        OSError: it cannot be read.
        ValueError: ``path`` cannot be a file name.
    """
    where = os.fspath(path)
    _require_regular(os.stat(where), where)
    descriptor = os.open(where, _FLAGS)
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(os.fstat(descriptor), where)
        # What a file says of its size may change while it is read.
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLarge(errno.EFBIG, f"more than the {max_bytes} bytes that are read", where)
    return data


def _require_regular(status: os.stat_result, where: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(errno.EINVAL, "not a regular file", where)
