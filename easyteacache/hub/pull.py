"""Copy records down from a hub: chosen by the index, pinned to one commit, checked before anybody can see them."""

from __future__ import annotations

import fnmatch
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from easyteacache.errors import AmbiguousModelKey, HubError, InvalidCalibration, UnknownModelKey
from easyteacache.files import strict_json
from easyteacache.hub.downloads import PUBLIC, Downloads
from easyteacache.hub.failures import MissingFile, TooLarge
from easyteacache.hub.newest import Newest
from easyteacache.hub.remote import Remote
from easyteacache.hub.review import check_record
from easyteacache.hub.review.check_record import Finding
from easyteacache.hub.store import Arrival, Snapshot, Store
from easyteacache.records import model_key, parsing
from easyteacache.records.calibration import Calibration
from easyteacache.registry import index
from easyteacache.registry.index import Index, IndexEntry
from easyteacache.registry.lock_file import LockedRecord, LockFile

CONNECTIONS = 8
# What one pull may bring: ten thousand records of a hundred kilobytes, with room.
MAX_PULL_BYTES = 1 << 30
State = Literal["new", "changed", "mended", "unchanged", "refused"]


@dataclass(frozen=True)
class Outcome:
    """What became of one record.

    Attributes:
        key: its model key.
        state: ``mended`` ones were damaged on this disk; ``refused`` ones were not installed.
        before, after: revision on this disk and at the hub, None where there is none.
        findings: why it was refused.
    """

    key: str
    state: State
    before: int | None
    after: int
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Pulled:
    """What a pull did, or with ``dry_run`` would do.

    Attributes:
        repository: where from.
        commit: the pinned commit; None when a lock named one for each record.
        outcomes: one per record, sorted by key.
    """

    repository: str
    commit: str | None
    outcomes: tuple[Outcome, ...] = field(default=())

    @property
    def refused(self) -> tuple[Outcome, ...]:
        """The records that did not land."""
        return tuple(outcome for outcome in self.outcomes if outcome.state == "refused")


@dataclass(frozen=True)
class _Wanted:
    """One record to fetch: its entry's hash and path, and the commit that has it."""

    key: str
    sha256: str
    revision: int
    commit: str


def read_index(remote: Remote, revision: str | None) -> tuple[str, Index]:
    """The commit of a revision and its index.

    Raises:
        HubError: the hub has none.
        InvalidCalibration: it breaks its format.
    """
    commit, data = remote.pin(index.FILE_NAME, revision, limit=index.MAX_INDEX_BYTES)
    return commit, index.from_json(data, where=f"{remote.repository}@{commit[:12]}/{index.FILE_NAME}")


def newest_index(
    remote: Remote,
    revision: str | None,
    *,
    home: Path | None = None,
    allow_rollback: bool = False,
    remember: bool = True,
) -> tuple[str, Index]:
    """``read_index`` of a state that follows the newest one seen of this hub.

    Args:
        remote: the repository.
        revision: branch, tag or commit; None: main.
        home: where what was seen is written down; None: ``registry.home()``.
        allow_rollback: take an older state, or a history written anew, too.
        remember: write down what was seen now.

    Raises:
        RolledBack: it does not follow.
        HubError, InvalidCalibration: as ``read_index``.
    """
    commit, found = read_index(remote, revision)
    newest = Newest(home)
    before = newest.known(remote, revision)
    if not allow_rollback:
        newest.check(remote, revision, commit)
    if remember:
        newest.remember(remote, revision, commit, instead_of=before)
    return commit, found


def choose(
    found: Index,
    keys: Iterable[str],
    *,
    place: str = "the hub's index",
    advice: str = "`easyteacache-hub pull --dry-run` shows what the hub has.",
) -> dict[str, IndexEntry]:
    """The entries that keys, exact aliases and globs mean; no keys: all.

    Args:
        found: where they are looked up.
        keys: what was asked for.
        place, advice: for the error.

    Raises:
        UnknownModelKey: nothing is called so, with the nearest names.
        AmbiguousModelKey: it is an alias of several records.
    """
    wanted = list(keys)
    if not wanted:
        return dict(found.records)
    aliases: dict[str, list[str]] = {}
    for key, entry in found.records.items():
        for value in {alias.value for alias in entry.aliases}:
            aliases.setdefault(value, []).append(key)
    chosen: dict[str, IndexEntry] = {}
    for name in wanted:
        matching = [name] if name in found.records else aliases.get(name, [])
        if len(matching) > 1:
            raise AmbiguousModelKey(name, candidates=matching)
        if not matching and any(character in name for character in "*?["):
            matching = [key for key in found.records if fnmatch.fnmatchcase(key, name)]
        if not matching:
            near = model_key.nearest(name, [*found.records, *aliases])
            raise UnknownModelKey(name, suggestions=near, layers=[place], advice=advice)
        chosen |= {key: found.records[key] for key in matching}
    return chosen


def pull(
    remote: Remote,
    keys: Iterable[str] = (),
    *,
    revision: str | None = None,
    store: Store | None = None,
    dry_run: bool = False,
    allow_rollback: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Pulled:
    """Bring records to this disk.

    Args:
        remote: where from.
        keys: model keys, exact aliases or globs; none means every record.
        revision: branch, tag or commit; None: main.
        store: the pulled layer; None: this machine's.
        dry_run: say what would happen, fetch and write nothing but the index.
        allow_rollback: take a state that does not follow the newest one seen of this hub, too.
        progress: told (done, total) records.

    Raises:
        RolledBack: the hub shows an older state than it did before.
        HubError: the hub cannot be used.
        InvalidCalibration: its index breaks the format.
        UnknownModelKey: a key is not there.
    """
    store = store or Store()
    commit, found = newest_index(remote, revision, home=store.home, allow_rollback=allow_rollback, remember=not dry_run)
    entries = choose(found, keys)
    wanted = [_Wanted(key, entry.sha256, entry.revision, commit) for key, entry in sorted(entries.items())]
    return Pulled(remote.repository, commit, _bring(remote, wanted, store, dry_run, progress))


def pull_locked(
    remote_of: Callable[[LockedRecord], Remote],
    lock: LockFile,
    *,
    store: Store | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> list[Pulled]:
    """Bring exactly the content that a lock names, repository by repository; entries without one are left out.

    Args:
        remote_of: the hub of a locked record.
        lock: what is wanted.
        store, dry_run, progress: as for ``pull``.
    """
    store = store or Store()
    places: dict[tuple[str | None, str], list[_Wanted]] = {}
    for key, one in sorted(lock.records.items()):
        if one.repository and one.commit:
            wanted = _Wanted(key, one.sha256, one.revision, one.commit)
            places.setdefault((one.endpoint, one.repository), []).append(wanted)
    done = []
    for group in places.values():
        remote = remote_of(lock.records[group[0].key])
        done.append(Pulled(remote.repository, None, _bring(remote, group, store, dry_run, progress)))
    return done


def _bring(
    remote: Remote, wanted: list[_Wanted], store: Store, dry_run: bool, progress: Callable[[int, int], object]
) -> tuple[Outcome, ...]:
    before = store.current(rebuild=True)
    missing = [one for one in wanted if not _has(before, one)]
    outcomes = {one.key: _outcome(one, before, "unchanged") for one in wanted}
    outcomes |= {one.key: _outcome(one, before, _state(before, one)) for one in missing}
    if not dry_run and missing:
        arrivals: dict[str, Arrival] = {}
        for one, arrival, findings in _fetch_all(remote, missing, store, progress):
            if arrival is None:
                outcomes[one.key] = _outcome(one, before, "refused", findings)
            else:
                arrivals[one.key] = arrival
        store.install(arrivals)
    return tuple(outcomes[key] for key in sorted(outcomes))


def _has(before: Snapshot, one: _Wanted) -> bool:
    """Whether the record is here and whole, its origin too: a pull mends what was damaged on this disk."""
    entry = before.index.records.get(one.key)
    if entry is None or before.folder is None or entry.sha256 != one.sha256 or one.key not in before.origins.records:
        return False
    try:
        data = parsing.read_file(before.folder / entry.path, rules="record", max_bytes=strict_json.MAX_BYTES)
    except InvalidCalibration:
        return False
    return hashlib.sha256(data).hexdigest() == one.sha256


def _state(before: Snapshot, one: _Wanted) -> State:
    entry = before.index.records.get(one.key)
    if entry is None:
        return "new"
    return "mended" if entry.sha256 == one.sha256 else "changed"


def _outcome(one: _Wanted, before: Snapshot, state: State, findings: tuple[Finding, ...] = ()) -> Outcome:
    known = before.index.records.get(one.key)
    return Outcome(one.key, state, known.revision if known else None, one.revision, findings)


def _fetch_all(
    remote: Remote, wanted: list[_Wanted], store: Store, progress: Callable[[int, int], object]
) -> Iterator[tuple[_Wanted, Arrival | None, tuple[Finding, ...]]]:
    downloads, allowance = Downloads(), _Allowance(remote)
    pool = ThreadPoolExecutor(max_workers=min(CONNECTIONS, len(wanted)))
    try:
        results = pool.map(lambda one: _fetch(remote, one, store, downloads, allowance), wanted)
        for number, (one, (arrival, findings)) in enumerate(zip(wanted, results, strict=True), start=1):
            progress(number, len(wanted))
            yield one, arrival, findings
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Allowance:
    """What all records of one pull may have together: an index may name as many of the largest as it likes."""

    def __init__(self, remote: Remote) -> None:
        self._remote, self._left, self._lock = remote, MAX_PULL_BYTES, threading.Lock()

    def take(self, size: int) -> None:
        """``size`` more bytes arrived.

        Raises:
            HubError: that is too much.
        """
        with self._lock:
            self._left -= size
            if self._left < 0:
                reason = (
                    f"the records that were asked for have more than {MAX_PULL_BYTES >> 20} MiB: name fewer at a time"
                )
                raise HubError(self._remote.repository, reason)


def _fetch(
    remote: Remote, one: _Wanted, store: Store, downloads: Downloads, allowance: _Allowance
) -> tuple[Arrival | None, tuple[Finding, ...]]:
    """One record, checked: what the index promised, well-formed, consistent, filed under its own key."""
    where = model_key.path_of(one.key).as_posix()
    data = downloads.get(one.sha256)
    if data is None:
        try:
            data = remote.read(where, one.commit, limit=strict_json.MAX_BYTES)
        except MissingFile as error:
            return None, (Finding("index.gone", where, "", error.reason),)
        except TooLarge as error:
            return None, (Finding("record.size", where, "", error.reason),)
        allowance.take(len(data))
        if hashlib.sha256(data).hexdigest() == one.sha256:
            downloads.keep(data)
    findings = list(_judged(data, where, one))
    if findings:
        store.set_aside(one.key, data, "\n".join(map(str, findings)))
        return None, tuple(findings)
    endpoint = None if remote.endpoint == PUBLIC else remote.endpoint
    record = Calibration.from_json(data, where=where)
    origin = LockedRecord(
        sha256=one.sha256, revision=record.revision, repository=remote.repository, commit=one.commit, endpoint=endpoint
    )
    return Arrival(record, data, origin), ()


def _judged(data: bytes, where: str, one: _Wanted) -> Iterator[Finding]:
    found = hashlib.sha256(data).hexdigest()
    if found != one.sha256:
        message = f"its sha256 is {found[:12]}…, the index promises {one.sha256[:12]}…"
        yield Finding("index.sha256", where, "", message)
        return
    errors = [finding for finding in check_record.check_record(data, where) if finding.severity == "error"]
    yield from errors
    if errors:
        return
    key = Calibration.from_json(data, where=where).model_key
    if key != one.key:
        yield Finding("record.path", where, "/model_key", f"model_key is {key!r}, its path says {one.key!r}")
