"""One served repository: its git objects, its pull requests, and who may see it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from easyteacache.hub.server import bounds
from easyteacache.hub.server.git import GitRepository
from easyteacache.hub.server.messages import Refusal
from easyteacache.hub.server.pull_requests import Discussions
from easyteacache.hub.server.tokens import User

MAX_GATE_BYTES = 1 << 20


class Repository:
    """One served repository.

    Args:
        identifier: ``ORG/NAME``.
        folder: its bare git repository.
    """

    def __init__(self, identifier: str, folder: Path) -> None:
        self.id = identifier
        self.git = GitRepository(folder)
        self.requests = Discussions(self.git, identifier)

    def commit(self, revision: str) -> str:
        """The commit of a revision, quoted as in a URL.

        Raises:
            Refusal: there is none.
        """
        found = self.git.resolve(unquote(revision))
        if found is None:
            raise Refusal(404, f"Invalid rev id: {unquote(revision)[:80]!r}", "RevisionNotFound")
        return found

    @property
    def private(self) -> bool:
        """Whether only people with a token may see it."""
        return (self.git.folder / "private").exists()

    def require_visible(self, user: User | None) -> None:
        """Refuse who may not see this repository.

        Raises:
            Refusal: it is private or gated.
        """
        if self.private and user is None:
            raise Refusal(401, f"Repository {self.id} not found", "RepoNotFound")
        gate = self.git.folder / "gated"
        if gate.exists():
            with gate.open(encoding="utf-8", errors="replace") as file:
                names = file.read(MAX_GATE_BYTES).split()
            if user is None or user.name not in names:
                raise Refusal(403, f"Access to {self.id} is restricted", "GatedRepo")

    def require_room(self) -> None:
        """Refuse to store more where the disk is nearly full.

        Raises:
            Refusal: it is.
        """
        free = shutil.disk_usage(self.git.folder).free
        if free < bounds.FREE_DISK:
            raise Refusal(507, f"the server's disk has {free >> 20} MiB left; nothing more is stored")


def require(user: User | None, role: Any) -> User:
    """The user, when the role allows it.

    Raises:
        Refusal: no token, an unknown one, or not enough rights.
    """
    if user is None:
        raise Refusal(401, "Invalid credentials in Authorization header")
    if not user.may(role):
        raise Refusal(403, f"your token has the role {user.role!r}; this needs {role!r}")
    return user
