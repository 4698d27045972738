"""What changes a repository: commits, branches, tags."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from easyteacache.hub.server import bounds
from easyteacache.hub.server.discussing import require_own
from easyteacache.hub.server.git import COMMIT, MAIN, safe_path
from easyteacache.hub.server.messages import Refusal, Reply, Request, json_object, text_of
from easyteacache.hub.server.repository import Repository, require
from easyteacache.hub.server.tokens import User

STALE = "A commit has happened since. Please refresh and try again."
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,95}){0,4}")
_OID = re.compile(r"[0-9a-f]{40}")


def preupload(repository: Repository, request: Request, found: dict[str, str]) -> Reply:
    """How each file should be sent: always inside the commit, there is no large-file storage here."""
    commit = repository.commit(found["revision"])
    listed = request.json().get("files", [])
    if not isinstance(listed, list) or len(listed) > bounds.FILES:
        raise Refusal(400, f"files is a list of at most {bounds.FILES}")
    files = []
    for item in listed:
        path, size = _path(item), item.get("size", 0)
        if not isinstance(size, int) or size > bounds.FILE:
            raise Refusal(
                413, f"{path} is too large: this server has no large-file storage and takes {bounds.FILE} bytes"
            )
        known = repository.git.entry(commit, path)
        oid = known.oid if known is not None and known.kind == "blob" else None
        files.append({"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": oid})
    return Reply({"files": files})


def commit(repository: Repository, request: Request, found: dict[str, str]) -> Reply:
    """Store one commit, on a branch or as a new pull request."""
    user = require(request.user, "contribute")
    repository.require_room()
    lines = _lines(request.body)
    header = next(lines, {})
    if header.get("key") != "header" or not isinstance(header.get("value"), dict):
        raise Refusal(400, "the first line of a commit is its header")
    told = header["value"]
    summary = title_of(told, "summary")
    description = text_of(told, "description", max_bytes=bounds.DESCRIPTION)
    parent = told.get("parentCommit")
    if parent is not None and not (isinstance(parent, str) and COMMIT.fullmatch(parent)):
        raise Refusal(400, "parentCommit is a commit's id")
    head = repository.commit(found["revision"])
    message = f"{summary}\n\n{description}".strip()
    url = f"{request.origin}/datasets/{repository.id}"
    if request.query.get("create_pr"):
        if parent is not None and repository.git.resolve(parent) is None:
            raise Refusal(404, "no such parent commit", "RevisionNotFound")
        bounded = not user.may("write")
        repository.requests.require_room(user.name, bounded=bounded)
        oid = repository.git.commit(parent or head, _changes(repository, parent or head, lines), message, user.name)
        number = repository.requests.open(oid, summary, description, user.name)
        request_url = f"{url}/discussions/{number}"
        return Reply({"commitUrl": f"{url}/commit/{oid}", "commitOid": oid, "pullRequestUrl": request_url})
    reference = _writable(repository, unquote(found["revision"]), user)
    if parent not in (None, head):
        raise Refusal(412, STALE)
    oid = repository.git.commit(head, _changes(repository, head, lines), message, user.name)
    repository.git.move(reference, oid, head)
    if reference.startswith("refs/pr/"):
        repository.requests.note_commit(int(reference.rsplit("/", 1)[1]), user.name, summary, oid)
    return Reply({"commitUrl": f"{url}/commit/{oid}", "commitOid": oid})


def tag(repository: Repository, request: Request, found: dict[str, str]) -> Reply:
    """Name a commit for good."""
    name = _named(request.json().get("tag"), "a tag", _NAMED)
    if repository.git.resolve(f"refs/tags/{name}"):
        raise Refusal(409, f"Tag reference exists already: {name}")
    repository.git.move(f"refs/tags/{name}", repository.commit(found["revision"]), None)
    return Reply({})


def delete_tag(repository: Repository, _: Request, found: dict[str, str]) -> Reply:
    """Forget the name of a commit."""
    return _delete(repository, f"refs/tags/{_named(unquote(found['tag']), 'a tag', _NAMED)}")


def branch(repository: Repository, request: Request, found: dict[str, str]) -> Reply:
    """Begin a branch, at main or where ``startingPoint`` says."""
    name = _named(unquote(found["branch"]), "a branch", _BRANCH)
    told = request.json()
    start = told.get("startingPoint", "main")
    if not isinstance(start, str):
        raise Refusal(400, "startingPoint is a branch, tag or commit")
    at = repository.commit(start)
    before = repository.git.resolve(f"refs/heads/{name}")
    if before is not None and (told.get("overwrite") is not True or name == "main"):
        raise Refusal(409, f"Branch reference exists already: {name}")
    repository.git.move(f"refs/heads/{name}", at, before)
    return Reply({})


def delete_branch(repository: Repository, _: Request, found: dict[str, str]) -> Reply:
    """Delete a branch other than main."""
    reference = f"refs/heads/{_named(unquote(found['branch']), 'a branch', _BRANCH)}"
    if reference == MAIN:
        raise Refusal(403, "main is what the others are compared with: it is not deleted")
    return _delete(repository, reference)


def _delete(repository: Repository, reference: str) -> Reply:
    if repository.git.resolve(reference) is None:
        raise Refusal(404, f"there is no {reference}", "RevisionNotFound")
    repository.git.remove(reference)
    return Reply({})


def title_of(told: dict[str, Any], name: str) -> str:
    """A title: one line, not empty, of at most so many characters.

    Raises:
        Refusal: it is none.
    """
    title = text_of(told, name, max_bytes=4 * bounds.TITLE_CHARACTERS, line=True).strip()
    if not title or len(title) > bounds.TITLE_CHARACTERS:
        raise Refusal(400, f"{name} is one line of 1 to {bounds.TITLE_CHARACTERS} characters")
    return title


def _named(name: object, what: str, pattern: re.Pattern[str]) -> str:
    """The name of a branch or tag; git refuses the others, and one of 40 hexadecimal digits would hide a commit."""
    usable = isinstance(name, str) and pattern.fullmatch(name) and ".." not in name and not _OID.fullmatch(name)
    # git takes HEAD for its own, wherever it stands.
    if not usable or name == "HEAD" or any(part.endswith((".", ".lock")) for part in str(name).split("/")):
        raise Refusal(400, f"{what} is named by letters, digits, '.', '_' and '-'")
    return str(name)


def _writable(repository: Repository, revision: str, user: User) -> str:
    """The reference that a commit to ``revision`` moves, when the user may."""
    match = re.fullmatch(r"refs/pr/([0-9]{1,9})", revision)
    if match:
        number = int(match[1])
        if repository.requests.get(number)["status"] != "open":
            raise Refusal(400, f"pull request {number} is not open")
        require_own(repository, number, user)
        repository.requests.require_events(number, bounded=not user.may("write"))
        return f"refs/pr/{number}"
    require(user, "write")
    reference = f"refs/heads/{revision}"
    if reference not in repository.git.references():
        raise Refusal(400, "commits go to a branch or to an open pull request")
    return reference


def _lines(body: bytes) -> Iterator[dict[str, Any]]:
    """The lines of a commit, one at a time: all of them at once would be the body once more."""
    start, count = 0, 0
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        if end > start:
            count += 1
            if count > bounds.FILES:
                raise Refusal(413, f"a commit of more than {bounds.FILES} lines")
            yield json_object(body[start:end])
        start = end + 1


def _changes(repository: Repository, head: str, lines: Iterator[dict[str, Any]]) -> dict[str, bytes | None]:
    changes: dict[str, bytes | None] = {}
    for item in lines:
        kind, value = item.get("key"), item.get("value")
        if kind == "file":
            changes[_path(value)] = _content(value)
        elif kind == "deletedFile":
            changes[_path(value)] = None
        elif kind == "deletedFolder":
            folder = _path({"path": str(_field(value, "path")).rstrip("/")})
            entries = repository.git.entries(head, folder, recursive=True)
            changes |= {entry.path: None for entry in entries if entry.kind == "blob"}
        elif kind == "lfsFile":
            raise Refusal(501, "this server has no large-file storage: send the file inside the commit")
        else:
            raise Refusal(501, f"this server cannot store {str(kind)[:40]!r} in a commit: files and deletions only")
    _require_apart(repository, head, changes)
    return changes


def _require_apart(repository: Repository, head: str, changes: dict[str, bytes | None]) -> None:
    """Refuse a file where a folder is, and a folder where a file is: git would delete what is there without a word."""
    files: dict[str, bool] = {}

    def is_file(path: str) -> bool:
        if path not in files:
            found = None if path in changes else repository.git.entry(head, path)
            files[path] = changes.get(path) is not None or (found is not None and found.kind == "blob")
        return files[path]

    for path, data in changes.items():
        if data is None:
            continue
        above = [path[:end] for end, character in enumerate(path) if character == "/"]
        over = next((one for one in above if is_file(one)), None)
        if over is not None:
            raise Refusal(
                400,
                f"{path[:200]!r} needs {over[:200]!r} as a folder, and that is a file: delete it in the same commit",
            )
        found = repository.git.entry(head, path)
        if found is not None and found.kind == "tree":
            below = [one.path for one in repository.git.entries(head, path, recursive=True) if one.kind == "blob"]
            if any(one not in changes or changes[one] is not None for one in below):
                raise Refusal(400, f"{path[:200]!r} is a folder with files: delete them in the same commit")


def _field(value: object, name: str) -> object:
    if not isinstance(value, dict):
        raise Refusal(400, "a file is described by an object, and every line of a commit has a value")
    return value.get(name)


def _path(value: object) -> str:
    path = _field(value, "path")
    if not isinstance(path, str) or not safe_path(path):
        raise Refusal(400, f"{str(path)[:80]!r} cannot be a file name here")
    return path


def _content(value: object) -> bytes:
    text = _field(value, "content")
    if not isinstance(text, str) or _field(value, "encoding") not in (None, "base64"):
        raise Refusal(400, "a file's content is base64")
    if len(text) > 4 * (bounds.FILE // 3 + 1):
        raise Refusal(413, f"a file of more than {bounds.FILE} bytes: this server has no large-file storage")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, "a file's content is base64") from error
