"""What is sent to a hub to make one commit: lines of JSON, each file inside one in base64 or named by its hash.

The Hub's commit interface and Git LFS's batch interface (git-lfs/docs/api/batch.md), as huggingface_hub speaks them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Set
from typing import Any

FILES_A_QUESTION = 256
SAMPLE_BYTES = 512


class CommitContent:
    """One commit before it exists.

    Args:
        files: path → content.
        title: first line of its message.
        description: the rest.
        parent: the commit it follows.
    """

    def __init__(self, files: Mapping[str, bytes], title: str, description: str, parent: str) -> None:
        self._files = dict(sorted(files.items()))
        self._header = {"summary": title, "description": description, "parentCommit": parent}
        self._sha256 = {path: hashlib.sha256(data).hexdigest() for path, data in self._files.items()}

    def samples(self) -> Iterator[list[dict[str, Any]]]:
        """Path, size and beginning of the files, some at a time: a hub decides by them where each is stored."""
        names = list(self._files)
        for start in range(0, len(names), FILES_A_QUESTION):
            some = ((path, self._files[path]) for path in names[start : start + FILES_A_QUESTION])
            yield [
                {"path": path, "sample": base64.b64encode(data[:SAMPLE_BYTES]).decode(), "size": len(data)}
                for path, data in some
            ]

    def objects(self, large: Set[str]) -> dict[str, Any]:
        """The question where the contents of ``large`` files go."""
        sizes = {self._sha256[path]: len(self._files[path]) for path in large}
        objects = [{"oid": oid, "size": size} for oid, size in sorted(sizes.items())]
        return {"operation": "upload", "transfers": ["basic"], "hash_algo": "sha256", "objects": objects}

    def by_sha256(self, oid: str) -> bytes:
        """The content with this hash, one of those in ``objects``."""
        return next(self._files[path] for path, known in self._sha256.items() if known == oid)

    def size(self, large: Set[str]) -> int:
        """Bytes of all ``pieces``."""
        return sum(map(len, self.pieces(large)))

    def pieces(self, large: Set[str]) -> Iterator[bytes]:
        """The commit, line by line."""
        yield _line("header", self._header)
        for path, data in self._files.items():
            if path in large:
                yield _line("lfsFile", {"path": path, "algo": "sha256", "oid": self._sha256[path], "size": len(data)})
            else:
                content = base64.b64encode(data).decode()
                yield _line("file", {"content": content, "path": path, "encoding": "base64"})


def _line(key: str, value: dict[str, Any]) -> bytes:
    return json.dumps({"key": key, "value": value}).encode() + b"\n"
