"""What can go wrong with a hub: what the exchange found in, this project's errors out, each with what to do; and which are worth repeating."""

from __future__ import annotations

import re
from typing import Literal

from easyteacache.errors import HubError
from easyteacache.files import strict_json
from easyteacache.hub.exchange import ErrorAnswer, Oversized, Unanswered
from easyteacache.hub.secret import Secret

LONGEST_WAIT_SECONDS = 60.0
# What became of the person's token: there is none, it was sent, or it was kept back.
Told = Literal["none", "sent", "withheld"]
_PRIVATE = {
    "none": "you have set no token",
    "sent": "your token does not open it",
    "withheld": "was asked for without a token: the address is the lock's; give it as --endpoint to send yours",
}
# The public hub's words for a token it does not know; with any other 401 it means a repository that is not there.
_UNKNOWN_TOKEN = "Invalid credentials in Authorization header"


class MissingFile(HubError):
    """The hub has the repository and the revision, but not this file."""


class TooLarge(HubError):
    """A file has more bytes than are ever read."""


class StaleParent(HubError):
    """The branch moved between reading it and committing to it."""


def translated(error: Exception, repository: str, endpoint: str, *, token: Told, secret: Secret) -> HubError:
    """The error as this project raises it, with what to do and without the request."""
    kind = HubError
    if isinstance(error, ErrorAnswer):
        kind = StaleParent if error.status == 412 else MissingFile if _code(error) == "EntryNotFound" else HubError
    if isinstance(error, Oversized):
        kind = TooLarge
    return kind(repository, secret.struck(_reason(error, endpoint, token, secret)))


def pause(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before the next attempt, or None when another one would end the same."""
    if isinstance(error, Unanswered):
        return 0.5 * 2**attempt if error.again else None
    if not isinstance(error, ErrorAnswer) or (error.status != 429 and error.status not in (500, 502, 503, 504)):
        return None
    # Another form of this header names a date; a few seconds do as well.
    asked = error.retry_after.strip()
    return min(float(asked), LONGEST_WAIT_SECONDS) if re.fullmatch(r"[0-9]{1,6}", asked) else float(2**attempt)


def _code(error: ErrorAnswer) -> str:
    if error.code == "RepoNotFound" or (error.status == 401 and error.said != _UNKNOWN_TOKEN):
        return "RepoNotFound"
    return error.code


def _reason(error: Exception, endpoint: str, token: Told, secret: Secret) -> str:
    at = f"at {endpoint}"
    if isinstance(error, Unanswered):
        offline = "; --offline uses what was downloaded before" if error.again else ""
        return f"{endpoint} {error.reason}{offline}"
    if isinstance(error, Oversized):
        return f"the hub's answer {at} has more bytes than are read"
    if not isinstance(error, ErrorAnswer):
        return f"the hub's answer {at} makes no sense ({type(error).__name__}: {_line(error, secret)})"
    said = strict_json.shown(secret.struck(error.said or "no reason given"), 200)
    code, status = _code(error), error.status
    if code == "GatedRepo":
        return f"access is restricted {at}: ask its owners, and set a token of an account that has access"
    if code == "RepoNotFound":
        return f"there is no such dataset repository {at}, or it is private and {_PRIVATE[token]}"
    if code == "RevisionNotFound":
        return f"there is no such revision {at}"
    if code == "EntryNotFound":
        return f"the file does not exist {at}: is this a registry, and this the right revision?"
    if status == 401:
        return f"your token is not known {at}: is it whole, and one of this hub's?"
    if status == 403:
        return f"your token does not allow this {at} ({said})"
    if status == 412:
        return "the branch moved meanwhile: try again"
    if status == 429:
        return f"too many requests {at}: wait a few minutes and try again"
    return f"{at} answered {status}: {said}"


def _line(error: Exception, secret: Secret) -> str:
    return strict_json.shown(secret.struck(str(error).strip().partition("\n")[0]), 120)
