"""Pull requests as clients see them."""

from __future__ import annotations

import contextlib

from easyteacache.errors import HubError
from easyteacache.hub.server import bounds
from easyteacache.hub.server.messages import Refusal, Reply, Request, text_of
from easyteacache.hub.server.reading import page_number
from easyteacache.hub.server.repository import Repository, require
from easyteacache.hub.server.tokens import User

PAGE_ITEMS = 50


def discussions(repository: Repository, request: Request, _: dict[str, str]) -> Reply:
    """Pull requests, newest first, without what was said in them."""
    status, author = request.query.get("status"), request.query.get("author")
    start = PAGE_ITEMS * page_number(request)
    pages = [
        page
        for page in repository.requests.summaries()
        if (author is None or page["author"]["name"] == author)
        and (status in (None, "all") or (page["status"] == "open") == (status == "open"))
    ]
    return Reply({"count": len(pages), "start": start, "discussions": pages[start : start + PAGE_ITEMS]})


def discussion(repository: Repository, _: Request, found: dict[str, str]) -> Reply:
    """One pull request."""
    return Reply(repository.requests.details(_number(repository, found)))


def comment(repository: Repository, request: Request, found: dict[str, str]) -> Reply:
    """Add a comment to a pull request."""
    user = require(request.user, "contribute")
    text = text_of(request.json(), "comment", max_bytes=bounds.COMMENT)
    number = _number(repository, found)
    event = repository.requests.comment(number, user.name, text, bounded=not user.may("write"))
    return Reply({"newMessage": event})


def status(repository: Repository, request: Request, found: dict[str, str]) -> Reply:
    """Close or reopen a pull request, with a comment where there is one."""
    number = _number(repository, found)
    user = require_own(repository, number, request.user)
    told = request.json()
    status, text = told.get("status"), text_of(told, "comment", max_bytes=bounds.COMMENT)
    if status not in ("open", "closed") or repository.requests.get(number)["status"] == "merged":
        raise Refusal(400, "an open request can be closed, a closed one opened")
    bounded = not user.may("write")
    if status == "open":
        repository.requests.require_room(user.name, bounded=bounded)
    event = repository.requests.set_status(number, user.name, status, text, bounded=bounded)
    return Reply({"newStatus": event})


def merge(repository: Repository, request: Request, found: dict[str, str]) -> Reply:
    """Merge a pull request into main."""
    user = require(request.user, "write")
    return Reply({"mergeCommitId": repository.requests.merge(_number(repository, found), user.name)})


def require_own(repository: Repository, number: int, user: User | None) -> User:
    """The user, when the request is theirs or they may write.

    Raises:
        Refusal: neither.
    """
    author = repository.requests.get(number)["author"]["name"]
    return require(user, "contribute" if user is not None and user.name == author else "write")


def _number(repository: Repository, found: dict[str, str]) -> int:
    number = int(found["number"])
    with contextlib.suppress(HubError):
        repository.requests.get(number)
        return number
    raise Refusal(404, f"no pull request {number} that can be read")
