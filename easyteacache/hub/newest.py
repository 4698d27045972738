"""The newest commit that was seen of each hub: an older one is not taken for the newest because a hub shows it again.

A hub that was set back, a mirror that stopped, or somebody between who repeats an old answer would otherwise bring back a
record that was yanked for a reason. What only stands still cannot be told from a hub where nothing happens.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path

from easyteacache.errors import HubError, InvalidCalibration
from easyteacache.files import atomic_write, strict_json
from easyteacache.hub.alone import alone
from easyteacache.hub.remote import Remote
from easyteacache.records import parsing
from easyteacache.records.fields import Record, ShortText
from easyteacache.registry import registry
from easyteacache.registry.lock_file import CommitId

RULES = "seen"
MAX_BYTES = 16 * 1024
# How far back a hub's history is looked through.
MAX_COMMITS = 20_000


class RolledBack(HubError):
    """A hub shows a commit that does not follow the newest one seen of it."""


class _Seen(Record):
    """The newest commit of one revision of one repository."""

    endpoint: ShortText
    repository: ShortText
    revision: ShortText
    commit: CommitId


class Newest:
    """What was seen, one small file for each revision of each repository below this machine's home.

    Args:
        home: where this machine's own layers live; None: ``registry.home()``.
    """

    def __init__(self, home: Path | None = None) -> None:
        self._folder = (home or registry.home()) / "seen"

    def check(self, remote: Remote, revision: str | None, commit: str) -> None:
        """Refuse a commit that does not follow the newest one seen. A revision that is a commit's id is that commit.

        Raises:
            RolledBack: it does not follow.
            HubError: the hub cannot be asked, or what was seen cannot be read.
        """
        name = revision or "main"
        if remote.offline or _is_commit(name):
            return
        seen = self.get(remote, name)
        if seen is None or seen == commit:
            return
        if any(one.id == seen for one in remote.log(commit, count=MAX_COMMITS)):
            return
        raise RolledBack(
            remote.repository,
            f"{name} is at {commit[:12]}, which does not follow {seen[:12]}, the newest commit seen of {remote.endpoint}: "
            "an older state, or a history written anew. Ask its owners; --allow-rollback takes it nevertheless",
        )

    def get(self, remote: Remote, revision: str) -> str | None:
        """The newest commit seen, None where none was.

        Raises:
            HubError: the file that says it is damaged.
        """
        path = self._path(remote, revision)
        if not os.path.lexists(path):
            return None
        try:
            data = parsing.read_file(path, rules=RULES, max_bytes=MAX_BYTES)
            content = parsing.read_object(data, where=str(path), rules=RULES, max_bytes=MAX_BYTES, max_items=100)
            return parsing.validate(_Seen, content, where=str(path), rules=RULES).commit
        except InvalidCalibration as error:
            advice = "--allow-rollback takes what the hub shows and writes it anew"
            raise HubError(remote.repository, f"the newest commit seen is not known: {error}; {advice}") from error

    def remember(self, remote: Remote, revision: str | None, commit: str, *, instead_of: str | None) -> None:
        """Write down what was taken; a disk that cannot be written is no reason to fail.

        Args:
            remote: where.
            revision: what was asked for.
            commit: what it was.
            instead_of: what was known before; another process may have seen something newer since, which stays.
        """
        name = revision or "main"
        if remote.offline or _is_commit(name) or commit == instead_of:
            return
        path = self._path(remote, name)
        seen = _Seen(endpoint=remote.endpoint, repository=remote.repository, revision=name, commit=commit)
        with contextlib.suppress(OSError), alone(path):
            if self._known(remote, name) == instead_of:
                atomic_write.write_text(path, strict_json.spell(seen.model_dump()))

    def known(self, remote: Remote, revision: str | None) -> str | None:
        """``get``, and None for what is damaged as well."""
        return self._known(remote, revision or "main")

    def _known(self, remote: Remote, revision: str) -> str | None:
        try:
            return self.get(remote, revision)
        except HubError:
            return None

    def _path(self, remote: Remote, revision: str) -> Path:
        name = "\0".join((remote.endpoint, remote.repository, revision))
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def _is_commit(revision: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None
