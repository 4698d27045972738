"""Traces that were recorded while generating, in this machine's home: one folder a setting, one file a run.

Every file is written whole or not at all, and named by its content, so that processes that never talk to each other lose nothing and a
killed one loses the run at hand. Disk is bounded: at most ``MOST_RUNS`` runs of a setting and ``MOST_BYTES`` in all; what goes first is
the oldest.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from easyteacache.errors import InvalidTrace
from easyteacache.files import atomic_write
from easyteacache.records.provenance import TraceReference
from easyteacache.records.trace_file import SUFFIX
from easyteacache.records.trace_set import Trace, TraceSet
from easyteacache.registry import registry

#: Runs of one setting that are kept; a record made here is of no more.
MOST_RUNS = 16
#: Bytes that all of them together may take.
MOST_BYTES = 256 * 1024 * 1024
STATE = "state.json"
#: Seconds after which a temporary file is what a killed process left behind.
ABANDONED = 3600.0


def traces_home() -> Path:
    """Where traces lie that nobody named a folder for: ``traces`` in this machine's home."""
    return registry.home() / "traces"


def folder_of(key: str, *, kind: str) -> Path:
    """The folder of one record's traces.

    Args:
        key: of the record.
        kind: ``while-working`` or ``calibrated``.
    """
    return traces_home() / kind / key.replace("/", "--")


@dataclass(frozen=True)
class State:
    """What is to be remembered of a setting between processes; losing it costs an audit that comes late.

    Attributes:
        runs: since the last one in full, 0 or more.
        needed: runs that it takes, where a solve has found that more are wanted than usual.
        refused: why the last solve gave nothing, a sentence.
    """

    runs: int = 0
    needed: int = 0
    refused: str | None = None


class TraceStore:
    """The recorded runs of one setting.

    Args:
        key: of the setting's record.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.folder = folder_of(key, kind="while-working")

    def count(self) -> int:
        """Runs there are."""
        return sum(1 for _ in self._files())

    def traces(self) -> TraceSet:
        """Those whose branches are the newest run's; a file that cannot be read is put out of the way."""
        found: list[tuple[Trace, TraceReference]] = []
        for path in sorted(self._files(), key=_age):
            try:
                one = TraceSet.load(path)
            except InvalidTrace:
                # Damaged by something else than a kill; it must not stop what the others can do.
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            found.append((one[0], one.files[0]))
        alike = [pair for pair in found if pair[0].header.branches == found[-1][0].header.branches]
        return TraceSet((trace for trace, _ in alike), files=(file for _, file in alike))

    def add(self, trace: Trace, *, keep: Iterable[str] = ()) -> Path:
        """Store a run; the oldest go where there are too many.

        Args:
            trace: the run.
            keep: names of files that a record needs.

        Raises:
            OSError: the disk cannot be written; nothing was stored.
        """
        path = self.folder / f"run-{trace.content_id[:24]}{SUFFIX}"
        TraceSet([trace]).save(path)
        self._bound(frozenset(keep) | {path.name})
        return path

    def _bound(self, keep: frozenset[str]) -> None:
        with contextlib.suppress(OSError):
            others = sorted((p for p in self._files() if p.name not in keep), key=_age)
            for path in others[: max(0, self.count() - MOST_RUNS)]:
                path.unlink(missing_ok=True)
            _sweep(self.folder)
            _bound_all(self.folder)

    def state(self) -> State:
        """What is remembered; nothing where the file is missing or damaged."""
        try:
            content = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            refused = content.get("refused")
            return State(int(content["runs"]), int(content["needed"]), None if refused is None else str(refused))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return State()

    def remember(self, state: State) -> None:
        """Keep ``state``; a disk that cannot be written is no reason to stop."""
        content = {"needed": state.needed, "refused": state.refused, "runs": state.runs}
        with contextlib.suppress(OSError):
            atomic_write.write_bytes(self.folder / STATE, json.dumps(content).encode(), durable=False)

    def _files(self) -> Iterator[Path]:
        try:
            yield from self.folder.glob(f"run-*{SUFFIX}")
        except OSError:
            return


def _age(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_mtime, path.name
    except OSError:
        return 0.0, path.name


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half-written."""
    for path in folder.glob(f"{atomic_write.TEMPORARY_PREFIX}*{atomic_write.TEMPORARY_SUFFIX}"):
        if time.time() - _age(path)[0] > ABANDONED:
            path.unlink(missing_ok=True)


def _bound_all(at_hand: Path) -> None:
    """Remove whole settings, the least recently recorded first, until all together fit."""
    sizes, newest = {}, {}
    for folder in at_hand.parent.iterdir():
        files = list(folder.glob(f"run-*{SUFFIX}"))
        sizes[folder] = sum(os.path.getsize(path) for path in files)
        newest[folder] = max((_age(path)[0] for path in files), default=0.0)
    total = sum(sizes.values())
    for folder in sorted(sizes, key=lambda one: newest[one]):
        if total <= MOST_BYTES:
            return
        if folder != at_hand:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]
