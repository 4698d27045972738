"""The one place that talks to a hub: huggingface_hub in, this project's errors out, retries where retrying is right.

The endpoint and the token are passed explicitly. The login saved on this machine is only ever sent to the hub it belongs to.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from huggingface_hub import constants

from easyteacache.errors import HubError
from easyteacache.files import strict_json
from easyteacache.hub import downloads, failures
from easyteacache.hub.downloads import PUBLIC
from easyteacache.hub.failures import TooLarge

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ENVIRONMENT_TOKEN = "EASYTEACACHE_TOKEN"
ENVIRONMENT_REPOSITORY = "EASYTEACACHE_REPOSITORY"
DATASET = "dataset"
RETRIES = 4
PATHS_A_REQUEST = 500

Value = TypeVar("Value")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def token_for(endpoint: str) -> str | None:
    """The token for a hub: ``$EASYTEACACHE_TOKEN``, else the login saved for the hub that huggingface_hub itself uses."""
    from huggingface_hub import get_token

    own = os.environ.get(ENVIRONMENT_TOKEN)
    if own:
        return own
    return get_token() if endpoint.rstrip("/") in (PUBLIC, constants.ENDPOINT.rstrip("/")) else None


@dataclass(frozen=True)
class Stored:
    """A file of a repository: its size in bytes and git object id (or LFS hash)."""

    size: int
    oid: str


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
        offline: answer from the cache of earlier downloads only.
        wait: sleeps before a retry; tests pass their own.

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
    ) -> None:
        if not _NAME.fullmatch(repository) or ".." in repository or "--" in repository:
            raise HubError(strict_json.shown(repository), "not a repository name; expected owner/name")
        self.repository = repository
        self.endpoint = _address(repository, endpoint or constants.ENDPOINT)
        self.offline = offline
        self._token: str | bool = False if anonymous else token or token_for(self.endpoint) or False
        self._told: failures.Told = "withheld" if anonymous else "sent" if self._token else "none"
        self._wait = wait

    def __repr__(self) -> str:
        return f"Remote({self.repository!r}, endpoint={self.endpoint!r})"

    @property
    def api(self) -> HfApi:
        """The client, with this hub's address and token."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self._token, library_name="easyteacache")

    # Reading ----------------------------------------------------------------------------------------------------------

    def pin(self, file: str, revision: str | None, *, limit: int) -> tuple[str, Path]:
        """Download ``file`` at a branch, tag or commit; returns the commit it was read from and the local copy.

        Args:
            file: path in the repository.
            revision: None: main.
            limit: bytes it may have.

        Raises:
            HubError: it cannot be had, or is larger; the reason says what to do.
        """
        from huggingface_hub import hf_hub_download

        wanted = revision or "main"
        if not self.offline:
            # The download itself would quietly answer from the cache when the hub cannot be reached.
            size = self._size(file, wanted)
            if size > limit:
                raise HubError(self.repository, f"{file} has {size} bytes; at most {limit} are read")
        path = Path(
            self.attempt(
                lambda: hf_hub_download(
                    self.repository,
                    file,
                    repo_type=DATASET,
                    revision=wanted,
                    endpoint=self.endpoint,
                    token=self._token,
                    local_files_only=self.offline,
                    cache_dir=downloads.folder_of(self.endpoint),
                    library_name="easyteacache",
                )
            )
        )
        return path.parts[len(path.parts) - len(Path(file).parts) - 1], path

    def _size(self, file: str, revision: str) -> int:
        from huggingface_hub import get_hf_file_metadata

        url = self._url(file, revision)
        found = self.attempt(lambda: get_hf_file_metadata(url, token=self._token, endpoint=self.endpoint))
        return found.size or 0

    def _url(self, file: str, revision: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repository, file, repo_type=DATASET, revision=revision, endpoint=self.endpoint)

    def read(self, file: str, commit: str, *, limit: int) -> bytes:
        """The content of one file of a commit, in one request; nothing is kept.

        Raises:
            MissingFile: the commit has no such file.
            TooLarge: it has more than ``limit`` bytes; no more than these were received.
            HubError: it cannot be had.
        """
        if self.offline:
            raise HubError(self.repository, self._not_kept())
        return self.attempt(lambda: self._received(file, commit, limit))

    def _received(self, file: str, commit: str, limit: int) -> bytes:
        from huggingface_hub import get_session, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        headers = build_hf_headers(token=self._token, library_name="easyteacache") | {"Accept-Encoding": "identity"}
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", self._url(file, commit), headers=headers, timeout=timeout) as response:
            hf_raise_for_status(response)
            data = bytearray()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > limit:
                    raise TooLarge(self.repository, f"{file} has more than the {limit} bytes that are read")
        return bytes(data)

    def stored(self, files: Sequence[str], revision: str) -> dict[str, Stored]:
        """What the hub knows of files; those that do not exist are left out."""
        from huggingface_hub.hf_api import RepoFile

        found: dict[str, Stored] = {}
        for start in range(0, len(files), PATHS_A_REQUEST):
            some = list(files[start : start + PATHS_A_REQUEST])
            for item in self.attempt(
                lambda some=some: self.api.get_paths_info(  # type: ignore[misc]
                    self.repository, some, repo_type=DATASET, revision=revision
                )
            ):
                if isinstance(item, RepoFile):
                    found[item.path] = Stored(item.size, item.lfs.sha256 if item.lfs else item.blob_id)
        return found

    def commit_of(self, revision: str) -> str:
        """The commit a branch points at now."""
        info = self.attempt(
            lambda: self.api.list_repo_refs(self.repository, repo_type=DATASET, include_pull_requests=True)
        )
        everything = [*info.branches, *info.tags, *(info.pull_requests or [])]
        for one in everything:
            if revision in (one.name, one.ref):
                return str(one.target_commit)
        raise HubError(self.repository, f"there is no revision {strict_json.shown(revision)}")

    def log(self, revision: str | None = None) -> list[Any]:
        """Commits of a branch, newest first; each with ``commit_id``, ``title``, ``authors``, ``created_at``."""
        # The client repeats a list for a minute and more where nobody answers; this question it asks once.
        self.attempt(lambda: self.api.list_repo_refs(self.repository, repo_type=DATASET))
        return self.attempt(lambda: self.api.list_repo_commits(self.repository, repo_type=DATASET, revision=revision))

    # Proposing --------------------------------------------------------------------------------------------------------

    def whoami(self) -> str:
        """Name of the account the token belongs to.

        Raises:
            HubError: there is no token, or the hub does not know it.
        """
        if self._token is False:
            raise HubError(
                self.repository,
                f"no token for {self.endpoint}: run `hf auth login` for the public hub, or set {ENVIRONMENT_TOKEN}",
            )
        return str(self.attempt(lambda: self.api.whoami()["name"]))

    def open_requests(self, author: str) -> Iterator[OpenRequest]:
        """Open pull requests of ``author``, newest first."""
        found = self.attempt(
            lambda: list(
                self.api.get_repo_discussions(
                    self.repository,
                    repo_type=DATASET,
                    author=author,
                    discussion_type="pull_request",
                    discussion_status="open",
                )
            )
        )
        yield from (
            OpenRequest(one.num, one.title, one.author, one.url)
            for one in found
            if one.is_pull_request and one.author == author
        )

    def conflicts(self, request: OpenRequest) -> bool:
        """Whether a request can no longer be merged as it is."""
        details = self.attempt(
            lambda: self.api.get_discussion_details(self.repository, request.number, repo_type=DATASET)
        )
        return bool(details.conflicting_files)

    def close(self, request: OpenRequest, comment: str) -> None:
        """Close a request, saying why."""
        self.attempt(
            lambda: self.api.change_discussion_status(
                self.repository, request.number, "closed", comment=comment, repo_type=DATASET
            )
        )

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
        from huggingface_hub import CommitOperationAdd

        operations = [CommitOperationAdd(path, data) for path, data in sorted(files.items())]
        try:
            done = self.api.create_commit(
                self.repository,
                operations,
                commit_message=title,
                commit_description=description,
                repo_type=DATASET,
                revision=branch,
                create_pr=branch is None,
                parent_commit=parent,
            )
        except Exception as error:
            raise self.translated(error) from error
        return str(done.pr_url or done.commit_url)

    # Failing ----------------------------------------------------------------------------------------------------------

    def attempt(self, call: Callable[[], Value]) -> Value:
        """Call, and again after a pause while the hub is busy or cannot be reached.

        Raises:
            HubError: what went wrong in the end.
        """
        for attempt in range(RETRIES):
            try:
                return call()
            except Exception as error:
                pause = failures.pause(error, attempt)
                if pause is None or attempt == RETRIES - 1 or self.offline:
                    raise self.translated(error) from error
                self._wait(pause)
        raise AssertionError("unreachable")

    def translated(self, error: Exception) -> HubError:
        """The error as this project raises it, with what to do and without the request."""
        if isinstance(error, HubError):
            return error
        if self.offline and failures.is_missing_here(error):
            return HubError(self.repository, self._not_kept())
        return failures.translated(error, self.repository, self.endpoint, token=self._told)

    def _not_kept(self) -> str:
        return f"not among the earlier downloads from {self.endpoint}: pull once without --offline"


def _address(repository: str, endpoint: str) -> str:
    """The endpoint without a final slash."""
    if "@" in endpoint:
        # Not shown: errors and lock files would carry it on.
        raise HubError(repository, f"the hub's address holds a user or a password; set {ENVIRONMENT_TOKEN} instead")
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", endpoint)
    except ValueError:
        usable = False
    if not usable:
        shown = strict_json.shown(endpoint)
        raise HubError(repository, f"{shown} is no address of a hub; expected http://HOST:PORT or https://HOST")
    return endpoint.rstrip("/")
