"""Everything that is wrong with a registry folder: each record, the index, and what concerns several records."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from easyteacache.errors import InvalidCalibration
from easyteacache.files import strict_json
from easyteacache.hub import claims
from easyteacache.hub.claims import Verifiers
from easyteacache.hub.review import check_evidence, check_record
from easyteacache.hub.review.check_record import Finding
from easyteacache.records import model_key, parsing
from easyteacache.records.calibration import Calibration
from easyteacache.registry import index, wanted
from easyteacache.registry.index import Index, IndexEntry


@dataclass(frozen=True)
class Checked:
    """What a check of a registry folder saw.

    Attributes:
        records: how many files were judged.
        findings: what is wrong, the records' before the index's.
    """

    records: int
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make a file unusable."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def check(path: str | os.PathLike[str], progress: Callable[[str], object] = lambda _: None) -> Checked:
    """Check a registry folder, or one record file by itself. Raises nothing.

    Args:
        path: the folder or file.
        progress: told the name of every file.
    """
    root = Path(path)
    if root.is_dir():
        return _check_folder(root, progress)
    where = os.fspath(root)
    try:
        data = parsing.read_file(root, rules="record", max_bytes=strict_json.MAX_BYTES)
    except InvalidCalibration as error:
        return Checked(1, (Finding(error.rule, where, "", error.reason),))
    return Checked(1, tuple(check_record.check_record(data, where)))


def _check_folder(root: Path, progress: Callable[[str], object]) -> Checked:
    findings: list[Finding] = []
    entries: dict[str, IndexEntry] = {}
    files = list(_json_files(root))
    for path in files:
        progress(os.fspath(path))
        if path.is_symlink() or not model_key.is_valid(_key(root, path)):
            message = "a symbolic link, which is never followed" if path.is_symlink() else "its path is no model key"
            findings.append(Finding("registry.name", os.fspath(path), "", message))
            continue
        findings += check_record.check_file(path, root)
        entry = _entry(path)
        if entry is not None:
            entries[_key(root, path)] = entry
    findings += [*_shared_aliases(root, entries), *_check_index(root, entries, {_key(root, path) for path in files})]
    findings += _check_wanted(root)
    findings += _check_evidence(root, entries)
    return Checked(len(files), tuple(findings))


def _key(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix().removesuffix(".json")


def _json_files(root: Path) -> Iterator[Path]:
    """Every ``.json`` file but the index and the list of wanted models, whatever its name, hidden ones and folders left out."""
    own = {root / index.FILE_NAME, root / wanted.FILE_NAME}
    for parent, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.endswith(".json") and not name.startswith(".") and path not in own:
                yield path


def record_files(root: Path) -> Iterator[tuple[str, Path]]:
    """``(key, file)`` of every file of a registry folder whose path is a model key, symbolic links included."""
    for path in _json_files(root):
        key = _key(root, path)
        if model_key.is_valid(key):
            yield key, path


def _entry(path: Path) -> IndexEntry | None:
    """What the index should say; None for a file that is no record, which has findings of its own."""
    try:
        data = parsing.read_file(path, rules="record", max_bytes=strict_json.MAX_BYTES)
        return index.entry_of(Calibration.from_json(data, where=os.fspath(path)), data)
    except InvalidCalibration:
        return None


def shared_aliases(entries: Mapping[str, IndexEntry]) -> Iterator[tuple[str, str]]:
    """``(key, message)`` for every alias that does not lead to one record alone."""
    owners: dict[str, str] = {}
    for key, entry in sorted(entries.items()):
        for value in dict.fromkeys(alias.value for alias in entry.aliases):
            if value in entries:
                yield key, f"the alias {value!r} is the key of another record"
            elif value in owners:
                yield key, f"the alias {value!r} is also one of {owners[value]!r}"
            owners.setdefault(value, key)


def _shared_aliases(root: Path, entries: Mapping[str, IndexEntry]) -> Iterator[Finding]:
    for key, message in shared_aliases(entries):
        yield Finding("registry.alias", os.fspath(root / entries[key].path), "/aliases", message)


def _check_index(root: Path, entries: Mapping[str, IndexEntry], files: set[str]) -> Iterator[Finding]:
    where = os.fspath(root / index.FILE_NAME)
    try:
        listed = index.read(root)
    except InvalidCalibration as error:
        yield Finding(error.rule, where, "", error.reason)
        return
    if listed is None:
        yield Finding("index.missing", where, "", "there is none; every lookup then reads every file", "warning")
        return
    for key in sorted(listed.records.keys() - files):
        yield Finding("index.gone", where, parsing.pointer(["records", key]), "listed, but its file is gone")
    for key in sorted(entries):
        yield from _compare(root, key, entries[key], listed)


def _check_wanted(root: Path) -> Iterator[Finding]:
    try:
        wanted.read(root)
    except InvalidCalibration as error:
        yield Finding(error.rule, os.fspath(root / wanted.FILE_NAME), "", error.reason)


def _check_evidence(root: Path, entries: Mapping[str, IndexEntry]) -> Iterator[Finding]:
    """Verified evidence alone can be judged from a folder: traces lie elsewhere."""
    try:
        verifiers = Verifiers.read(root)
    except InvalidCalibration as error:
        yield Finding("verifiers.form", os.fspath(root / claims.FILE_NAME), "", error.reason)
        return
    for entry in entries.values():
        if entry.evidence == "verified":
            where = os.fspath(root / entry.path)
            record = Calibration.from_json(parsing.read_file(where, rules="record", max_bytes=strict_json.MAX_BYTES))
            yield from check_evidence.check(record, where, verifiers=verifiers)


def _compare(root: Path, key: str, entry: IndexEntry, listed: Index) -> Iterator[Finding]:
    where, pointer = os.fspath(root / index.FILE_NAME), parsing.pointer(["records", key])
    known = listed.records.get(key)
    if known is None:
        yield Finding("index.unlisted", where, "", f"{entry.path} is not listed: no lookup can find it")
    elif known.sha256 != entry.sha256:
        message = f"{entry.path} has sha256 {entry.sha256[:12]}…, listed is {known.sha256[:12]}…"
        yield Finding("index.sha256", where, f"{pointer}/sha256", message)
    elif known != entry:
        names = [name for name in IndexEntry.model_fields if getattr(known, name) != getattr(entry, name)]
        yield Finding("index.stale", where, pointer, f"differs from the record in {', '.join(names)}")
