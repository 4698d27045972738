"""The part of the Hub's HTTP interface that registries need, over bare git repositories: every answer, no sockets."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from easyteacache.errors import HubError
from easyteacache.hub.server import bounds, cloning, discussing, reading, writing
from easyteacache.hub.server.git import MergeConflict, StaleReference
from easyteacache.hub.server.messages import Head, Refusal, Reply, Request
from easyteacache.hub.server.pull_requests import TooMuch
from easyteacache.hub.server.repository import Repository, require
from easyteacache.hub.server.tokens import Role, User
from easyteacache.hub.server.unserved import sentence

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAMED = re.compile(NAME)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


@dataclass(frozen=True)
class Route:
    """One kind of request.

    Attributes:
        methods: how it is asked.
        path: pattern of its addresses; ``org`` and ``name`` name a repository.
        answer: makes the reply.
        role: what a user must be allowed before the body is read; None: nothing.
        body: bytes that a body may have from who is allowed; None: what fits the user.
        by_git: whether git asks it, which wants to be told how to log in.
    """

    methods: tuple[str, ...]
    path: re.Pattern[str]
    answer: Callable[[HubService, Repository | None, Request, dict[str, str]], Reply]
    role: Role | None = None
    body: int | None = None
    by_git: bool = False


@dataclass(frozen=True)
class Opened:
    """A request that may go on.

    Attributes:
        max_body: bytes that its body may have.
        answer: makes the reply once the body is there.
    """

    max_body: int
    answer: Callable[[bytes], Reply]


class HubService:
    """Answers requests about the repositories in one folder.

    Args:
        folder: holds ``datasets/ORG/NAME.git``, made on demand. A file ``private`` or ``gated`` in a repository's folder hides
            it from everybody without a token, or lists the names it is open to, one a line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: OrderedDict[str, Repository] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, head: Head) -> Opened:
        """What may become of a request, by its head alone: who asks what, and how much may be sent.

        Raises:
            Refusal: it is refused whatever its body.
        """
        for route in ROUTES:
            match = route.path.fullmatch(head.path)
            if match and head.method in route.methods:
                return self._open_request(route, head, match.groupdict())
        raise _unknown(head)

    def _open_request(self, route: Route, head: Head, found: dict[str, str]) -> Opened:
        repository = None
        if "org" in found:
            try:
                repository = self._repository(found["org"], found["name"], head.user)
            except Refusal as refusal:
                if route.by_git and head.user is None:
                    # Git asks a person for a token only where it is told so.
                    raise Refusal(
                        401, refusal.message, refusal.code, {"WWW-Authenticate": 'Basic realm="hub"'}
                    ) from None
                raise
        if route.role is not None:
            require(head.user, route.role)
        usual = bounds.ANONYMOUS_BODY if head.user is None else bounds.MEMBER_BODY
        return Opened(
            usual if route.body is None else route.body,
            lambda body: self._reply(route, repository, Request(**vars(head), body=body), found),
        )

    def _reply(self, route: Route, repository: Repository | None, request: Request, found: dict[str, str]) -> Reply:
        """The reply to one request; refusals are replies too."""
        try:
            return route.answer(self, repository, request, found)
        except Refusal as refusal:
            return refusal.reply()
        except StaleReference:
            return Refusal(412, writing.STALE).reply()
        except MergeConflict as error:
            return Refusal(409, error.reason).reply()
        except TooMuch as error:
            return Refusal(429, error.reason).reply()
        except HubError as error:
            return Refusal(400, error.reason).reply()

    def close(self) -> None:
        """End the processes that read from repositories."""
        for repository in self._open.values():
            repository.git.close()

    def _repository(self, org: str, name: str, user: User | None) -> Repository:
        folder = self.folder / "datasets" / org / f"{name}.git"
        if ".." in org or ".." in name or not folder.is_dir():
            raise Refusal(404, f"Repository {org}/{name} not found", "RepoNotFound")
        identifier = f"{org}/{name}"
        with self._lock:
            repository = self._open.setdefault(identifier, Repository(identifier, folder))
            self._open.move_to_end(identifier)
            readers = list(self._open.values())
        for idle in readers[: -bounds.READERS]:
            idle.git.close()
        repository.require_visible(user)
        return repository

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
            raise Refusal(501, "this server holds dataset repositories only")
        if not (isinstance(name, str) and isinstance(org, str) and _NAMED.fullmatch(name) and _NAMED.fullmatch(org)):
            raise Refusal(400, "a repository is named ORG/NAME, of letters, digits, '.', '_' and '-'")
        if ".." in name or ".." in org or name.endswith((".git", ".lock", ".")) or org.endswith("."):
            raise Refusal(400, "a repository's name has no '..' and does not end in '.', '.git' or '.lock'")
        repository = Repository(f"{org}/{name}", self.folder / "datasets" / org / f"{name}.git")
        url = {"url": f"{request.origin}/datasets/{repository.id}", "name": repository.id}
        with self._lock:
            exists = repository.git.folder.exists()
            if not exists:
                repository.git.create(private=bool(wanted.get("private")) or wanted.get("visibility") == "private")
        return Reply(url | {"error": "You already created this dataset repo"}, 409) if exists else Reply(url)


def _unknown(head: Head) -> Refusal:
    """Why nothing answers a request: its method, what this server has not, or no such address."""
    others = sorted({method for route in ROUTES for method in route.methods if route.path.fullmatch(head.path)})
    if head.method not in METHODS:
        return Refusal(501, f"this server does not know the method {head.method[:20]!r}")
    if others:
        reason = f"this server does not serve {head.method} here, only {', '.join(others)}"
        return Refusal(501, reason, None, {"Allow": ", ".join(others)})
    unserved = sentence(head.method, head.path)
    if unserved is not None:
        return Refusal(501, unserved)
    return Refusal(404, f"this server has no {head.method} {head.path[:200]!r}")


def _general(answer: Callable[[HubService, Request], Reply]) -> Callable[..., Reply]:
    return lambda service, repository, request, found: answer(service, request)


def _of_one(answer: Callable[[Repository, Request, dict[str, str]], Reply]) -> Callable[..., Reply]:
    return lambda service, repository, request, found: answer(repository, request, found)


def _card(_: HubService, __: Request) -> Reply:
    """Dataset cards are not judged here."""
    return Reply({"errors": [], "warnings": []})


_REPOSITORY = rf"(?P<org>{NAME})/(?P<name>{NAME})"
_API = rf"/api/datasets/{_REPOSITORY}"
# Git's clients may end a repository's name in ".git", or not.
_CLONED = rf"/(?:datasets/)?(?P<org>{NAME})/(?P<name>{NAME}?)(?:\.git)?"
_NUMBER = r"(?P<number>[0-9]{1,9})"
_REVISION = r"(?P<revision>[^/]+)"


def _route(methods: str, path: str, answer: Callable[..., Reply], **more: object) -> Route:
    return Route(tuple(methods.split()), re.compile(path), answer, **more)  # type: ignore[arg-type]


ROUTES: tuple[Route, ...] = (
    _route("GET", r"/api/whoami-v2", _general(HubService.whoami)),
    _route("POST", r"/api/repos/create", _general(HubService.create), role="write", body=bounds.ANONYMOUS_BODY),
    _route("POST", r"/api/validate-yaml", _general(_card)),
    _route("GET", rf"{_API}(?:/revision/{_REVISION})?", _of_one(reading.info)),
    _route("GET", rf"{_API}/tree/{_REVISION}(?:/(?P<path>.*))?", _of_one(reading.tree)),
    _route("POST", rf"{_API}/paths-info/{_REVISION}", _of_one(reading.paths_info)),
    _route("GET", rf"{_API}/refs", _of_one(reading.references)),
    _route("GET", rf"{_API}/commits/{_REVISION}", _of_one(reading.commits)),
    _route("GET HEAD", rf"/datasets/{_REPOSITORY}/resolve/{_REVISION}/(?P<path>.+)", _of_one(reading.file)),
    _route("POST", rf"{_API}/preupload/{_REVISION}", _of_one(writing.preupload), role="contribute"),
    _route("POST", rf"{_API}/commit/{_REVISION}", _of_one(writing.commit), role="contribute", body=bounds.COMMIT_BODY),
    _route("POST", rf"{_API}/tag/{_REVISION}", _of_one(writing.tag), role="write"),
    _route("DELETE", rf"{_API}/tag/(?P<tag>[^/]+)", _of_one(writing.delete_tag), role="write"),
    _route("POST", rf"{_API}/branch/(?P<branch>[^/]+)", _of_one(writing.branch), role="write"),
    _route("DELETE", rf"{_API}/branch/(?P<branch>[^/]+)", _of_one(writing.delete_branch), role="write"),
    _route("GET", rf"{_API}/discussions", _of_one(discussing.discussions)),
    _route("GET", rf"{_API}/discussions/{_NUMBER}", _of_one(discussing.discussion)),
    _route("POST", rf"{_API}/discussions/{_NUMBER}/comment", _of_one(discussing.comment), role="contribute"),
    _route("POST", rf"{_API}/discussions/{_NUMBER}/status", _of_one(discussing.status), role="contribute"),
    _route("POST", rf"{_API}/discussions/{_NUMBER}/merge", _of_one(discussing.merge), role="write"),
    _route("GET", rf"{_CLONED}/info/refs", _of_one(cloning.advertise), by_git=True),
    _route("POST", rf"{_CLONED}/git-upload-pack", _of_one(cloning.fetch), by_git=True),
)
