"""What was downloaded before: indices by hub and commit in the client's cache, records by the SHA-256 of their content.

A record found by its hash is the one that was asked for, whichever hub and commit it came from first.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from huggingface_hub import constants

from easyteacache.errors import InvalidCalibration
from easyteacache.files import atomic_write, strict_json
from easyteacache.records import parsing

PUBLIC = "https://huggingface.co"
LIBRARY = "easyteacache"


def folder_of(endpoint: str) -> Path | None:
    """Where the client keeps a hub's files; None: its usual cache.

    That cache knows repositories by name alone. What another hub calls ``team/calibrations`` must never be served as this one's.
    """
    from huggingface_hub import cached_assets_path

    if endpoint.rstrip("/") in (PUBLIC, constants.ENDPOINT.rstrip("/")):
        return None
    name = hashlib.sha256(endpoint.encode()).hexdigest()[:16]
    return Path(cached_assets_path(LIBRARY, namespace="hubs", subfolder=name))


class Downloads:
    """Records by content, in the client's folder for other programs' downloads (``$HF_HOME/assets``).

    Args:
        folder: another place.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from huggingface_hub import cached_assets_path

        self.folder = folder or Path(cached_assets_path(LIBRARY, namespace="records"))

    def path(self, sha256: str) -> Path:
        """Where the content with this hash is kept."""
        return self.folder / sha256[:2] / sha256[2:]

    def get(self, sha256: str) -> bytes | None:
        """The content with this hash; None when it was never kept, or its copy is damaged."""
        try:
            data = parsing.read_file(self.path(sha256), rules="record", max_bytes=strict_json.MAX_BYTES)
        except InvalidCalibration:
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def keep(self, data: bytes) -> None:
        """Keep content for later; a full or read-only disk is no reason to fail now."""
        with contextlib.suppress(OSError):
            atomic_write.write_bytes(self.path(hashlib.sha256(data).hexdigest()), data, durable=False)
