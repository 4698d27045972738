"""What a hub's JSON must look like to be used; everything else in it is left out."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from easyteacache.files import strict_json

Text = Annotated[str, Field(max_length=4096)]
Sha1 = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
# A git object id, or the SHA-256 of a file in large-file storage.
Oid = Annotated[str, Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
Number = Annotated[int, Field(ge=0, le=10**9)]

MAX_ITEMS = 2_000_000


class Senseless(ValueError):
    """An answer that is not what was asked for."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Reference(_Part):
    """A branch, tag or pull request and the commit it points at."""

    name: Text
    ref: Text
    target_commit: Sha1 = Field(alias="targetCommit")


class References(_Part):
    """What a repository calls its commits."""

    branches: list[Reference]
    tags: list[Reference]
    pull_requests: list[Reference] | None = Field(default=None, alias="pullRequests")

    def all(self) -> list[Reference]:
        """Branches first."""
        return [*self.branches, *self.tags, *(self.pull_requests or [])]


class LargeFile(_Part):
    """A file in large-file storage."""

    oid: Oid
    size: Annotated[int, Field(ge=0)]


class Stored(_Part):
    """A file or folder as a listing shows it."""

    type: Text
    path: Text
    oid: Oid
    size: Annotated[int, Field(ge=0)] = 0
    lfs: LargeFile | None = None

    @property
    def content_id(self) -> str:
        """What names its content: the git object's id, or the SHA-256 where it is in large-file storage."""
        return self.lfs.oid if self.lfs else self.oid


class Author(_Part):
    """Who made a commit."""

    user: Text = ""


def _moment(text: str) -> str:
    # Python 3.10 reads no "Z".
    datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return text


class Commit(_Part):
    """One commit of a history."""

    id: Sha1
    title: Text = ""
    date: Annotated[Text, AfterValidator(_moment)] = "1970-01-01T00:00:00+00:00"
    authors: list[Author] = []


class Account(_Part):
    """Who a token belongs to."""

    name: Annotated[str, Field(min_length=1, max_length=200)]


class Discussion(_Part):
    """One discussion or pull request in a list."""

    num: Number
    title: Text
    author: dict[str, Any] | None = None
    is_pull_request: bool = Field(default=False, alias="isPullRequest")
    status: Text = "open"


class Discussions(_Part):
    """One page of a list of them."""

    count: Number
    start: Number
    discussions: list[Discussion]


class Conflicts(_Part):
    """What hinders a merge."""

    files: list[Any] | bool | None = Field(default=None, alias="filesWithConflicts")


class Mode(_Part):
    """How a file is to be sent."""

    path: Text
    upload_mode: Text = Field(alias="uploadMode")
    should_ignore: bool = Field(default=False, alias="shouldIgnore")


class Modes(_Part):
    """How files are to be sent."""

    files: list[Mode]


class Action(_Part):
    """Where large content goes."""

    href: Annotated[str, Field(max_length=8192)]


class Actions(_Part):
    """What is to be done with large content."""

    upload: Action | None = None
    verify: Action | None = None


class LargeObject(_Part):
    """One large content and what is to be done with it; no actions: it is there already."""

    oid: Oid
    actions: Actions | None = None
    error: dict[str, Any] | None = None


class LargeObjects(_Part):
    """An answer of large-file storage."""

    objects: list[LargeObject]


class Committed(_Part):
    """A commit that was stored."""

    commit_oid: Sha1 = Field(alias="commitOid")
    request: Text | None = Field(default=None, alias="pullRequestUrl")


Kind = TypeVar("Kind")


def read(kind: type[Kind], content: bytes) -> Kind:
    """The answer as ``kind``.

    Raises:
        Senseless: it is none.
    """
    try:
        value = strict_json.parse(content, max_bytes=len(content), max_items=MAX_ITEMS)
    except strict_json.JSONTextError as error:
        raise Senseless(str(error)) from error
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise Senseless(f"{place.lstrip('.') or 'answer'}: {first['msg']}") from error
