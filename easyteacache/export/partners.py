"""Records that one file holds together: the two sets of a checkpoint, and the two experts of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_EXPERTS = {"high-noise": "low-noise", "low-noise": "high-noise"}
_OTHER_SET = "no-retention"


def other_set(key: str, known: Mapping[str, Any]) -> str | None:
    """Key of the checkpoint's set for the other signal: ``wan2.1/t2v-14b`` and ``wan2.1/t2v-14b/no-retention``."""
    head, _, tail = key.rpartition("/")
    if tail in (_OTHER_SET, "retention"):
        candidate = head if tail == _OTHER_SET else f"{head}/{_OTHER_SET}"
    else:
        candidate = f"{key}/{_OTHER_SET}"
    return candidate if candidate in known else None


def expert(key: str) -> str | None:
    """Which expert a record is of: ``high-noise``, ``low-noise``, or None."""
    tail = key.rpartition("/")[2]
    return tail if tail in _EXPERTS else None


def other_expert(key: str, known: Mapping[str, Any]) -> str | None:
    """Key of the other expert's record, None when there is none."""
    name = expert(key)
    if name is None:
        return None
    candidate = f"{key.rpartition('/')[0]}/{_EXPERTS[name]}"
    return candidate if candidate in known else None


def published_sets(key: str, known: Mapping[str, Any]) -> dict[str, str] | None:
    """The two sets of the checkpoint that a method's record, such as ``wan2.1/t2v-14b/teacache-taylor``, belongs to.

    Returns:
        ``retention`` and ``no-retention`` with the keys of their records; None where one of them is missing.
    """
    model = key.rpartition("/")[0]
    sets = {"retention": model, _OTHER_SET: f"{model}/{_OTHER_SET}"}
    return sets if all(name in known for name in sets.values()) else None


# What an engine's entry calls them → how they are found.
FIND: dict[str, Callable[[str, Mapping[str, Any]], str | None]] = {"set": other_set, "expert": other_expert}
