"""Addresses made of texts that nobody vouches for: a link goes where its form says, or there is none."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

_REPOSITORY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,99})/[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,99})")
_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")
_URL = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:[/?#][!-~]*)?")
_IN_TEXT = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:[/?#][!#-;=?-~]*[A-Za-z0-9/=#_-])?")


def web(text: str | None) -> str | None:
    """``text`` itself where all of it is an http or https address without a user name; else None."""
    if text is None or not _URL.fullmatch(text) or "@" in urlsplit(text).netloc:
        return None
    return text


def github(
    repository: str | None, path: str | None = None, commit: str | None = None, line: int | None = None
) -> str | None:
    """Address of a repository, or of a file of it; None where ``repository`` is not ``owner/name``."""
    if repository is None or not _REPOSITORY.fullmatch(repository) or ".." in repository:
        return None
    address = f"https://github.com/{repository}"
    if path is None or ".." in path:
        return address
    place = commit if commit is not None and _COMMIT.fullmatch(commit) else "HEAD"
    return f"{address}/blob/{place}/{quote(path)}" + (f"#L{line}" if line else "")


def hub_repository(name: str | None, commit: str | None = None) -> str | None:
    """Address of a model at the Hugging Face Hub; None where ``name`` is not ``owner/name``."""
    if name is None or not _REPOSITORY.fullmatch(name) or ".." in name:
        return None
    place = f"/tree/{commit}" if commit is not None and _COMMIT.fullmatch(commit) else ""
    return f"https://huggingface.co/{name}{place}"


def sources(text: str) -> list[tuple[str, str | None]]:
    """``text`` in pieces, each with the address it is: an http address, or ``owner/name, path`` at GitHub; None for the rest."""
    whole = web(text)
    if whole is not None:
        return [(text, whole)]
    repository, comma, path = text.partition(", ")
    if comma and _REPOSITORY.fullmatch(repository) and re.fullmatch(r"[\w./ +-]+", path):
        return [(text, github(repository, path))]
    pieces: list[tuple[str, str | None]] = []
    end = 0
    for found in _IN_TEXT.finditer(text):
        address = web(found[0])
        if address is not None:
            pieces += [(text[end : found.start()], None), (found[0], address)]
            end = found.end()
    return [piece for piece in (*pieces, (text[end:], None)) if piece[0]]
