"""What was downloaded before: content by its SHA-256, and which content an index had at a revision of a hub.

Content found by its hash is what was asked for, whichever hub and commit it came from first. Every name on the disk is made
here, of hashes; nothing that a hub says is part of one.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from easyteacache.errors import InvalidCalibration
from easyteacache.files import atomic_write, strict_json
from easyteacache.records import parsing
from easyteacache.records.fields import Record, Sha256
from easyteacache.registry.lock_file import CommitId

PUBLIC = "https://huggingface.co"
LIBRARY = "easyteacache"
MAX_PIN_BYTES = 4096


def folder_of(namespace: str) -> Path | None:
    """A folder of ours among the client's files for other programs (``$HF_HOME/assets``); None where none can be made."""
    from huggingface_hub import cached_assets_path

    try:
        return Path(cached_assets_path(LIBRARY, namespace=namespace))
    # Its own words for a file in the way, a home that nobody has, a disk that cannot be written.
    except (OSError, ValueError, RuntimeError):
        return None


class Downloads:
    """Content by its hash.

    Args:
        folder: where; None: the client's folder for other programs' downloads.
        max_bytes: the largest content that is read again.
    """

    def __init__(self, folder: Path | None = None, *, max_bytes: int = strict_json.MAX_BYTES) -> None:
        self.folder = folder or folder_of("records")
        self._max_bytes = max_bytes

    def path(self, sha256: str) -> Path | None:
        """Where the content with this hash is kept; None where nothing can be kept."""
        return None if self.folder is None else self.folder / sha256[:2] / sha256[2:]

    def get(self, sha256: str) -> bytes | None:
        """The content with this hash; None when it was never kept, or its copy is damaged."""
        path = self.path(sha256)
        if path is None:
            return None
        try:
            data = parsing.read_file(path, rules="record", max_bytes=self._max_bytes)
        except InvalidCalibration:
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def keep(self, data: bytes) -> str:
        """Keep content for later and return its hash; a full or read-only disk is no reason to fail now."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        if path is not None:
            with contextlib.suppress(OSError):
                atomic_write.write_bytes(path, data, durable=False)
        return sha256


class Pin(Record):
    """Which commit a revision was, and which content a file had there."""

    commit: CommitId
    sha256: Sha256


class Pins:
    """What a repository's revisions were when they were last asked for, for work offline.

    What another hub calls ``team/calibrations`` must never be served as this one's: the names are hashes of hub, repository,
    revision and file.

    Args:
        endpoint: the hub's address.
        repository: ``owner/name``.
        folder: where; None: the client's folder for other programs' downloads.
    """

    def __init__(self, endpoint: str, repository: str, folder: Path | None = None) -> None:
        self._place = (endpoint, repository)
        self._folder = folder or folder_of("indices")

    def get(self, file: str, revision: str) -> Pin | None:
        """What was kept; None when nothing was, or it is damaged."""
        path = self._path(file, revision)
        if path is None:
            return None
        try:
            data = parsing.read_file(path, rules="pin", max_bytes=MAX_PIN_BYTES)
            content = parsing.read_object(data, where="pin", rules="pin", max_bytes=MAX_PIN_BYTES, max_items=10)
            return parsing.validate(Pin, content, where="pin", rules="pin")
        except InvalidCalibration:
            return None

    def keep(self, file: str, revision: str, commit: str, sha256: str) -> None:
        """Remember an answer, under the revision that was asked for and under the commit it was."""
        text = strict_json.spell(Pin(commit=commit, sha256=sha256).model_dump())
        for name in dict.fromkeys((revision, commit)):
            path = self._path(file, name)
            if path is not None:
                with contextlib.suppress(OSError):
                    atomic_write.write_bytes(path, text.encode(), durable=False)

    def _path(self, file: str, revision: str) -> Path | None:
        name = hashlib.sha256("\0".join((*self._place, revision, file)).encode()).hexdigest()
        return None if self._folder is None else self._folder / name[:2] / name[2:]
