"""The pulled layer on this disk: complete snapshots beside each other, and a link that is switched from one to the next.

A reader sees the old snapshot or the new one. A process killed anywhere leaves at most a snapshot that nothing points to.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from easyteacache.errors import HubError, InvalidCalibration
from easyteacache.files import atomic_write, strict_json
from easyteacache.hub.alone import alone
from easyteacache.records import parsing
from easyteacache.records.calibration import Calibration
from easyteacache.registry import index, lock_file, registry
from easyteacache.registry.index import Index
from easyteacache.registry.lock_file import LockedRecord, LockFile

# A process that opened an older snapshot may go on reading it for this long.
KEPT_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Arrival:
    """A record that passed every check and is about to become visible."""

    record: Calibration
    data: bytes
    origin: LockedRecord


@dataclass(frozen=True)
class Snapshot:
    """What the pulled layer holds.

    Attributes:
        folder: where it lies, None when nothing was ever pulled.
        index: its records.
        origins: where each record came from.
    """

    folder: Path | None
    index: Index
    origins: LockFile


class Store:
    """The pulled layer below ``home`` (default ``registry.home()``)."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = home or registry.home()
        self.link = self.home / "pulled"
        self.snapshots = self.home / ".pulled"
        self.quarantine = self.home / "quarantine"

    def current(self, *, rebuild: bool = False) -> Snapshot:
        """What is visible now.

        Args:
            rebuild: where index or origins are damaged, make them again from the records that can be read.

        Raises:
            InvalidCalibration: index or origins are damaged.
        """
        if not self.link.is_dir():
            return Snapshot(None, Index(index_version=2, records={}), lock_file.empty())
        folder = self.link.resolve()
        origins = folder / lock_file.FILE_NAME
        try:
            found = index.read(folder) or index.build(folder)
            return Snapshot(folder, found, lock_file.read(origins) if origins.exists() else lock_file.empty())
        except InvalidCalibration as error:
            if rebuild:
                return Snapshot(folder, _readable(folder), lock_file.empty())
            advice = "`easyteacache-hub pull` makes it again"
            raise InvalidCalibration(error.where, f"{error.reason}; {advice}", rule=error.rule) from error

    def install(self, arrivals: Mapping[str, Arrival]) -> None:
        """Make records visible, all at once, beside those that are there already.

        Raises:
            HubError: the folder was made by something else, or another process holds it for minutes.
            OSError: the disk cannot be written; everything is then as it was.
        """
        if not arrivals:
            return
        with alone(self.link, lock=self.home / ".pulled.lock"):
            before = self.current(rebuild=True)
            target = self.snapshots / f"{time.time_ns():020d}-{secrets.token_hex(4)}"
            try:
                self._fill(target, before, arrivals)
                self._switch(target)
            except BaseException:
                if not (self.link.is_symlink() and self.link.resolve() == target.resolve()):
                    shutil.rmtree(target, ignore_errors=True)
                raise
            self._prune()

    def set_aside(self, key: str, data: bytes, reason: str) -> Path:
        """Keep a refused file, with the reason beside it, where no lookup searches; returns its path."""
        name = key.replace("/", "--")
        path = self.quarantine / f"{name}.json"
        atomic_write.write_bytes(path, data)
        atomic_write.write_text(path.with_suffix(".txt"), reason + "\n")
        return path

    def _fill(self, target: Path, before: Snapshot, arrivals: Mapping[str, Arrival]) -> None:
        entries = dict(before.index.records)
        target.mkdir(parents=True)
        for key, entry in entries.items():
            if key not in arrivals and before.folder is not None:
                _share(before.folder / entry.path, target / entry.path)
        files: dict[str, bytes] = {}
        for key, arrival in arrivals.items():
            entries[key] = index.entry_of(arrival.record, arrival.data)
            files[entries[key].path] = arrival.data
        origins = before.origins.records | {key: arrival.origin for key, arrival in arrivals.items()}
        files[lock_file.FILE_NAME] = LockFile(lock_version=1, records=origins).to_json().encode()
        files[index.FILE_NAME] = Index(index_version=2, records=dict(sorted(entries.items()))).to_json().encode()
        atomic_write.fill_folder(target, files)

    def _switch(self, target: Path) -> None:
        if os.path.lexists(self.link) and not self.link.is_symlink():
            raise HubError("pulled", f"{self.link} is a folder that pull did not make: move it away and pull again")
        fresh = self.home / f"{atomic_write.TEMPORARY_PREFIX}{secrets.token_hex(8)}{atomic_write.TEMPORARY_SUFFIX}"
        try:
            os.symlink(os.path.relpath(target, self.home), fresh, target_is_directory=True)
        except (OSError, NotImplementedError) as error:
            raise HubError(
                "pulled", f"{self.home} cannot hold symbolic links ({error}); choose EASYTEACACHE_HOME elsewhere"
            ) from error
        os.replace(fresh, self.link)

    def _prune(self) -> None:
        """Remove snapshots that nobody can be reading any more."""
        current = self.link.resolve()
        for folder in self.snapshots.iterdir():
            with contextlib.suppress(OSError):
                if folder.resolve() != current and time.time() - folder.stat().st_mtime > KEPT_SECONDS:
                    shutil.rmtree(folder)


def _share(source: Path, target: Path) -> None:
    """The same content under a second name: snapshots are never changed, so that a hard link will do."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        try:
            shutil.copyfile(source, target)
        except OSError:
            raise InvalidCalibration(
                os.fspath(source),
                f"listed in the index but cannot be read: {error.strerror}; `easyteacache-hub pull` without keys mends it",
                rule="record.unreadable",
            ) from error


def _readable(folder: Path) -> Index:
    """The records of a folder that can be read, whatever its index says."""
    entries = {}
    for key, path in index.record_paths(folder):
        with contextlib.suppress(InvalidCalibration):
            data = parsing.read_file(path, rules="record", max_bytes=strict_json.MAX_BYTES)
            record = Calibration.from_json(data, where=os.fspath(path))
            if record.model_key == key:
                entries[key] = index.entry_of(record, data)
    return Index(index_version=2, records=entries)
