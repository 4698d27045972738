"""Write a whole file or none of it: temporary file in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

# What a killed process may leave behind begins and ends like this; nothing ever reads it.
TEMPORARY_PREFIX = ".easyteacache-"
TEMPORARY_SUFFIX = ".tmp"
# From so many files on, one flush of everything costs less than one of each.
MANY_FILES = 32


def write_bytes(path: str | os.PathLike[str], data: bytes, *, durable: bool = True) -> None:
    """Replace ``path`` by ``data`` so that every reader sees the old file or the new one, never a part.

    Folders are made as needed. An existing file keeps its permissions; a new one follows the process's umask, as with
    ``open``. A symbolic link at ``path`` is itself replaced: what it pointed to stays as it was.

    Args:
        path: the file.
        data: its content.
        durable: False for what can be had again: a machine that loses power may then lose the file, or find it damaged.

    Raises:
        OSError: when the folder cannot be written; it names ``path``, which is then as it was.
    """
    target = Path(path)
    with _naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, data, durable=durable)
    if durable:
        _sync_folder(target.parent)


def _replace(target: Path, data: bytes, *, durable: bool) -> None:
    temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    mode = _mode(target)
    # Never more permissions than the file will have, not even while it is being written.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666 if mode is None else mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """``write_bytes`` for UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def fill_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder that nobody reads yet; once this returns, the folder may be made visible.

    Args:
        folder: made as needed.
        files: path relative to it, with forward slashes → content.

    Raises:
        OSError: the disk cannot be written; the folder then holds a part.
    """
    each = len(files) < MANY_FILES or sys.platform != "linux"
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with _naming(path), path.open("xb") as file:
            file.write(data)
            if each:
                file.flush()
                os.fsync(file.fileno())
    if each:
        for parent in {(folder / name).parent for name in files}:
            _sync_folder(parent)
    else:
        # Linux waits here until the data is on the disk; elsewhere the call may return before.
        os.sync()


@contextlib.contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Errors inside name ``target``: a full disk names nothing, and the temporary file's name tells nobody anything."""
    try:
        yield
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else ""
        if error.errno is not None and (not named or os.path.basename(named).startswith(TEMPORARY_PREFIX)):
            error.filename = os.fspath(target)
            # A rename's other name; None would be printed.
            del error.filename2
        raise


def _mode(target: Path) -> int | None:
    try:
        return target.stat().st_mode & 0o777
    except OSError:
        return None


def _sync_folder(folder: Path) -> None:
    # The rename itself is only durable once the folder is; not every platform lets a folder be opened.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
