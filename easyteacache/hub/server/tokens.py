"""Who may do what on a served hub: tokens as hashes only, so that the file that lists them gives none away."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from easyteacache.records import parsing
from easyteacache.records.fields import Record, Sha256

MAX_BYTES = 1 << 20
Role = Literal["read", "contribute", "write"]
_ORDER: tuple[Role, ...] = ("read", "contribute", "write")


class _User(Record):
    token_sha256: Sha256
    role: Role


class _Users(Record):
    users: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,38}$")], _User]


@dataclass(frozen=True, slots=True)
class User:
    """Somebody a token names.

    Attributes:
        name: as commits show it.
        role: ``read``; ``contribute`` (may open pull requests); ``write`` (may also merge, and commit to main).
    """

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether the user's role includes ``role``."""
        return _ORDER.index(self.role) >= _ORDER.index(role)


class Tokens:
    """The users of a hub, by the hash of their token."""

    def __init__(self, users: dict[str, tuple[str, Role]] | None = None) -> None:
        self._by_hash = {digest: User(name, role) for name, (digest, role) in (users or {}).items()}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokens:
        """Read ``{"users": {NAME: {"token_sha256": …, "role": …}}}``.

        Raises:
            InvalidCalibration: the file is unreadable or says something else (rules ``tokens.…``).
        """
        where = os.fspath(path)
        data = parsing.read_file(Path(path), rules="tokens", max_bytes=MAX_BYTES)
        content = parsing.read_object(data, where=where, rules="tokens", max_bytes=MAX_BYTES, max_items=100_000)
        users = parsing.validate(_Users, content, where=where, rules="tokens").users
        return cls({name: (user.token_sha256, user.role) for name, user in users.items()})

    def user(self, authorization: str | None) -> User | None:
        """The user that an ``Authorization`` header names, or None for an unknown token.

        ``Bearer TOKEN`` as clients of the Hub send it, or ``Basic`` with the token as password, as git does.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() == "basic":
            token = _password(token)
        elif scheme.lower() != "bearer":
            return None
        if not token:
            return None
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        return next((user for known, user in self._by_hash.items() if hmac.compare_digest(known, digest)), None)


def _password(credentials: str) -> str:
    """The password in the credentials of a ``Basic`` header; empty where there is none."""
    try:
        return base64.b64decode(credentials, validate=True).decode("utf-8", "replace").partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
