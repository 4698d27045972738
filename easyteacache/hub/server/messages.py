"""What a hub answers: requests in, replies out, refusals as exceptions, without any socket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from easyteacache.files import strict_json
from easyteacache.hub.server.tokens import User

MAX_JSON_ITEMS = 200_000


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    Attributes:
        method: ``GET``, ``HEAD`` or ``POST``.
        path: the decoded path without query, its segments still quoted.
        query: first value of each parameter.
        body: the content.
        user: who sent it, None without a token.
        origin: ``http://host:port`` for links.
    """

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    user: User | None
    origin: str

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            Refusal: it is none.
        """
        return json_object(self.body or b"{}")


@dataclass(frozen=True)
class Reply:
    """One HTTP reply; ``content`` is bytes, or a value sent as JSON."""

    content: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """A request that is answered with an error; clients read its code and message from the headers."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        self.status, self.message, self.code = status, message, code
        super().__init__(message)

    def reply(self) -> Reply:
        """The answer that clients understand."""
        headers = {"X-Error-Message": self.message.encode("ascii", "replace").decode()}
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
