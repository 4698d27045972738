"""The history of one record at a hub: the commits in which its file changed."""

from __future__ import annotations

from dataclasses import dataclass

from easyteacache.errors import InvalidCalibration, UnknownModelKey
from easyteacache.hub.push import published_record
from easyteacache.hub.remote import Remote
from easyteacache.records import model_key


@dataclass(frozen=True)
class Entry:
    """One commit that changed the record; revision and status are None where it removed or damaged it."""

    commit: str
    date: str
    title: str
    authors: tuple[str, ...]
    revision: int | None
    status: str | None


def history(remote: Remote, key: str, *, revision: str | None = None, limit: int = 200) -> list[Entry]:
    """Commits in which ``key`` changed, newest first.

    Args:
        remote: the repository.
        key: the record.
        revision: where to begin; None: main.
        limit: how many commits to look through.

    Raises:
        UnknownModelKey: none of them has the record.
        HubError: the hub cannot be asked.
    """
    path = model_key.path_of(key).as_posix()
    commits = list(remote.log(revision, count=limit))
    contents = [remote.stored([path], one.id).get(path) for one in commits]
    found = []
    for position, (one, here) in enumerate(zip(commits, contents, strict=True)):
        older = contents[position + 1] if position + 1 < len(contents) else None
        if here != older:
            state = _state(remote, one.id, key) if here else (None, None)
            authors = tuple(remote.secret.struck(author.user) for author in one.authors)
            found.append(Entry(one.id, one.date, remote.secret.struck(one.title), authors, *state))
    if not found:
        raise UnknownModelKey(
            key,
            layers=[f"the last {len(commits)} commits of {remote.repository}"],
            advice="`easyteacache-hub pull --dry-run` shows what the hub has; --limit looks further back.",
        )
    return found


def _state(remote: Remote, commit: str, key: str) -> tuple[int | None, str | None]:
    try:
        record, _ = published_record(remote, commit, key)
    except InvalidCalibration:
        return None, None
    return record.revision, record.status
