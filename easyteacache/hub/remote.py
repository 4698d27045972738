"""The one place that talks to a hub: questions of its interface out, this project's errors in, repeated where that is right.

The endpoint and the token are passed explicitly. The login saved on this machine is only ever sent to the hub it belongs to.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from huggingface_hub import constants

from easyteacache.errors import HubError
from easyteacache.files import strict_json
from easyteacache.hub import answers, failures
from easyteacache.hub.commit_content import CommitContent
from easyteacache.hub.downloads import PUBLIC, Downloads, Pins, folder_of
from easyteacache.hub.exchange import Answer, Exchange, Limits, Question
from easyteacache.hub.failures import TooLarge
from easyteacache.hub.secret import Secret

ENVIRONMENT_TOKEN = "EASYTEACACHE_TOKEN"
ENVIRONMENT_REPOSITORY = "EASYTEACACHE_REPOSITORY"
RETRIES = 4
# Seconds after which no further attempt begins.
RETRY_SECONDS = 120.0
PATHS_A_REQUEST = 500
# The largest answers that are read: lists of a registry of ten thousand records, with room.
MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_PAGES = 200
# A hub checks and stores a commit before it answers.
COMMIT_SECONDS = 300.0

Value = TypeVar("Value")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# No control character, nothing that turns the direction of what follows: it goes into messages and files.
_REVISION = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]{1,250}")
_NEXT = re.compile(r'<([^<>]{1,4000})>\s*;\s*rel="?next"?')


def token_for(endpoint: str) -> str | None:
    """The token for a hub: ``$EASYTEACACHE_TOKEN``, else the login saved for the hub that huggingface_hub itself uses."""
    from huggingface_hub import get_token

    own = os.environ.get(ENVIRONMENT_TOKEN)
    if own:
        return own
    return get_token() if endpoint.rstrip("/") in (PUBLIC, constants.ENDPOINT.rstrip("/")) else None


@dataclass(frozen=True)
class OpenRequest:
    """An open pull request."""

    number: int
    title: str
    author: str
    url: str

    @property
    def branch(self) -> str:
        """The revision its commits go to."""
        return f"refs/pr/{self.number}"


class Remote:
    """One dataset repository on one hub.

    Args:
        repository: ``owner/name``.
        endpoint: the hub's address; None: ``$HF_ENDPOINT``, else the public hub.
        token: None: see ``token_for``.
        anonymous: send no token whatever there is: the address was not chosen by whom the token belongs to.
        offline: answer from earlier downloads only; so does ``$HF_HUB_OFFLINE``.
        wait: sleeps before a retry; tests pass their own.
        limits: how long anything may take.

    Raises:
        HubError: ``repository`` is no ``owner/name``, or ``endpoint`` no address of a hub.
    """

    def __init__(
        self,
        repository: str,
        *,
        endpoint: str | None = None,
        token: str | None = None,
        anonymous: bool = False,
        offline: bool = False,
        wait: Callable[[float], object] = time.sleep,
        limits: Limits | None = None,
    ) -> None:
        if not _NAME.fullmatch(repository) or ".." in repository or "--" in repository:
            raise HubError(strict_json.shown(repository), "not a repository name; expected owner/name")
        self.repository = repository
        self.endpoint = _address(repository, endpoint or constants.ENDPOINT)
        self.offline = offline or constants.HF_HUB_OFFLINE
        own = None if anonymous else token or token_for(self.endpoint)
        if own is not None and not re.fullmatch(r"[\x21-\x7e]+", own):
            raise HubError(
                repository, f"the token for {self.endpoint} holds characters that no token has: is it whole?"
            )
        self._has_token = own is not None
        self._told: failures.Told = "withheld" if anonymous else "sent" if own else "none"
        self.secret = Secret(own)
        self._exchange = Exchange(self.endpoint, own, limits)
        self._wait = wait

    def __repr__(self) -> str:
        return f"Remote({self.repository!r}, endpoint={self.endpoint!r})"

    # Reading ----------------------------------------------------------------------------------------------------------

    def pin(self, file: str, revision: str | None, *, limit: int) -> tuple[str, bytes]:
        """The content of ``file`` at a branch, tag or commit, and the commit it was read from.

        Offline, as it was when it was last asked for.

        Args:
            file: path in the repository.
            revision: None: main.
            limit: bytes it may have.

        Raises:
            HubError: it cannot be had, or is larger; the reason says what to do.
        """
        wanted = self._revision(revision)
        pins = Pins(self.endpoint, self.repository)
        kept = Downloads(folder_of("indices"), max_bytes=limit)
        if self.offline:
            pinned = pins.get(file, wanted)
            data = None if pinned is None else kept.get(pinned.sha256)
            if pinned is None or data is None:
                raise HubError(self.repository, self._not_kept())
            return pinned.commit, data
        answer = self._file(file, wanted, limit)
        commit = answer.commit
        if not commit:
            # Mirrors leave it out; the file is then read once more, of the commit that it is known to be of.
            commit = wanted if _COMMIT.fullmatch(wanted) else self.commit_of(wanted)
            answer = self._file(file, commit, limit)
        if not _COMMIT.fullmatch(commit):
            shown = strict_json.shown(self.secret.struck(commit))
            raise HubError(self.repository, f"the hub names the commit {shown}, which is none")
        if _COMMIT.fullmatch(wanted) and commit != wanted:
            raise HubError(self.repository, f"the hub was asked for commit {wanted} and answered with {commit}")
        pins.keep(file, wanted, commit, kept.keep(answer.content))
        return commit, answer.content

    def read(self, file: str, commit: str, *, limit: int) -> bytes:
        """The content of one file of a commit, in one request; nothing is kept.

        Raises:
            MissingFile: the commit has no such file.
            TooLarge: it has more than ``limit`` bytes; no more than these were received.
            HubError: it cannot be had.
        """
        if self.offline:
            raise HubError(self.repository, self._not_kept())
        return self._file(file, commit, limit).content

    def _revision(self, revision: str | None) -> str:
        """What was asked for, main where nothing was."""
        if revision is None:
            return "main"
        if not _REVISION.fullmatch(revision):
            raise HubError(self.repository, f"{strict_json.shown(revision)} is no branch, tag or commit")
        return revision

    def _file(self, file: str, revision: str, limit: int) -> Answer:
        address = f"/datasets/{self.repository}/resolve/{quote(revision, safe='')}/{quote(file)}"
        try:
            return self._asked("GET", address, limit=limit)
        except TooLarge as error:
            reason = f"{file} has more than the {limit} bytes that are read"
            raise TooLarge(self.repository, reason) from error

    def stored(self, files: Sequence[str], revision: str) -> dict[str, answers.Stored]:
        """What the hub knows of files; those that do not exist are left out."""
        found: dict[str, answers.Stored] = {}
        for start in range(0, len(files), PATHS_A_REQUEST):
            some = list(files[start : start + PATHS_A_REQUEST])
            form = urlencode([*(("paths", path) for path in some), ("expand", "False")]).encode()
            answer = self._asked(
                "POST",
                f"{self._api}/paths-info/{quote(revision, safe='')}",
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                content=form,
            )
            for one in self._read(list[answers.Stored], answer):
                if one.type == "file" and one.path in some:
                    found[one.path] = one
        return found

    def commit_of(self, revision: str) -> str:
        """The commit a branch points at now."""
        found = self._read(answers.References, self._asked("GET", f"{self._api}/refs", query={"include_prs": "1"}))
        for one in found.all():
            if revision in (one.name, one.ref):
                return one.target_commit
        empty = " (an empty repository has none: create it with `hf repos create`, or commit a first file)"
        raise HubError(
            self.repository, f"there is no revision {strict_json.shown(revision)}{empty if revision == 'main' else ''}"
        )

    def log(self, revision: str | None = None, *, count: int = 1000) -> Iterator[answers.Commit]:
        """The last ``count`` commits of a branch, newest first."""
        address = f"{self._api}/commits/{quote(self._revision(revision), safe='')}"
        query: dict[str, str] = {}
        left = count
        for _ in range(MAX_PAGES):
            answer = self._asked("GET", address, query=query)
            page = self._read(list[answers.Commit], answer)
            yield from page[:left]
            left -= len(page)
            following = _NEXT.search(answer.headers.get("Link", ""))
            if following is None or left <= 0 or not page:
                return
            # Of the address that a hub names as the next page only the query is taken.
            query = dict(parse_qsl(urlsplit(following[1]).query, max_num_fields=20))

    # Proposing --------------------------------------------------------------------------------------------------------

    def whoami(self) -> str:
        """Name of the account the token belongs to.

        Raises:
            HubError: there is no token, or the hub does not know it.
        """
        if not self._has_token:
            raise HubError(
                self.repository,
                f"no token for {self.endpoint}: run `hf auth login` for the public hub, or set {ENVIRONMENT_TOKEN}",
            )
        return self._read(answers.Account, self._asked("GET", "/api/whoami-v2")).name

    def open_requests(self, author: str) -> Iterator[OpenRequest]:
        """Open pull requests of ``author``, newest first."""
        query = {"type": "pull_request", "status": "open", "author": author}
        for number in range(MAX_PAGES):
            answer = self._asked("GET", f"{self._api}/discussions", query=query | {"p": str(number)})
            page = self._read(answers.Discussions, answer)
            for one in page.discussions:
                name = (one.author or {}).get("name")
                if one.is_pull_request and name == author and one.status == "open":
                    yield OpenRequest(one.num, one.title, author, self.address_of(one.num))
            if not page.discussions or page.start + len(page.discussions) >= page.count:
                return

    def address_of(self, number: int) -> str:
        """Where people see a pull request: on this hub, whatever address an answer names."""
        return f"{self.endpoint}/datasets/{self.repository}/discussions/{number}"

    def conflicts(self, request: OpenRequest) -> bool:
        """Whether a request can no longer be merged as it is."""
        answer = self._asked("GET", f"{self._api}/discussions/{request.number}", query={"diff": "1"})
        return bool(self._read(answers.Conflicts, answer).files)

    def close(self, request: OpenRequest, comment: str) -> None:
        """Close a request, saying why."""
        self._post(f"{self._api}/discussions/{request.number}/status", {"status": "closed", "comment": comment})

    def pause_after(self, error: HubError, attempt: int) -> float | None:
        """Seconds after which an action that failed so may be repeated; None: never."""
        return failures.pause(error.__cause__, attempt) if isinstance(error.__cause__, Exception) else None

    def commit(self, files: dict[str, bytes], *, title: str, description: str, parent: str, branch: str | None) -> str:
        """One commit: on ``branch``, or as a new pull request when that is None; returns the request's or commit's URL.

        Not repeated here: whether a commit whose answer was lost arrived, only the caller can find out.

        Raises:
            StaleParent: ``branch`` is no longer at ``parent``.
            HubError: anything else.
        """
        revision = quote(branch or "main", safe="")
        query = {"create_pr": "1"} if branch is None else {}
        content = CommitContent(files, title, description, parent)
        large = self._large(content, revision, query)
        for one in self._objects(content, large, branch or "main"):
            self._send_large(content, one)
        answer = self._asked(
            "POST",
            f"{self._api}/commit/{revision}",
            query=query,
            headers={"Content-Type": "application/x-ndjson"},
            pieces=(content.size(large), content.pieces(large)),
            first=COMMIT_SECONDS,
            once=True,
        )
        done = self._read(answers.Committed, answer)
        number = re.search(r"/discussions/([0-9]{1,9})$", done.request or "")
        if number is not None:
            return self.address_of(int(number[1]))
        return f"{self.endpoint}/datasets/{self.repository}/commit/{done.commit_oid}"

    def _large(self, content: CommitContent, revision: str, query: dict[str, str]) -> set[str]:
        """The files that the hub wants in its large-file storage."""
        large: set[str] = set()
        for files in content.samples():
            answer = self._post(f"{self._api}/preupload/{revision}", {"files": files}, query)
            modes = {one.path: one for one in self._read(answers.Modes, answer).files}
            for file in files:
                mode = modes.get(file["path"])
                if mode is None or mode.should_ignore or mode.upload_mode not in ("regular", "lfs"):
                    raise HubError(self.repository, f"the hub does not take {file['path']}: its .gitignore may say why")
                if mode.upload_mode == "lfs" and file["size"]:
                    large.add(file["path"])
        return large

    def _objects(self, content: CommitContent, large: set[str], branch: str) -> list[answers.LargeObject]:
        if not large:
            return []
        question = content.objects(large) | {"ref": {"name": branch}}
        address = f"/datasets/{self.repository}.git/info/lfs/objects/batch"
        kind = "application/vnd.git-lfs+json"
        answer = self._post(address, question, headers={"Accept": kind, "Content-Type": kind})
        found = self._read(answers.LargeObjects, answer).objects
        refused = [one for one in found if one.error is not None]
        if refused or {one.oid for one in found} != {one["oid"] for one in question["objects"]}:
            raise HubError(self.repository, f"{self.endpoint} does not take files into its large-file storage")
        return found

    def _send_large(self, content: CommitContent, one: answers.LargeObject) -> None:
        """Send one large content to where the hub says; the token goes along to the hub itself alone."""
        if one.actions is None or one.actions.upload is None:
            return
        data = content.by_sha256(one.oid)
        self._asked("PUT", one.actions.upload.href, pieces=(len(data), [data]), elsewhere=True, first=COMMIT_SECONDS)
        if one.actions.verify is not None:
            told = json.dumps({"oid": one.oid, "size": len(data)}).encode()
            headers = {"Content-Type": "application/json"}
            self._asked("POST", one.actions.verify.href, content=told, headers=headers, elsewhere=True)

    # Asking -----------------------------------------------------------------------------------------------------------

    @property
    def _api(self) -> str:
        return f"/api/datasets/{self.repository}"

    def _post(
        self,
        address: str,
        content: object,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        told = {"Content-Type": "application/json", **(headers or {})}
        return self._asked("POST", address, query=query, headers=told, content=json.dumps(content).encode())

    def _asked(
        self,
        method: str,
        address: str,
        *,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
        pieces: tuple[int, Iterable[bytes]] | None = None,
        limit: int = MAX_ANSWER_BYTES,
        first: float | None = None,
        elsewhere: bool = False,
        once: bool = False,
    ) -> Answer:
        """The hub's answer, asked for again after a pause while it is busy or cannot be reached."""
        if self.offline:
            raise HubError(
                self.repository, f"this asks {self.endpoint}, and HF_HUB_OFFLINE or --offline says to ask nobody"
            )
        whole = address if elsewhere else f"{self.endpoint}{address}"
        if query:
            whole += f"?{urlencode(query)}"
        sent = pieces if content is None else (len(content), [content])
        question = Question(method, whole, limit, headers, sent, first)
        answer = self.attempt(lambda: self._exchange.ask(question), attempts=1 if once else RETRIES)
        if self.secret.held_by(answer.content):
            # It could end up in a file, in a title that is printed, in the log of a CI run.
            raise HubError(self.repository, f"{self.endpoint} repeats the token it was sent: replace that token")
        return answer

    def _read(self, kind: type[Value], answer: Answer) -> Value:
        try:
            return answers.read(kind, answer.content)
        except ValueError as error:
            raise self.translated(error) from error

    # Failing ----------------------------------------------------------------------------------------------------------

    def attempt(self, call: Callable[[], Value], *, attempts: int | None = None) -> Value:
        """Call, and again after a pause while the hub is busy or cannot be reached.

        Raises:
            HubError: what went wrong in the end.
        """
        begun = time.monotonic()
        for attempt in range(attempts or RETRIES):
            try:
                return call()
            except Exception as error:
                pause = failures.pause(error, attempt)
                over = pause is None or time.monotonic() - begun + pause > RETRY_SECONDS
                if over or attempt == (attempts or RETRIES) - 1:
                    raise self.translated(error) from error
                assert pause is not None
                self._wait(pause)
        raise AssertionError("unreachable")

    def translated(self, error: Exception) -> HubError:
        """The error as this project raises it, with what to do and without the request."""
        if isinstance(error, HubError):
            return error
        return failures.translated(error, self.repository, self.endpoint, token=self._told, secret=self.secret)

    def _not_kept(self) -> str:
        return f"not among the earlier downloads from {self.endpoint}: pull once without --offline"


def _address(repository: str, endpoint: str) -> str:
    """The endpoint without a final slash."""
    if "@" in endpoint:
        # Not shown: errors and lock files would carry it on.
        raise HubError(repository, f"the hub's address holds a user or a password; set {ENVIRONMENT_TOKEN} instead")
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and len(endpoint) <= 300
        usable = usable and not parts.query and not parts.fragment and bool(re.fullmatch(r"[\x21-\x7e]+", endpoint))
    except ValueError:
        usable = False
    if not usable:
        shown = strict_json.shown(endpoint)
        raise HubError(repository, f"{shown} is no address of a hub; expected http://HOST:PORT or https://HOST")
    return endpoint.rstrip("/")
