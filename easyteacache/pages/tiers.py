"""Evidence tiers as pages show them: a name, a meaning, a mark that is told apart without colour."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tier:
    """One tier.

    Attributes:
        name: as records spell it; ``unstated`` where a record has no evidence.
        meaning: one sentence.
        shape: SVG path around (0, 0), about 12 wide.
        filled: whether the shape is filled.
        rank: 0 for none to 4 for verified.
    """

    name: str
    meaning: str
    shape: str
    filled: bool
    rank: int


_CIRCLE = "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z"
TIERS: tuple[Tier, ...] = (
    Tier("verified", "Repeated by somebody else on prompts that the submitter never saw.", _CIRCLE, True, 4),
    Tier("submitted", "Found on the submitter's own traces, replayed by the review.", "M-5-5h10v10h-10z", True, 3),
    Tier(
        "reported", "A source's own quality figure, not repeated here.", "M0-6.5l6.5 6.5l-6.5 6.5l-6.5-6.5z", False, 2
    ),
    Tier("published", "A source's number without a quality figure.", _CIRCLE, False, 1),
    Tier("unstated", "Published as a setting; nobody says what it gave.", "M-4-4l8 8m0-8l-8 8", False, 0),
)
_BY_NAME = {tier.name: tier for tier in TIERS}


def tier_named(name: str | None) -> Tier:
    """The tier that a record's evidence kind names; that of no evidence for None."""
    return _BY_NAME[name or "unstated"]
