"""What can go wrong with a hub: the client's errors in, this project's out, each with what to do; and which are worth repeating."""

from __future__ import annotations

from typing import Literal

from huggingface_hub import errors
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

from easyteacache.errors import HubError
from easyteacache.files import strict_json

LONGEST_WAIT_SECONDS = 60.0
# What became of the person's token: there is none, it was sent, or it was kept back.
Told = Literal["none", "sent", "withheld"]
_PRIVATE = {
    "none": "you have set no token",
    "sent": "your token does not open it",
    "withheld": "was asked for without a token: the address is the lock's; give it as --endpoint to send yours",
}


class MissingFile(HubError):
    """The hub has the repository and the revision, but not this file."""


class TooLarge(HubError):
    """A file has more bytes than are ever read."""


class StaleParent(HubError):
    """The branch moved between reading it and committing to it."""


def is_missing_here(error: Exception) -> bool:
    """Whether the client found nothing in its cache, or no hub to ask."""
    return isinstance(error, errors.LocalEntryNotFoundError)


def translated(error: Exception, repository: str, endpoint: str, *, token: Told) -> HubError:
    """The error as this project raises it, with what to do and without the request."""
    kind = StaleParent if _status(error) == 412 else HubError
    if isinstance(error, errors.RemoteEntryNotFoundError):
        kind = MissingFile
    return kind(repository, _reason(error, endpoint, token))


def pause(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before the next attempt, or None when another one would end the same."""
    status = _status(error)
    if status is None:
        lost = isinstance(error, HTTPError | ConnectionError | errors.LocalEntryNotFoundError)
        return 0.5 * 2**attempt if lost and not isinstance(error, errors.OfflineModeIsEnabled) else None
    if status != 429 and status < 500:
        return None
    asked = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
    return min(float(asked), LONGEST_WAIT_SECONDS) if asked.isdigit() else float(2**attempt)


def _reason(error: Exception, endpoint: str, token: Told) -> str:
    status, at = _status(error), f"at {endpoint}"
    if isinstance(error, errors.GatedRepoError):
        return f"access is restricted {at}: ask its owners, and set a token of an account that has access"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such dataset repository {at}, or it is private and {_PRIVATE[token]}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"there is no such revision {at}"
    if is_missing_here(error):
        return f"{endpoint} cannot be reached; --offline uses what was downloaded before"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"the file does not exist {at}: is this a registry, and this the right revision?"
    if status == 401:
        return f"your token is not known {at}: is it whole, and one of this hub's?"
    if status == 403:
        return f"your token does not allow this {at} ({_said(error)})"
    if status == 412:
        return "the branch moved meanwhile: try again"
    if status == 429:
        return f"too many requests {at}: wait a few minutes and try again"
    if status is not None:
        return f"{at} answered {status}: {_said(error)}"
    if isinstance(error, HTTPError | ConnectionError):
        return f"{endpoint} cannot be reached ({type(error).__name__}); --offline uses what was downloaded before"
    return f"the hub's answer {at} makes no sense ({type(error).__name__}: {_line(error)})"


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _said(error: Exception) -> str:
    return strict_json.shown(str(getattr(error, "server_message", None) or "no reason given"), 200)


def _line(error: Exception) -> str:
    return strict_json.shown(str(error).strip().partition("\n")[0], 120)
