"""What everybody who sees a repository may ask of it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode

from easyteacache.hub.server import bounds
from easyteacache.hub.server.git import TreeEntry, safe_path
from easyteacache.hub.server.messages import Refusal, Reply, Request, Stream
from easyteacache.hub.server.repository import Repository

_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")


def info(repository: Repository, request: Request, found: dict[str, str]) -> Reply:
    """A repository at a revision, with its files; ``blobs`` adds their sizes."""
    commit = repository.commit(found.get("revision") or "main")
    detailed = _flag(request, "blobs")
    files = []
    for entry in repository.git.entries(commit, recursive=True):
        if entry.kind == "blob":
            more = {"size": entry.size, "blobId": entry.oid} if detailed else {}
            files.append({"rfilename": entry.path, **more})
    about = {"id": repository.id, "sha": commit, "siblings": files, "tags": [], "downloads": 0, "likes": 0}
    return Reply(about | {"private": repository.private, "gated": False, "disabled": False})


def tree(repository: Repository, request: Request, found: dict[str, str]) -> Reply:
    """Files and folders below a path."""
    commit, path = repository.commit(found["revision"]), unquote(found.get("path") or "").strip("/")
    if path:
        entry = repository.git.entry(commit, path)
        if entry is None or entry.kind != "tree":
            raise Refusal(404, f"{path[:200]!r} is no folder at this revision", "EntryNotFound")
    return Reply([_item(e) for e in repository.git.entries(commit, path, recursive=_flag(request, "recursive"))])


def paths_info(repository: Repository, request: Request, found: dict[str, str]) -> Reply:
    """What is known of some paths; those that do not exist are left out."""
    commit = repository.commit(found["revision"])
    known = (repository.git.entry(commit, path.strip("/")) for path in dict.fromkeys(_wanted(request)))
    return Reply([_item(entry) for entry in known if entry is not None])


def _wanted(request: Request) -> list[str]:
    if request.body.lstrip().startswith((b"{", b"[")):
        wanted = request.json().get("paths", [])
        wanted = [wanted] if isinstance(wanted, str) else wanted
    else:
        try:
            fields = parse_qs(
                request.body.decode("utf-8", "replace"), max_num_fields=bounds.PATHS + bounds.QUERY_FIELDS
            )
        except ValueError as error:
            raise Refusal(413, f"at most {bounds.PATHS} paths are taken at once") from error
        wanted = fields.get("paths", [])
    if not isinstance(wanted, list) or not all(isinstance(path, str) for path in wanted):
        raise Refusal(400, "paths is a list of file names")
    if len(wanted) > bounds.PATHS:
        raise Refusal(413, f"{len(wanted)} paths; at most {bounds.PATHS} are taken at once")
    return wanted


def file(repository: Repository, request: Request, found: dict[str, str]) -> Reply:
    """One file's content, or the part of it that the header ``Range`` names."""
    commit, path = repository.commit(found["revision"]), unquote(found["path"])
    entry = repository.git.entry(commit, path) if safe_path(path) else None
    if entry is None or entry.kind != "blob":
        raise Refusal(404, f"{path[:200]!r} does not exist", "EntryNotFound", {"X-Repo-Commit": commit})
    headers = {
        "X-Repo-Commit": commit,
        "ETag": f'"{entry.oid}"',
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
    }
    part = _part(request, entry)
    if part is None:
        return Reply(_content(repository, commit, entry, 0, entry.size, request.method), 200, headers)
    start, stop = part
    if start >= stop:
        reason = f"the file has {entry.size} bytes; none of those that were asked for"
        raise Refusal(416, reason, None, {"Content-Range": f"bytes */{entry.size}", "Accept-Ranges": "bytes"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{entry.size}"
    return Reply(_content(repository, commit, entry, start, stop, request.method), 206, headers)


def _part(request: Request, entry: TreeEntry) -> tuple[int, int] | None:
    """First byte and end of what the header asks for; None for the whole file, which several parts are answered with too."""
    match = _RANGE.fullmatch(request.headers.get("range", "").strip().replace(" ", ""))
    condition = request.headers.get("if-range", "")
    if request.method != "GET" or match is None or condition not in ("", f'"{entry.oid}"'):
        return None
    first, last = match[1], match[2]
    if not first and not last:
        return None
    if not first:
        return max(0, entry.size - int(last)), entry.size if int(last) else 0
    if last and int(last) < int(first):
        return None
    return int(first), min(entry.size, int(last) + 1 if last else entry.size)


def _content(
    repository: Repository, commit: str, entry: TreeEntry, start: int, stop: int, method: str
) -> bytes | Stream:
    if method == "HEAD":
        return Stream(iter(()), stop - start)
    if entry.size <= bounds.SMALL_FILE:
        found = repository.git.read(commit, entry.path)
        assert found is not None
        return found[1][start:stop]
    return Stream(repository.git.pieces(entry.oid, start, stop), stop - start)


def references(repository: Repository, request: Request, _: dict[str, str]) -> Reply:
    """Branches, tags and, on demand, pull requests."""
    kinds: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
    prefixes = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
    for name, commit in repository.git.references().items():
        for prefix, kind in prefixes.items():
            if name.startswith(prefix):
                kinds[kind].append({"name": name.removeprefix(prefix), "ref": name, "targetCommit": commit})
    if not _flag(request, "include_prs"):
        del kinds["pullRequests"]
    return Reply(kinds)


def commits(repository: Repository, request: Request, found: dict[str, str]) -> Reply:
    """The history of a revision, newest first, page by page."""
    commit, page = repository.commit(found["revision"]), page_number(request)
    size = bounds.COMMITS_A_PAGE
    listed: Iterator[tuple[str, str, str, str]] = repository.git.log(commit, size + 1, skip=page * size)
    items = [
        {"id": oid, "title": title, "message": "", "date": _as_utc(date), "authors": [{"user": author}]}
        for oid, title, author, date in listed
    ]
    headers = {}
    if len(items) > size:
        # By the commit itself: the branch may move between two pages.
        query = urlencode({**request.query, "p": page + 1})
        headers["Link"] = f'<{request.origin}/api/datasets/{repository.id}/commits/{commit}?{query}>; rel="next"'
    return Reply(items[:size], 200, headers)


def page_number(request: Request) -> int:
    """Which page of a list is asked for, from 0.

    Raises:
        Refusal: what is asked for is no number.
    """
    page = request.query.get("p", "0")
    if not re.fullmatch(r"[0-9]{1,6}", page):
        raise Refusal(400, "p is the number of a page, from 0, of at most six digits")
    return int(page)


def _flag(request: Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("1", "true")


def _item(entry: TreeEntry) -> dict[str, Any]:
    kind = "file" if entry.kind == "blob" else "directory"
    return {"type": kind, "oid": entry.oid, "size": entry.size, "path": entry.path}


def _as_utc(date: str) -> str:
    moment = datetime.datetime.fromisoformat(date.replace("Z", "+00:00")).astimezone(datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
