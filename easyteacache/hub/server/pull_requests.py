"""Pull requests of a served repository: small JSON files beside the git objects, the commits under ``refs/pr/N``.

Bounded when they are written, so that no one can make them unreadable for the others; one that is damaged nevertheless is left
out of lists and hinders nothing but itself.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from easyteacache.errors import HubError, InvalidCalibration
from easyteacache.files import atomic_write, strict_json
from easyteacache.hub.server import bounds
from easyteacache.hub.server.git import GitRepository, StaleReference
from easyteacache.records import parsing

# Merges that another writer of main (a push by git, say) may come in between of.
MERGE_ATTEMPTS = 5
# Another server of the same folder holds the lock for one change at a time.
LOCK_SECONDS = 60
_SUMMARY = ("num", "title", "author", "createdAt", "status", "isPullRequest", "repo", "mergeCommitId")


class TooMuch(HubError):
    """More than one contributor may store here."""


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
        self._process_lock = FileLock(repository.folder / "requests.lock", timeout=LOCK_SECONDS)
        # (modification time, size) and summary of each page, so that a list reads only what changed.
        self._summaries: dict[int, tuple[tuple[int, int], dict[str, Any] | None]] = {}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread of one process at a time: several servers may serve one folder."""
        with self._thread_lock:
            try:
                self._process_lock.acquire()
            except Timeout as error:
                raise HubError(self._name, "another server is changing the pull requests: try again") from error
            try:
                yield
            finally:
                self._process_lock.release()

    def open(self, commit: str, title: str, description: str, author: str) -> int:
        """Open a request whose branch is at ``commit``; returns its number."""
        with self._alone():
            # The reference comes first and claims the number: a crash between the two leaves a request without a page.
            names = (name.rsplit("/", 1)[1] for name in self._git.references() if name.startswith("refs/pr/"))
            taken = [int(name) for name in names if _is_number(name)]
            number = max(taken, default=0) + 1
            self._git.move(f"refs/pr/{number}", commit, None)
            self._write(number, self._page(number, title, description, author), bounds.PAGE_READ)
        return number

    def require_room(self, author: str, *, bounded: bool) -> None:
        """Refuse another open request of somebody who has many.

        Args:
            author: who opens it.
            bounded: False for who may write.

        Raises:
            TooMuch: there are as many as one contributor may have.
        """
        if not bounded:
            return
        own = [page for page in self.summaries() if page["author"]["name"] == author]
        unfinished = sum(page["status"] == "open" for page in own)
        if unfinished >= bounds.OPEN_REQUESTS:
            reason = f"you have {unfinished} open pull requests, and {bounds.OPEN_REQUESTS} is the most: close some"
            raise TooMuch(self._name, reason)
        if len(own) >= bounds.REQUESTS:
            raise TooMuch(self._name, f"you have opened {len(own)} pull requests, the most that one contributor may")

    def require_events(self, number: int, *, bounded: bool) -> None:
        """Refuse another event of a request that has many.

        Raises:
            TooMuch: there are as many as contributors may cause.
            HubError: there is no such request.
        """
        if bounded and len(self.get(number)["events"]) >= bounds.EVENTS:
            raise TooMuch(self._name, f"pull request {number} has {bounds.EVENTS} events: open another one")

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
        _add_comment(page, author, description)
        return page

    def summaries(self) -> Iterator[dict[str, Any]]:
        """Every request that can be read, newest first, without its events."""
        for number in self._numbers():
            try:
                found = self._path(number).stat()
            except OSError:
                continue
            state = (found.st_mtime_ns, found.st_size)
            known = self._summaries.get(number)
            if known is None or known[0] != state:
                known = (state, self._summary(number))
                self._summaries[number] = known
            if known[1] is not None:
                yield known[1]

    def _summary(self, number: int) -> dict[str, Any] | None:
        try:
            page = self.get(number)
        except HubError:
            return None
        return {name: page.get(name) for name in _SUMMARY}

    def _numbers(self) -> list[int]:
        try:
            names = [name.removesuffix(".json") for name in os.listdir(self._folder) if name.endswith(".json")]
        except OSError:
            return []
        return sorted((int(name) for name in names if _is_number(name)), reverse=True)

    def all(self) -> Iterator[dict[str, Any]]:
        """Every request that can be read, newest first."""
        for number in self._numbers():
            with contextlib.suppress(HubError):
                yield self.get(number)

    def get(self, number: int) -> dict[str, Any]:
        """One request's page.

        Raises:
            HubError: there is none of this number, or its file is damaged.
        """
        path = self._path(number)
        if not path.is_file():
            raise HubError(self._name, f"no pull request {number}")
        try:
            data = parsing.read_file(path, rules="request", max_bytes=bounds.PAGE_READ)
            page = strict_json.parse(data, max_bytes=bounds.PAGE_READ)
        except (InvalidCalibration, strict_json.JSONTextError) as error:
            raise HubError(self._name, f"the file of pull request {number} is damaged: {error}") from error
        if not (
            isinstance(page, dict)
            and isinstance(page.get("events"), list)
            and isinstance(page.get("author"), dict)
            and all(name in page for name in _SUMMARY)
        ):
            raise HubError(self._name, f"the file of pull request {number} is damaged: it is no request")
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
            self._write(number, page, bounds.PAGE_READ)

    def comment(self, number: int, author: str, text: str, *, bounded: bool = False) -> dict[str, Any]:
        """Add a comment; returns the event.

        Args:
            number: of the request.
            author: who says it.
            text: what.
            bounded: whether the bounds of contributors hold.

        Raises:
            TooMuch: there are as many as may be.
        """
        with self._alone():
            self.require_events(number, bounded=bounded)
            page = self.get(number)
            own = sum(e["type"] == "comment" and e["author"]["name"] == author for e in page["events"])
            if bounded and own >= bounds.COMMENTS:
                raise TooMuch(self._name, f"you have written {own} comments here, and {bounds.COMMENTS} is the most")
            event = _add_comment(page, author, text)
            self._write(number, page, bounds.PAGE)
        return event

    def set_status(
        self, number: int, author: str, status: str, comment: str = "", *, bounded: bool = False
    ) -> dict[str, Any]:
        """Close or reopen, with a comment unless that is empty; returns the event. Arguments and errors as for ``comment``."""
        with self._alone():
            self.require_events(number, bounded=bounded)
            page = self.get(number)
            page["status"] = status
            if comment:
                _add_comment(page, author, comment)
            event = _add_event(page, "status-change", author, {"status": status})
            self._write(number, page, bounds.PAGE if bounded else bounds.PAGE_READ)
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
            if head is None:
                raise HubError(self._name, f"the branch of pull request {number} is gone")
            title = f"{page['title']} (pull request {number})"
            # A crash after main moved and before the page was written leaves a merged request that says it is open.
            merged = self._git.resolve("main") if self._git.contains(head) else self._join(head, title, author)
            assert merged is not None
            page |= {"mergeCommitId": merged, "status": "merged"}
            _add_event(page, "status-change", author, {"status": "merged"})
            self._write(number, page, bounds.PAGE_READ)
        return merged

    def _join(self, head: str, title: str, author: str) -> str:
        for _ in range(MERGE_ATTEMPTS - 1):
            with contextlib.suppress(StaleReference):
                return self._git.merge(head, title, author)
        return self._git.merge(head, title, author)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.json"

    def _write(self, number: int, page: dict[str, Any], limit: int) -> None:
        text = strict_json.spell(page)
        if len(text.encode()) > limit:
            raise TooMuch(self._name, f"pull request {number} would have more than {limit} bytes")
        atomic_write.write_text(self._path(number), text)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= 9


def _add_comment(page: dict[str, Any], author: str, text: str) -> dict[str, Any]:
    return _add_event(page, "comment", author, {"edited": False, "hidden": False, "latest": {"raw": text}})


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
