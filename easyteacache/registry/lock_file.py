"""``easyteacache.lock``: which content of which record a project runs with, so that a run tomorrow is the run of today.

A lock names records by the hash of their content. Where one is in force, a lookup finds that content or fails.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from easyteacache.errors import InvalidCalibration, InvalidModelKey
from easyteacache.files import atomic_write, strict_json
from easyteacache.records import model_key, parsing
from easyteacache.records.fields import Count, ModelKey, Record, Sha256, ShortText
from easyteacache.registry.named_path import expanded

FILE_NAME = "easyteacache.lock"
ENVIRONMENT_LOCK = "EASYTEACACHE_LOCK"
RULES = "lock"
MAX_BYTES = 16 * 1024 * 1024
MAX_ITEMS = 500_000

CommitId = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class LockedRecord(Record):
    """The one content of a record that may be used."""

    sha256: Sha256 = Field(description="SHA-256 of the record's file, lower-case hexadecimal.")
    revision: Count = Field(description="The record's revision, for people.")
    repository: ShortText | None = Field(
        default=None, description="Hub repository it came from, `owner/name`; absent for other layers."
    )
    commit: CommitId | None = Field(default=None, description="Commit of that repository.")
    endpoint: ShortText | None = Field(default=None, description="Hub that serves it; absent: the public one.")


class LockFile(Record):
    """What a project runs with."""

    lock_version: Literal[1] = Field(description="Version of this format.")
    records: dict[ModelKey, LockedRecord] = Field(description="Model key → content, sorted by key.")

    @model_validator(mode="after")
    def _keys_are_keys(self) -> LockFile:
        for key in self.records:
            try:
                model_key.parse(key)
            except InvalidModelKey as error:
                raise ValueError(str(error)) from error
        return self

    def to_json(self) -> str:
        """The canonical spelling, records sorted by key, absent values left out."""
        records = {key: one.model_dump(mode="json", exclude_none=True) for key, one in sorted(self.records.items())}
        return strict_json.spell({"lock_version": self.lock_version, "records": records})


def empty() -> LockFile:
    """A lock of nothing."""
    return LockFile(lock_version=1, records={})


def in_force() -> Path | None:
    """The lock that lookups obey: ``$EASYTEACACHE_LOCK`` (empty: none), else ``easyteacache.lock`` in the current folder."""
    named = os.environ.get(ENVIRONMENT_LOCK)
    if named is not None:
        return expanded(named, ENVIRONMENT_LOCK, rule=f"{RULES}.unreadable") if named else None
    here = Path(FILE_NAME)
    return here if os.path.lexists(here) else None


def read(path: str | os.PathLike[str]) -> LockFile:
    """Read a lock.

    Raises:
        InvalidCalibration: it is missing, unreadable or breaks the format (rules ``lock.…``).
    """
    return from_json(parsing.read_file(path, rules=RULES, max_bytes=MAX_BYTES), where=os.fspath(path))


def from_json(data: bytes | str, *, where: str = FILE_NAME) -> LockFile:
    """Read a lock from JSON text; raises as ``read`` does."""
    content = parsing.read_object(data, where=where, rules=RULES, max_bytes=MAX_BYTES, max_items=MAX_ITEMS)
    parsing.require_version(content, "lock_version", supported=(1,), where=where, rules=RULES)
    return parsing.validate(LockFile, content, where=where, rules=RULES)


def write(path: str | os.PathLike[str], lock: LockFile) -> None:
    """Write a lock, whole or not at all."""
    atomic_write.write_text(path, lock.to_json())


def pinned(lock: LockFile, key: str, where: str) -> LockedRecord:
    """What ``lock`` says about ``key``.

    Raises:
        InvalidCalibration: nothing (rule ``lock.unlisted``).
    """
    if key not in lock.records:
        raise InvalidCalibration(
            where,
            f"does not list {key!r}; add it with `easyteacache-hub lock {key}`, or set {ENVIRONMENT_LOCK}= to do without",
            rule="lock.unlisted",
        )
    return lock.records[key]
