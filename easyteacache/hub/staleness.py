"""What has moved since a record was made: its checkpoint at the model hub, and the source files that its numbers were read in.

Nothing is taken for fresh that was not asked: what cannot be known is said, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from easyteacache.files import strict_json
from easyteacache.hub.exchange import ErrorAnswer, Exchange, Oversized, Question, Unanswered
from easyteacache.records.calibration import Calibration

HUB = "https://huggingface.co"
SOURCES_API = "https://api.github.com"
MAX_ANSWER_BYTES = 16 * 1024 * 1024
#: Files that GitHub lists of one comparison; a path that is not among so many may still have changed.
MOST_FILES = 300

Kind = Literal["checkpoint", "source"]
State = Literal["fresh", "moved", "unknown"]
#: An address → the JSON found there.
Ask = Callable[[str], Any]

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True)
class Place:
    """One thing that a record was made from.

    Attributes:
        key: of the record.
        kind: the model's checkpoint, or a source of the numbers.
        repository: as the record names it; texts of a stranger.
        path: of a source file.
        commit: that was used or read; None where the record names none.
    """

    key: str
    kind: Kind
    repository: str
    commit: str | None
    path: str | None = None


@dataclass(frozen=True)
class Standing:
    """What became of a place.

    Attributes:
        state: ``fresh``, ``moved``, or ``unknown``.
        now: commit that stands there today, where that is known.
        reason: why nothing is known.
    """

    place: Place
    state: State
    now: str | None = None
    reason: str | None = None


class NotKnown(Exception):
    """No answer; its text says why, as the end of a sentence."""


def places_of(record: Calibration) -> Iterator[Place]:
    """Everything that a record names as what it was made from."""
    model = record.model
    if model is not None and model.checkpoint is not None:
        # A recording may name the revision behind the name.
        name, _, revision = model.checkpoint.partition("@")
        yield Place(record.model_key, "checkpoint", name, model.checkpoint_commit or revision or None)
    for source in record.provenance.sources:
        if source.repository is not None:
            yield Place(record.model_key, "source", source.repository, source.commit, source.path)


class Staleness:
    """Asks what has moved, each question once.

    Args:
        hub: address of the model hub.
        sources_api: address of what answers as GitHub's interface does.
        offline: ask nobody.
        ask: stands in for the network.
    """

    def __init__(
        self,
        *,
        hub: str = HUB,
        sources_api: str = SOURCES_API,
        offline: bool = False,
        ask: Ask | None = None,
    ) -> None:
        self._hub, self._api, self._offline = hub.rstrip("/"), sources_api.rstrip("/"), offline
        self._ask = ask or _ask
        self._answers: dict[str, Any] = {}

    def standing(self, place: Place) -> Standing:
        """What became of ``place``. Raises nothing."""
        if not _REPOSITORY.fullmatch(place.repository) or ".." in place.repository:
            return Standing(place, "unknown", reason="it is no repository of the form owner/name")
        if place.commit is None:
            return Standing(place, "unknown", reason="the record names no commit")
        if not _COMMIT.fullmatch(place.commit):
            return Standing(place, "unknown", reason=f"{place.commit[:40]!r} is no commit")
        if self._offline:
            return Standing(place, "unknown", reason="offline, nobody was asked")
        try:
            return self._checkpoint(place) if place.kind == "checkpoint" else self._source(place)
        except NotKnown as error:
            return Standing(place, "unknown", reason=str(error))

    def _checkpoint(self, place: Place) -> Standing:
        found = self._answer(f"{self._hub}/api/models/{place.repository}/revision/main")
        now = _text(found, "sha")
        return Standing(place, "fresh" if now.startswith(place.commit or "") else "moved", now)

    def _source(self, place: Place) -> Standing:
        found = self._answer(f"{self._api}/repos/{place.repository}/compare/{quote(place.commit or '')}...HEAD")
        commits = found.get("commits") if isinstance(found, dict) else None
        files = found.get("files") if isinstance(found, dict) else None
        if not isinstance(commits, list) or not isinstance(files, list):
            raise NotKnown("the answer is no comparison of commits")
        now = _text(commits[-1], "sha") if commits else place.commit
        names = [one.get(name) for one in files if isinstance(one, dict) for name in ("filename", "previous_filename")]
        moved = place.path in names if place.path is not None else bool(commits)
        if not moved and len(files) >= MOST_FILES:
            raise NotKnown(f"more than {MOST_FILES} files changed since, and not all of them are listed")
        return Standing(place, "moved" if moved else "fresh", now)

    def _answer(self, address: str) -> Any:
        if address not in self._answers:
            try:
                self._answers[address] = self._ask(address)
            except NotKnown as error:
                self._answers[address] = error
        found = self._answers[address]
        if isinstance(found, NotKnown):
            raise found
        return found


def _text(found: Any, name: str) -> str:
    value = found.get(name) if isinstance(found, dict) else None
    if not isinstance(value, str) or not _COMMIT.fullmatch(value):
        raise NotKnown("the answer names no commit")
    return value


def _ask(address: str) -> Any:
    """One bounded question, without any token of this machine's."""
    headers = {"Accept": "application/json"}
    try:
        answer = Exchange(address, None, None).ask(Question("GET", address, MAX_ANSWER_BYTES, headers))
        return strict_json.parse(answer.content, max_bytes=MAX_ANSWER_BYTES)
    except ErrorAnswer as error:
        told = {
            404: "there is no such repository or commit, or it is private",
            429: "it has no time for more questions",
        }
        told[403] = told[429]
        raise NotKnown(told.get(error.status, f"the answer is an error, {error.status}")) from error
    except Unanswered as error:
        raise NotKnown(f"no answer: {error.reason}") from error
    except Oversized as error:
        raise NotKnown("the answer is too large") from error
    except ValueError as error:
        raise NotKnown("the answer is no JSON") from error
