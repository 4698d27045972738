"""What an importer of one method says."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from easyteacache.records.plan import Plan
from easyteacache.records.preset import Preset

#: One entry of ``published_plans.json``.
Fact = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """One method's importer.

    Attributes:
        takes: the facts' own names of the method.
        part: last part of the key of a fact's record, for example ``lemica``.
        title: what stands behind the model's name in a record's title, by that part.
        setting: the plan or preset of one fact; None where it makes neither, with the reason in ``left_out``.
        notes: what a user of these plans should know beside what the facts note, by their part.
        left_out: why ``setting`` gives None for a fact.
        full_claim: whether the source's speed-up is that of the cache alone, as applied here.
    """

    takes: tuple[str, ...]
    part: Callable[[Fact], str]
    title: Callable[[str], str]
    setting: Callable[[Fact], Plan | Preset | None]
    notes: Callable[[str], Sequence[str]] = field(default=lambda part: ())
    left_out: Callable[[Fact], str] = field(default=lambda fact: "")
    full_claim: Callable[[Fact], bool] = field(default=lambda fact: True)


def sentence(note: str) -> str:
    """What a fact notes as a sentence of its own, without pointers into the file of facts."""
    text = re.sub(r"; see extra\.\S*", "", note)
    text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def computed_of(fact: Fact) -> tuple[int, ...]:
    """The computed steps that a fact lists: those that its run has, where it lists one beyond the end."""
    return tuple(fact["extra"].get("effective_computed_steps") or fact["computed_steps"])
