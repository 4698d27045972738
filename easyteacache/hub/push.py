"""Propose records to a hub: judged first, then sent as one commit of one pull request, or not at all."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from easyteacache.errors import HubError, PushRefused
from easyteacache.files import strict_json
from easyteacache.hub.failures import MissingFile, StaleParent
from easyteacache.hub.pull import read_index
from easyteacache.hub.remote import OpenRequest, Remote
from easyteacache.hub.review import card, check_submission
from easyteacache.hub.review.check_submission import Judge, Submission, TraceFiles
from easyteacache.records import model_key
from easyteacache.records.calibration import Calibration
from easyteacache.registry import index
from easyteacache.registry.index import Index

ATTEMPTS = 4
MAX_TITLE = 150
# What one request may carry; larger sets of traces belong into several records.
MAX_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class Proposal:
    """What a push would send.

    Attributes:
        base: the commit it was judged against.
        submissions: every record, with its verdict; those that are published already are left out.
        files: path → content, the index left out: it depends on the branch it goes to.
        title: of the request; the same records always give the same one.
        description: of the request.
        published: keys whose content is at the hub already.
    """

    base: str
    submissions: tuple[Submission, ...]
    files: Mapping[str, bytes]
    title: str
    description: str
    published: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sent:
    """Where a proposal is now.

    Attributes:
        state: ``opened`` a request, ``updated`` one that was open, or ``unchanged``: it holds this content already.
        url: of the request.
    """

    state: Literal["opened", "updated", "unchanged"]
    url: str


def published_at(remote: Remote, commit: str) -> Index:
    """The index of a commit; a repository without one is an empty registry."""
    try:
        return read_index(remote, commit)[1]
    except MissingFile:
        return Index(index_version=2, records={})


def published_record(remote: Remote, commit: str, key: str) -> tuple[Calibration, bytes]:
    """A record as it is published.

    Raises:
        HubError: there is none.
        InvalidCalibration: it is damaged.
    """
    path = model_key.path_of(key).as_posix()
    data = remote.read(path, commit, limit=strict_json.MAX_BYTES)
    return Calibration.from_json(data, where=f"{remote.repository}/{path}"), data


def prepare(
    remote: Remote,
    records: Mapping[str, bytes],
    traces: Iterable[Path] = (),
    *,
    judge: Judge | None,
    force_reason: str | None = None,
) -> Proposal:
    """Judge records against what is published and gather what a request would carry.

    Args:
        remote: where they would go.
        records: file name → content.
        traces: trace files, or folders of them.
        judge: the solver's validator.
        force_reason: see ``check_submission.check``.

    Raises:
        PushRefused: a record breaks a rule; ``report`` holds the submissions with their findings.
        HubError: the hub cannot be asked.
    """
    base = remote.commit_of("main")
    published = published_at(remote, base)
    files = TraceFiles(traces)
    judged, known = [], []
    for where, data in records.items():
        key = _key_of(data)
        entry = published.records.get(key or "")
        if key is not None and entry is not None and entry.sha256 == hashlib.sha256(data).hexdigest():
            known.append(key)
            continue
        incumbent = published_record(remote, base, key)[0] if key is not None and entry is not None else None
        options = {"published": published, "incumbent": incumbent, "traces": files}
        judged.append(
            check_submission.check(data, where, judge=judge, force_reason=force_reason, elsewhere=True, **options)  # type: ignore[arg-type]
        )
    _require_good(remote, judged)
    return _proposal(remote, base, judged, known, force_reason)


def _key_of(data: bytes) -> str | None:
    try:
        return Calibration.from_json(data).model_key
    except ValueError:
        return None


def _require_good(remote: Remote, judged: list[Submission]) -> None:
    errors = [finding for one in judged for finding in one.errors]
    if errors:
        more = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise PushRefused(remote.repository, f"not sent: {errors[0]}{more}", report=tuple(judged))
    keys = [one.record.model_key for one in judged if one.record]
    if len(set(keys)) < len(keys):
        raise PushRefused(remote.repository, "not sent: two files hold the same model key", report=tuple(judged))


def _proposal(
    remote: Remote, base: str, judged: list[Submission], known: list[str], force_reason: str | None
) -> Proposal:
    files: dict[str, bytes] = {}
    pages = []
    for one in judged:
        assert one.record is not None
        key = one.record.model_key
        files[model_key.path_of(key).as_posix()] = one.data
        for reference, path in zip(one.record.provenance.traces, one.traces, strict=False):
            files[f"traces/{key}/{reference.file}"] = path.read_bytes()
        points = one.report.points if one.report else ()
        name = f"{key.rsplit('/', 1)[-1]}.svg" if points else None
        if name:
            files[f"cards/{key}.svg"] = card.plot(points).encode()
        page = card.card(one, plot=name, force_reason=force_reason)
        files[f"cards/{key}.md"] = page.encode()
        pages.append(page)
    size = sum(map(len, files.values()))
    if size > MAX_BYTES:
        raise PushRefused(remote.repository, f"not sent: {size} bytes, at most {MAX_BYTES} go into one request")
    keys = sorted(one.record.model_key for one in judged if one.record)
    return Proposal(base, tuple(judged), files, _title(keys), "\n\n".join(pages)[:60_000], tuple(known))


def _title(keys: list[str]) -> str:
    title = f"Calibration: {', '.join(keys)}"
    if len(title) <= MAX_TITLE:
        return title
    digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:8]
    return f"Calibration: {keys[0]} and {len(keys) - 1} more ({digest})"


def send(remote: Remote, proposal: Proposal, *, wait: Callable[[float], object] = time.sleep) -> Sent:
    """Open a request, or bring the one that is open up to date; the same content twice sends nothing.

    A lost connection is repeated only after looking whether the commit arrived, so that no request is opened twice.

    Raises:
        HubError: it could not be sent; nothing is published then, at most an open request holds the whole commit.
    """
    author = remote.whoami()
    for attempt in range(ATTEMPTS):
        existing = next((one for one in remote.open_requests(author) if one.title == proposal.title), None)
        try:
            if existing is not None and not remote.conflicts(existing):
                return _update(remote, proposal, existing)
            sent = Sent("opened", _commit(remote, proposal, proposal.base, None))
        except StaleParent:
            if attempt == ATTEMPTS - 1:
                raise
        except HubError as error:
            pause = remote.pause_after(error, attempt)
            if pause is None or attempt == ATTEMPTS - 1:
                raise
            wait(pause)
        else:
            if existing is not None:
                remote.close(existing, f"Superseded by {sent.url}: main has changed the same lines.")
            return sent
    raise AssertionError("unreachable")


def _update(remote: Remote, proposal: Proposal, existing: OpenRequest) -> Sent:
    head = remote.commit_of(existing.branch)
    stored = remote.stored(list(proposal.files), head)
    same = all(path in stored and _is(stored[path].content_id, data) for path, data in proposal.files.items())
    if same:
        return Sent("unchanged", existing.url)
    _commit(remote, proposal, head, existing.branch)
    return Sent("updated", existing.url)


def _is(oid: str, data: bytes) -> bool:
    """Whether a stored file, named by its git object id or its LFS hash, has this content."""
    return oid in (
        hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest(),
        hashlib.sha256(data).hexdigest(),
    )


def _commit(remote: Remote, proposal: Proposal, parent: str, branch: str | None) -> str:
    entries = dict(published_at(remote, parent).records)
    for one in proposal.submissions:
        assert one.record is not None
        entries[one.record.model_key] = index.entry_of(one.record, one.data)
    listed = Index(index_version=2, records=entries).to_json().encode()
    return remote.commit(
        {**proposal.files, index.FILE_NAME: listed},
        title=proposal.title,
        description=proposal.description,
        parent=parent,
        branch=branch,
    )
