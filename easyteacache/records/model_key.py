"""Model keys: the hierarchical name of what was calibrated, ``family/variant[/part]``.

Lower-case ASCII only, so that two keys that look alike are alike, and no key can leave the folder its file lives in.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from easyteacache.errors import InvalidModelKey

MAX_LENGTH = 120
MAX_SEGMENTS = 5
SEGMENT = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
PATTERN = rf"^{SEGMENT}(?:/{SEGMENT}){{0,{MAX_SEGMENTS - 1}}}$"

_KEY = re.compile(PATTERN, re.ASCII)
# Names that Windows gives to devices, with or without an ending: a file of that name cannot be checked out there.
_DEVICES = frozenset({"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)})

# Files beside the index that are no records.
_FILES = frozenset({"wanted"})


def parse(key: object) -> tuple[str, ...]:
    """Split a model key into its segments.

    Args:
        key: for example ``"wan2.1/t2v-14b"``; 1 to 5 segments, at most 120 characters.

    Raises:
        InvalidModelKey: anything else, ``..``, absolute paths and look-alike letters included.
    """
    if not isinstance(key, str):
        raise InvalidModelKey(key, f"a {type(key).__name__}, not text")
    if not key:
        raise InvalidModelKey(key, "it is empty")
    if len(key) > MAX_LENGTH:
        raise InvalidModelKey(key[:40] + "…", f"{len(key)} characters, at most {MAX_LENGTH} allowed")
    if not key.isascii():
        raise InvalidModelKey(key, "it has characters outside ASCII")
    if not _KEY.fullmatch(key):
        raise InvalidModelKey(key, _broken_rule(key))
    if key in _FILES:
        raise InvalidModelKey(key, f"{key!r} would clash with the registry's own file of that name")
    segments = tuple(key.split("/"))
    for segment in segments:
        if ".." in segment:
            raise InvalidModelKey(key, "it contains '..'")
        if is_reserved(segment):
            raise InvalidModelKey(key, f"{segment!r} is a reserved file name on Windows")
        if segment.endswith(".json") or segment == "index":
            raise InvalidModelKey(key, f"{segment!r} would clash with the registry's own file names")
    return segments


def is_valid(key: object) -> bool:
    """True when ``parse`` accepts ``key``."""
    try:
        parse(key)
    except InvalidModelKey:
        return False
    return True


def is_reserved(name: str) -> bool:
    """True when Windows keeps ``name`` for a device, whatever its ending: ``nul``, ``COM1.json``."""
    return name.split(".")[0].rstrip(" ").lower() in _DEVICES


def path_of(key: str) -> PurePosixPath:
    """The record's path inside a registry folder: ``wan2.1/t2v-14b`` → ``wan2.1/t2v-14b.json``."""
    *folders, name = parse(key)
    return PurePosixPath(*folders, f"{name}.json")


def key_of(path: PurePosixPath) -> str:
    """The inverse of ``path_of`` for a path relative to the registry folder.

    Raises:
        InvalidModelKey: when no key has this path.
    """
    text = path.as_posix()
    if not text.endswith(".json"):
        raise InvalidModelKey(text, "its file does not end in '.json'")
    key = text.removesuffix(".json")
    parse(key)
    return key


def nearest(key: str, known: Iterable[str], *, count: int = 3) -> tuple[str, ...]:
    """Up to ``count`` of ``known`` that are spelled most like ``key``, best first; for error messages only."""
    wanted = key.lower()[: 2 * MAX_LENGTH]
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(wanted, by_lower, n=count, cutoff=0.6)
    inside = [name for name in sorted(by_lower) if wanted in name or wanted.split("/")[-1] in name]
    return tuple(dict.fromkeys(by_lower[name] for name in [*close, *inside]))[:count]


def _broken_rule(key: str) -> str:
    if key.startswith("/") or re.match(r"^[A-Za-z]:", key):
        return "it is an absolute path"
    if "\\" in key:
        return "it contains a backslash"
    segments = key.split("/")
    if ".." in segments or "." in segments:
        return "it contains '.' or '..' as a name"
    if "" in segments:
        return "it has an empty name between slashes"
    if len(segments) > MAX_SEGMENTS:
        return f"{len(segments)} names, at most {MAX_SEGMENTS} allowed"
    if key != key.lower():
        return f"it has upper-case letters (did you mean {key.lower()!r}?)"
    return "a name has characters other than a-z, 0-9, '.', '_', '-', or begins or ends with one of the last three"
