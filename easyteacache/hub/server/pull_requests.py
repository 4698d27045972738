"""Pull requests of a served repository: small JSON files beside the git objects, the commits under ``refs/pr/N``."""

from __future__ import annotations

import contextlib
import datetime
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from easyteacache.errors import HubError
from easyteacache.files import atomic_write, strict_json
from easyteacache.hub.server.git import GitRepository, StaleReference

# Merges that another writer of main (a push by git, say) may come in between of.
MERGE_ATTEMPTS = 5


def now() -> str:
    """This moment as the hub's clients parse it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Discussions:
    """The pull requests of one repository."""

    def __init__(self, repository: GitRepository, name: str) -> None:
        self._git = repository
        self._name = name
        self._folder = repository.folder / "requests"
        self._thread_lock = threading.RLock()
        self._process_lock = FileLock(repository.folder / "requests.lock")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread of one process at a time: several servers may serve one folder."""
        with self._thread_lock, self._process_lock:
            yield

    def open(self, commit: str, title: str, description: str, author: str) -> int:
        """Open a request whose branch is at ``commit``; returns its number."""
        with self._alone():
            # The reference comes first and claims the number: a crash between the two leaves a request without a page.
            taken = [int(name.rsplit("/", 1)[1]) for name in self._git.references() if name.startswith("refs/pr/")]
            number = max(taken, default=0) + 1
            self._git.move(f"refs/pr/{number}", commit, None)
            self._write(number, self._page(number, title, description, author))
        return number

    def _page(self, number: int, title: str, description: str, author: str) -> dict[str, Any]:
        page = {
            "num": number,
            "title": title,
            "author": {"name": author},
            "createdAt": now(),
            "status": "open",
            "isPullRequest": True,
            "repo": {"name": self._name, "type": "dataset"},
            "mergeCommitId": None,
            "events": [],
        }
        _add_event(page, "comment", author, {"edited": False, "hidden": False, "latest": {"raw": description}})
        return page

    def all(self) -> Iterator[dict[str, Any]]:
        """Every request, newest first."""
        files = self._folder.glob("*.json") if self._folder.is_dir() else ()
        for number in sorted((int(path.stem) for path in files if path.stem.isdigit()), reverse=True):
            yield self.get(number)

    def get(self, number: int) -> dict[str, Any]:
        """One request's page.

        Raises:
            HubError: there is none of this number.
        """
        path = self._path(number)
        if not path.is_file():
            raise HubError(self._name, f"no pull request {number}")
        page = strict_json.parse(path.read_bytes())
        assert isinstance(page, dict)
        return page

    def details(self, number: int) -> dict[str, Any]:
        """One request with its branch and what hinders a merge."""
        page = self.get(number)
        head = self._git.resolve(f"refs/pr/{number}")
        conflicts = self._git.conflicts(head) if head and page["status"] == "open" else ()
        changes = {"base": "refs/heads/main", "mergeCommitId": page["mergeCommitId"]}
        return {**page, "changes": changes, "filesWithConflicts": list(conflicts), "diff": ""}

    def note_commit(self, number: int, author: str, subject: str, oid: str) -> None:
        """Remember that the request's branch got a commit."""
        with self._alone():
            page = self.get(number)
            _add_event(page, "commit", author, {"subject": subject, "oid": oid})
            self._write(number, page)

    def comment(self, number: int, author: str, text: str) -> dict[str, Any]:
        """Add a comment; returns the event."""
        with self._alone():
            page = self.get(number)
            data = {"edited": False, "hidden": False, "latest": {"raw": text}}
            event = _add_event(page, "comment", author, data)
            self._write(number, page)
        return event

    def set_status(self, number: int, author: str, status: str) -> dict[str, Any]:
        """Close or reopen; returns the event."""
        with self._alone():
            page = self.get(number)
            page["status"] = status
            event = _add_event(page, "status-change", author, {"status": status})
            self._write(number, page)
        return event

    def merge(self, number: int, author: str) -> str:
        """Merge the request into main; returns the merge commit. Merging a merged one again changes nothing.

        Raises:
            HubError: it is closed, or git cannot join it.
        """
        with self._alone():
            page = self.get(number)
            if page["mergeCommitId"]:
                return str(page["mergeCommitId"])
            if page["status"] != "open":
                raise HubError(self._name, f"pull request {number} is {page['status']}")
            head = self._git.resolve(f"refs/pr/{number}")
            assert head is not None
            title = f"{page['title']} (pull request {number})"
            # A crash after main moved and before the page was written leaves a merged request that says it is open.
            merged = self._git.resolve("main") if self._git.contains(head) else self._join(head, title, author)
            assert merged is not None
            page |= {"mergeCommitId": merged, "status": "merged"}
            _add_event(page, "status-change", author, {"status": "merged"})
            self._write(number, page)
        return merged

    def _join(self, head: str, title: str, author: str) -> str:
        for _ in range(MERGE_ATTEMPTS - 1):
            with contextlib.suppress(StaleReference):
                return self._git.merge(head, title, author)
        return self._git.merge(head, title, author)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.json"

    def _write(self, number: int, page: dict[str, Any]) -> None:
        atomic_write.write_text(self._path(number), strict_json.spell(page))


def _add_event(page: dict[str, Any], kind: str, author: str, data: dict[str, Any]) -> dict[str, Any]:
    event = {
        "id": f"{page['num']}-{len(page['events'])}",
        "type": kind,
        "createdAt": now(),
        "author": {"name": author},
        "data": data,
    }
    page["events"].append(event)
    return event
