"""``index.json``: what a registry folder holds, so that one key never costs a scan of every file.

The index is generated (`easyteacache-hub index`, pull, solve) and checked; the records stay the truth.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from easyteacache.errors import InvalidCalibration, InvalidModelKey
from easyteacache.files import atomic_write, strict_json
from easyteacache.records import model_key, parsing
from easyteacache.records.calibration import Calibration, Method, Signal
from easyteacache.records.evidence import EvidenceKind, strongest
from easyteacache.records.fields import ClassName, Count, ModelKey, Positive, Record, Sha256, ShortText, Status
from easyteacache.records.provenance import Alias
from easyteacache.registry import wanted

FILE_NAME = "index.json"
# 10,000 records at about 1 KB each, with room.
MAX_INDEX_BYTES = 64 * 1024 * 1024
MAX_INDEX_ITEMS = 1_000_000
# First part of every rule identifier about this kind of file.
RULES = "index"
INDEX_VERSION: Final = 2
SUPPORTED_VERSIONS = (1, 2)
# What an entry of version 2 has and one of version 1 has not.
_NEW_IN_2 = ("class_name", "speedup", "evidence")


class IndexEntry(Record):
    """One record of a registry folder."""

    path: ShortText = Field(description="File of the record, relative to the index, with forward slashes.")
    sha256: Sha256 = Field(description="SHA-256 of the file, lower-case hexadecimal.")
    revision: Count = Field(description="The record's revision, from 1.")
    status: Status = Field(description="The record's status.")
    title: ShortText = Field(description="The model's name as people write it.")
    method: Method = Field(description="The record's caching method.")
    signal: Signal = Field(description="The record's signal.")
    num_steps: tuple[Count, ...] = Field(
        default=(), description="Step counts it has buckets for, each at least 1, ascending."
    )
    sequence_lengths: tuple[Count, ...] = Field(
        default=(), description="Sequence lengths it has buckets for, tokens, each at least 1, ascending."
    )
    aliases: tuple[Alias, ...] = Field(default=(), description="The record's other exact names.")
    class_name: ClassName | None = Field(
        default=None, description="Class of the transformer that the numbers were made with."
    )
    speedup: Positive | None = Field(
        default=None, description="Largest speed-up of its operating points, a factor above 0; null where none is stated."
    )
    evidence: EvidenceKind | None = Field(
        default=None, description="Strongest evidence of its operating points; null where there is none."
    )


class Index(Record):
    """The table of contents of one registry folder."""

    index_version: Literal[2] = Field(description="Version of this format.")
    records: dict[ModelKey, IndexEntry] = Field(description="Model key → entry, sorted by key.")

    @model_validator(mode="after")
    def _keys_name_their_files(self) -> Index:
        for key, entry in self.records.items():
            try:
                expected = model_key.path_of(key).as_posix()
            except InvalidModelKey as error:
                raise ValueError(str(error)) from error
            if entry.path != expected:
                raise ValueError(f"the record {key!r} is listed under {entry.path!r}; expected {expected!r}")
        return self

    def to_json(self) -> str:
        """The canonical spelling, records sorted by key."""
        content = self.model_dump(mode="json")
        content["records"] = dict(sorted(content["records"].items()))
        return strict_json.spell(content)


def entry_of(record: Calibration, data: bytes) -> IndexEntry:
    """The index entry of ``record`` whose file content is ``data``."""
    points = [point for bucket in record.buckets for point in bucket.operating_points]
    return IndexEntry(
        path=model_key.path_of(record.model_key).as_posix(),
        sha256=hashlib.sha256(data).hexdigest(),
        revision=record.revision,
        status=record.status,
        title=record.title,
        method=record.method,
        signal=record.signal,
        num_steps=tuple(sorted({b.num_steps for b in record.buckets if b.num_steps})),
        sequence_lengths=tuple(sorted({b.sequence_length for b in record.buckets if b.sequence_length})),
        aliases=record.aliases,
        class_name=None if record.model is None else record.model.class_name,
        speedup=max((point.speedup for point in points if point.speedup is not None), default=None),
        evidence=strongest([one for point in points for one in point.evidence]),
    )


def record_paths(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every ``(key, file)`` of a registry folder, sorted by key, following no symbolic link.

    Raises:
        InvalidModelKey: a ``.json`` file whose path is no model key.
    """
    for name, path in _json_files(folder):
        yield model_key.key_of(name), path


def _json_files(folder: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    own = {folder / FILE_NAME, folder / wanted.FILE_NAME}
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if not name.endswith(".json") or name.startswith(".") or path in own or path.is_symlink():
                continue
            yield PurePosixPath(path.relative_to(folder).as_posix()), path


def build(folder: Path) -> Index:
    """Read every record below ``folder`` and make its index.

    Raises:
        InvalidCalibration: a record is invalid, or is not filed under its own key.
    """
    entries = {key: _entry_in(path, key) for key, path in record_paths(folder)}
    return Index(index_version=INDEX_VERSION, records=entries)


def build_around(folder: Path) -> tuple[Index, dict[str, InvalidCalibration | InvalidModelKey]]:
    """The index of the records below ``folder`` that are valid, and what is wrong with each other one.

    Returns:
        The index, and errors by the key that the file's path gives; by the path where it gives none.
    """
    entries, damaged = {}, {}
    for name, path in _json_files(folder):
        key = name.as_posix()
        try:
            key = model_key.key_of(name)
            entries[key] = _entry_in(path, key)
        except (InvalidCalibration, InvalidModelKey) as error:
            damaged[key] = error
    return Index(index_version=INDEX_VERSION, records=entries), damaged


def _entry_in(path: Path, key: str) -> IndexEntry:
    data = parsing.read_file(path, rules="record", max_bytes=strict_json.MAX_BYTES)
    record = Calibration.from_json(data, where=os.fspath(path))
    if record.model_key != key:
        raise InvalidCalibration(
            os.fspath(path), f"model_key is {record.model_key!r}, its path says {key!r}", rule="record.path"
        )
    return entry_of(record, data)


def read(folder: Path) -> Index | None:
    """The index of ``folder``, or None when it has none.

    Raises:
        InvalidCalibration: the index is unreadable or breaks its format.
    """
    path = folder / FILE_NAME
    if not os.path.lexists(path):
        return None
    data = parsing.read_file(path, rules=RULES, max_bytes=MAX_INDEX_BYTES)
    return from_json(data, where=os.fspath(path))


def from_json(data: bytes | str, *, where: str = FILE_NAME) -> Index:
    """Read an index from JSON text; raises as ``read`` does."""
    content = parsing.read_object(data, where=where, rules=RULES, max_bytes=MAX_INDEX_BYTES, max_items=MAX_INDEX_ITEMS)
    parsing.require_version(content, "index_version", supported=SUPPORTED_VERSIONS, where=where, rules=RULES)
    if content["index_version"] == 1:
        content = _from_1(content, where)
    return parsing.validate(Index, content, where=where, rules=RULES)


def _from_1(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Version 2 adds what is known of an entry's evidence and class, and changes nothing else."""
    records = content.get("records")
    for key, entry in records.items() if isinstance(records, dict) else ():
        found = [name for name in _NEW_IN_2 if isinstance(entry, dict) and name in entry]
        if found:
            reason = f"records.{strict_json.shown(key)}.{found[0]}: not a field of version 1 of this format"
            raise InvalidCalibration(where, reason, rule=f"{RULES}.schema")
    return content | {"index_version": INDEX_VERSION}


def write(folder: Path, index: Index) -> None:
    """Write the index of ``folder``, whole or not at all."""
    atomic_write.write_text(folder / FILE_NAME, index.to_json())
