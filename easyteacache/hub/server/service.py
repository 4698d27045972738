"""The part of the Hub's HTTP interface that registries need, over bare git repositories: every answer, no sockets."""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from easyteacache.errors import HubError
from easyteacache.hub.server.git import COMMIT, GitRepository, MergeConflict, StaleReference, safe_path
from easyteacache.hub.server.messages import Refusal, Reply, Request, json_object
from easyteacache.hub.server.pull_requests import Discussions
from easyteacache.hub.server.tokens import User

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAMED = re.compile(NAME)
_REPOSITORY = rf"(?P<org>{NAME})/(?P<name>{NAME})"
STALE = "A commit has happened since. Please refresh and try again."
Answer = Callable[["HubService", "Repository", Request, dict[str, str]], Reply]


class Repository:
    """One served repository: its git objects and its pull requests."""

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


class HubService:
    """Answers requests about the repositories in one folder.

    Args:
        folder: holds ``datasets/ORG/NAME.git``, made on demand. A file ``private`` or ``gated`` in a repository's folder hides
            it from everybody without a token, or lists the names it is open to, one a line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, Repository] = {}
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Reply:
        """The reply to one request; refusals are replies too."""
        try:
            return self._route(request)
        except Refusal as refusal:
            return refusal.reply()
        except StaleReference:
            return Refusal(412, STALE).reply()
        except MergeConflict as error:
            return Refusal(409, error.reason).reply()
        except HubError as error:
            return Refusal(400, error.reason).reply()

    def _route(self, request: Request) -> Reply:
        for method, pattern, answer in _GENERAL:
            if request.method == method and re.fullmatch(pattern, request.path):
                return answer(self, request)
        for method, pattern, one in _ROUTES:
            match = re.fullmatch(pattern, request.path)
            if match and request.method in method.split():
                found = match.groupdict()
                return one(self, self._repository(found["org"], found["name"], request.user), request, found)
        raise Refusal(404, f"this server has no {request.method} {request.path[:200]}")

    def close(self) -> None:
        """End the processes that read from repositories."""
        for repository in self._open.values():
            repository.git.close()

    def _repository(self, org: str, name: str, user: User | None) -> Repository:
        folder = self.folder / "datasets" / org / f"{name}.git"
        if ".." in org or ".." in name or not folder.is_dir():
            raise Refusal(404, f"Repository {org}/{name} not found", "RepoNotFound")
        if (folder / "private").exists() and user is None:
            raise Refusal(401, f"Repository {org}/{name} not found", "RepoNotFound")
        gate = folder / "gated"
        if gate.exists() and (user is None or user.name not in gate.read_text(encoding="utf-8").split()):
            raise Refusal(403, f"Access to {org}/{name} is restricted", "GatedRepo")
        with self._lock:
            return self._open.setdefault(f"{org}/{name}", Repository(f"{org}/{name}", folder))

    # What concerns no repository --------------------------------------------------------------------------------------

    def whoami(self, request: Request) -> Reply:
        """Who the token belongs to."""
        user = require(request.user, "read")
        role = {"auth": {"accessToken": {"displayName": "token", "role": user.role}}}
        return Reply({"type": "user", "name": user.name, "orgs": [], **role})

    def create(self, request: Request) -> Reply:
        """Make a dataset repository."""
        user = require(request.user, "write")
        wanted = request.json()
        name, org = wanted.get("name"), wanted.get("organization") or user.name
        if wanted.get("type") != "dataset":
            raise Refusal(400, "this server holds dataset repositories only")
        if not (isinstance(name, str) and isinstance(org, str) and _NAMED.fullmatch(name) and _NAMED.fullmatch(org)):
            raise Refusal(400, "a repository is named ORG/NAME, of letters, digits, '.', '_' and '-'")
        if ".." in name or ".." in org:
            raise Refusal(400, "a repository's name has no '..'")
        repository = Repository(f"{org}/{name}", self.folder / "datasets" / org / f"{name}.git")
        url = {"url": f"{request.origin}/datasets/{repository.id}", "name": repository.id}
        with self._lock:
            exists = repository.git.folder.exists()
            if not exists:
                repository.git.create()
        if (wanted.get("private") or wanted.get("visibility") == "private") and not exists:
            (repository.git.folder / "private").touch()
        return Reply(url | {"error": "You already created this dataset repo"}, 409) if exists else Reply(url)

    def check_card(self, _: Request) -> Reply:
        """Dataset cards are not judged here."""
        return Reply({"errors": [], "warnings": []})

    # Reading ----------------------------------------------------------------------------------------------------------

    def info(self, repository: Repository, _: Request, found: dict[str, str]) -> Reply:
        """A repository at a revision, with its files."""
        commit = repository.commit(found.get("revision") or "main")
        files = [{"rfilename": e.path} for e in repository.git.entries(commit, recursive=True) if e.kind == "blob"]
        about = {"id": repository.id, "sha": commit, "siblings": files, "tags": [], "downloads": 0, "likes": 0}
        return Reply(
            about | {"private": (repository.git.folder / "private").exists(), "gated": False, "disabled": False}
        )

    def tree(self, repository: Repository, request: Request, found: dict[str, str]) -> Reply:
        """Files and folders below a path."""
        recursive = request.query.get("recursive", "").lower() in ("1", "true")
        commit, path = repository.commit(found["revision"]), unquote(found.get("path") or "")
        if path and not safe_path(path):
            raise Refusal(404, "no such folder", "EntryNotFound")
        return Reply([_tree_item(e) for e in repository.git.entries(commit, path, recursive=recursive)])

    def paths_info(self, repository: Repository, request: Request, found: dict[str, str]) -> Reply:
        """What is known of some paths; those that do not exist are left out."""
        commit = repository.commit(found["revision"])
        wanted = parse_qs(request.body.decode("utf-8", "replace"), max_num_fields=20_000).get("paths", [])
        if request.body.startswith(b"{"):
            wanted = request.json().get("paths", [])
        known = {entry.path: entry for entry in repository.git.entries(commit, recursive=True)}
        return Reply([_tree_item(known[path]) for path in wanted if path in known])

    def file(self, repository: Repository, request: Request, found: dict[str, str]) -> Reply:
        """One file's content."""
        commit, path = repository.commit(found["revision"]), unquote(found["path"])
        answer = repository.git.read(commit, path)
        if answer is None:
            refusal = Refusal(404, f"{path[:200]!r} does not exist", "EntryNotFound").reply()
            return Reply(refusal.content, 404, refusal.headers | {"X-Repo-Commit": commit})
        oid, data = answer
        headers = {"X-Repo-Commit": commit, "ETag": f'"{oid}"', "Content-Type": "application/octet-stream"}
        return Reply(data, 200, headers)

    def references(self, repository: Repository, request: Request, _: dict[str, str]) -> Reply:
        """Branches, tags and, on demand, pull requests."""
        kinds: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        prefixes = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
        for name, commit in repository.git.references().items():
            for prefix, kind in prefixes.items():
                if name.startswith(prefix):
                    kinds[kind].append({"name": name.removeprefix(prefix), "ref": name, "targetCommit": commit})
        if not request.query.get("include_prs"):
            del kinds["pullRequests"]
        return Reply(kinds)

    def commits(self, repository: Repository, _: Request, found: dict[str, str]) -> Reply:
        """The history of a revision, newest first."""
        commit = repository.commit(found["revision"])
        return Reply(
            [
                {"id": oid, "title": title, "message": "", "date": _as_utc(date), "authors": [{"user": author}]}
                for oid, title, author, date in repository.git.log(commit)
            ]
        )

    # Writing ----------------------------------------------------------------------------------------------------------

    def preupload(self, repository: Repository, request: Request, found: dict[str, str]) -> Reply:
        """How each file should be sent: always inside the commit, there is no large-file storage here."""
        require(request.user, "contribute")
        commit = repository.commit(found["revision"])
        files = []
        for file in request.json().get("files", []):
            path = file.get("path") if isinstance(file, dict) else None
            if not isinstance(path, str) or not safe_path(path):
                raise Refusal(400, f"{str(path)[:80]!r} cannot be a file name here")
            known = repository.git.read(commit, path)
            files.append(
                {"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": known[0] if known else None}
            )
        return Reply({"files": files})

    def commit(self, repository: Repository, request: Request, found: dict[str, str]) -> Reply:
        """Store one commit, on a branch or as a new pull request."""
        user = require(request.user, "contribute")
        header, changes = _commit_content(request.body)
        summary, description = str(header.get("summary", ""))[:500], str(header.get("description", ""))[:65_536]
        parent = header.get("parentCommit")
        if not summary or (parent is not None and not (isinstance(parent, str) and COMMIT.fullmatch(parent))):
            raise Refusal(400, "a commit has a summary, and its parentCommit is a commit id")
        head = repository.commit(found["revision"])
        message = f"{summary}\n\n{description}".strip()
        url = f"{request.origin}/datasets/{repository.id}"
        if request.query.get("create_pr"):
            if parent is not None and repository.git.resolve(parent) is None:
                raise Refusal(404, "no such parent commit", "RevisionNotFound")
            oid = repository.git.commit(parent or head, changes, message, user.name)
            number = repository.requests.open(oid, summary, description, user.name)
            request_url = f"{url}/discussions/{number}"
            return Reply({"commitUrl": f"{url}/commit/{oid}", "commitOid": oid, "pullRequestUrl": request_url})
        reference = _writable(repository, unquote(found["revision"]), user)
        if parent not in (None, head):
            raise Refusal(412, STALE)
        oid = repository.git.commit(head, changes, message, user.name)
        repository.git.move(reference, oid, head)
        if reference.startswith("refs/pr/"):
            repository.requests.note_commit(int(reference.rsplit("/", 1)[1]), user.name, summary, oid)
        return Reply({"commitUrl": f"{url}/commit/{oid}", "commitOid": oid})

    def tag(self, repository: Repository, request: Request, found: dict[str, str]) -> Reply:
        """Name a commit for good."""
        require(request.user, "write")
        name = request.json().get("tag")
        if not isinstance(name, str) or not _NAMED.fullmatch(name) or ".." in name or name.endswith((".", ".lock")):
            raise Refusal(400, "a tag is named by letters, digits, '.', '_' and '-'")
        if repository.git.resolve(f"refs/tags/{name}"):
            raise Refusal(409, f"Tag reference exists already: {name}")
        repository.git.move(f"refs/tags/{name}", repository.commit(found["revision"]), None)
        return Reply({})

    # Pull requests ----------------------------------------------------------------------------------------------------

    def discussions(self, repository: Repository, request: Request, _: dict[str, str]) -> Reply:
        """Pull requests, newest first."""
        status, author = request.query.get("status"), request.query.get("author")
        pages = [
            page
            for page in repository.requests.all()
            if (author is None or page["author"]["name"] == author)
            and (status in (None, "all") or (page["status"] == "open") == (status == "open"))
        ]
        start = 50 * max(0, int(request.query.get("p", "0") if request.query.get("p", "0").isdigit() else 0))
        return Reply({"count": len(pages), "start": start, "discussions": pages[start : start + 50]})

    def discussion(self, repository: Repository, _: Request, found: dict[str, str]) -> Reply:
        """One pull request."""
        return Reply(repository.requests.details(_number(repository, found)))

    def comment(self, repository: Repository, request: Request, found: dict[str, str]) -> Reply:
        """Add a comment to a pull request."""
        user = require(request.user, "contribute")
        text = str(request.json().get("comment", ""))[:65_536]
        return Reply({"newMessage": repository.requests.comment(_number(repository, found), user.name, text)})

    def status(self, repository: Repository, request: Request, found: dict[str, str]) -> Reply:
        """Close or reopen a pull request."""
        number = _number(repository, found)
        _require_own(repository, number, request.user)
        status = request.json().get("status")
        if status not in ("open", "closed") or repository.requests.get(number)["status"] == "merged":
            raise Refusal(400, "an open request can be closed, a closed one opened")
        assert request.user is not None
        return Reply({"newStatus": repository.requests.set_status(number, request.user.name, status)})

    def merge(self, repository: Repository, request: Request, found: dict[str, str]) -> Reply:
        """Merge a pull request into main."""
        user = require(request.user, "write")
        return Reply({"mergeCommitId": repository.requests.merge(_number(repository, found), user.name)})


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


def _number(repository: Repository, found: dict[str, str]) -> int:
    number = int(found["number"])
    with contextlib.suppress(HubError):
        repository.requests.get(number)
        return number
    raise Refusal(404, f"no pull request {number}")


def _require_own(repository: Repository, number: int, user: User | None) -> None:
    author = repository.requests.get(number)["author"]["name"]
    require(user, "contribute" if user is not None and user.name == author else "write")


def _writable(repository: Repository, revision: str, user: User) -> str:
    """The reference that a commit to ``revision`` moves, when the user may."""
    match = re.fullmatch(r"refs/pr/(\d{1,9})", revision)
    if match:
        number = int(match[1])
        if repository.requests.get(number)["status"] != "open":
            raise Refusal(400, f"pull request {number} is not open")
        _require_own(repository, number, user)
        return revision
    require(user, "write")
    reference = f"refs/heads/{revision}"
    if reference not in repository.git.references():
        raise Refusal(400, "commits go to a branch or to an open pull request")
    return reference


def _commit_content(body: bytes) -> tuple[dict[str, Any], dict[str, bytes | None]]:
    header: dict[str, Any] = {}
    changes: dict[str, bytes | None] = {}
    for line in filter(None, body.split(b"\n")):
        item = json_object(line)
        kind, value = item.get("key"), item.get("value")
        if not isinstance(value, dict):
            raise Refusal(400, "every line of a commit has a value")
        if kind == "header":
            header = value
        elif kind == "file":
            changes[_path(value)] = _content(value)
        elif kind == "deletedFile":
            changes[_path(value)] = None
        else:
            raise Refusal(
                400, f"this server cannot store {str(kind)[:40]!r}: no large-file storage, no folders at once"
            )
    return header, changes


def _path(value: dict[str, Any]) -> str:
    path = value.get("path")
    if not isinstance(path, str) or not safe_path(path):
        raise Refusal(400, f"{str(path)[:80]!r} cannot be a file name here")
    return path


def _content(value: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(str(value.get("content", "")), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, "a file's content is base64") from error


def _tree_item(entry: Any) -> dict[str, Any]:
    kind = "file" if entry.kind == "blob" else "directory"
    return {"type": kind, "oid": entry.oid, "size": entry.size, "path": entry.path}


def _as_utc(date: str) -> str:
    moment = datetime.datetime.fromisoformat(date.replace("Z", "+00:00")).astimezone(datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_GENERAL: tuple[tuple[str, str, Callable[[HubService, Request], Reply]], ...] = (
    ("GET", r"/api/whoami-v2", HubService.whoami),
    ("POST", r"/api/repos/create", HubService.create),
    ("POST", r"/api/validate-yaml", HubService.check_card),
)
_API = rf"/api/datasets/{_REPOSITORY}"
_ROUTES: tuple[tuple[str, str, Answer], ...] = (
    ("GET", rf"{_API}(?:/revision/(?P<revision>[^/]+))?", HubService.info),
    ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", HubService.tree),
    ("POST", rf"{_API}/paths-info/(?P<revision>[^/]+)", HubService.paths_info),
    ("GET", rf"{_API}/refs", HubService.references),
    ("GET", rf"{_API}/commits/(?P<revision>[^/]+)", HubService.commits),
    ("GET HEAD", rf"/datasets/{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", HubService.file),
    ("POST", rf"{_API}/preupload/(?P<revision>[^/]+)", HubService.preupload),
    ("POST", rf"{_API}/commit/(?P<revision>[^/]+)", HubService.commit),
    ("POST", rf"{_API}/tag/(?P<revision>[^/]+)", HubService.tag),
    ("GET", rf"{_API}/discussions", HubService.discussions),
    ("GET", rf"{_API}/discussions/(?P<number>\d{{1,9}})", HubService.discussion),
    ("POST", rf"{_API}/discussions/(?P<number>\d{{1,9}})/comment", HubService.comment),
    ("POST", rf"{_API}/discussions/(?P<number>\d{{1,9}})/status", HubService.status),
    ("POST", rf"{_API}/discussions/(?P<number>\d{{1,9}})/merge", HubService.merge),
)
