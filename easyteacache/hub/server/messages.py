"""What a hub answers: requests in, replies out, refusals as exceptions, without any socket."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from easyteacache.files import strict_json
from easyteacache.hub.server.tokens import User

MAX_JSON_ITEMS = 200_000
# What turns the direction of the text that follows: a title could show another name than it holds.
_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class Head:
    """An HTTP request before its body is read.

    Attributes:
        method: ``GET``, ``HEAD``, ``POST`` … as it was sent.
        path: the path without query, its segments still quoted.
        query: first value of each parameter.
        headers: by lower-case name.
        user: who sent it, None without a token.
        origin: ``http://host:port`` for links.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    user: User | None
    origin: str


@dataclass(frozen=True)
class Request(Head):
    """One HTTP request.

    Attributes:
        body: the content.
    """

    body: bytes = b""

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            Refusal: it is none.
        """
        return json_object(self.body or b"{}")


@dataclass(frozen=True)
class Stream:
    """Content that is made while it is sent.

    Attributes:
        pieces: it, piece by piece; closed when nobody wants the rest.
        size: bytes in all, None where that is not known before.
    """

    pieces: Iterator[bytes]
    size: int | None = None


@dataclass(frozen=True)
class Reply:
    """One HTTP reply; ``content`` is bytes, a stream, or a value sent as JSON."""

    content: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """A request that is answered with an error; clients read its code and message from the headers."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}
        super().__init__(message)

    def reply(self) -> Reply:
        """The answer that clients understand."""
        line = "".join(c if " " <= c <= "~" else "?" for c in self.message)
        headers = {"X-Error-Message": line[:1000], **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        return Reply({"error": self.message}, self.status, headers)


def json_object(data: bytes) -> dict[str, Any]:
    """Strict JSON of a body or of one of its lines.

    Raises:
        Refusal: it is no JSON object.
    """
    try:
        value = strict_json.parse(data, max_bytes=1 << 28, max_items=MAX_JSON_ITEMS)
    except strict_json.JSONTextError as error:
        raise Refusal(400, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refusal(400, "the body is not a JSON object")
    return value


def text_of(value: dict[str, Any], name: str, *, max_bytes: int, line: bool = False) -> str:
    """A text of a body; an absent one is empty.

    Args:
        value: the body.
        name: of the field.
        max_bytes: its largest size in UTF-8.
        line: one line only, as titles are.

    Raises:
        Refusal: it is no text, too long, or holds control characters.
    """
    text = value.get(name, "")
    if not isinstance(text, str):
        raise Refusal(400, f"{name} is not text")
    text = text.replace("\r\n", "\n")
    if len(text.encode()) > max_bytes:
        raise Refusal(413, f"{name} has {len(text.encode())} bytes; at most {max_bytes} are taken")
    allowed = "" if line else "\n\t"
    bad = next((c for c in text if c not in allowed and _acts(c)), None)
    if bad is not None:
        raise Refusal(400, f"{name} holds the control character U+{ord(bad):04X}: write it without")
    return text


def _acts(character: str) -> bool:
    """Whether a character does something to what shows it instead of being shown."""
    return unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") or character in _DIRECTION
