"""Levels of quality by name: each is an error of the final sample that a run stays within, by runs that were held out.

A level says what ``max_error=`` says as a number: relative L2 error of the sample, ‖cached − full‖ ÷ ‖full − noise‖, of which the upper
quantile that ``ErrorStatistics.bound`` names must stay within the level's limit: nine of ten further runs, or of few held-out runs their
largest. Where nothing of the kind is known, a level is refused, not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Quality = Literal["exact", "high", "balanced", "fast"]


@dataclass(frozen=True)
class Level:
    """One level.

    Attributes:
        name: what it is called.
        most: error that it allows, relative L2, dimensionless; 0: nothing is reused.
        why: why it is where it is, a clause.
    """

    name: Quality
    most: float
    why: str


#: Measured on the reference model (docs/runtime.md): errors of 0.020, 0.048 and 0.122 go with 38, 30 and 22 dB PSNR of the picture (36
#: samples, 25 steps, 1.5 to 5 times the speed), and 50 or 25 sampler steps instead of 200 change samples by 0.025 or 0.041 (4 samples).
LEVELS: tuple[Level, ...] = (
    Level("exact", 0.0, "nothing is reused: the same sample, bit for bit"),
    Level("high", 0.02, "less than 50 sampler steps instead of 200 change (0.025); 38 dB PSNR on the reference model"),
    Level("balanced", 0.05, "about what 25 steps instead of 200 change (0.041); 30 dB there"),
    Level("fast", 0.12, "the same scene with other details, for drafts; 22 dB there"),
)
NAMES = tuple(level.name for level in LEVELS)
#: What engines and people call them elsewhere → the level's name. SGLang and vLLM-Omni say ``exact``, ``lossless`` and ``high``.
ALSO_CALLED: dict[str, Quality] = {
    "lossless": "exact",
    "medium": "balanced",
    "low": "fast",
}

_BY_NAME = {level.name: level for level in LEVELS}


def level(name: str) -> Level:
    """The level of this name, or of what an engine calls it.

    Raises:
        ValueError: there is none.
    """
    found = _BY_NAME.get(ALSO_CALLED.get(name, name)) if isinstance(name, str) else None  # type: ignore[call-overload]
    if found is None:
        raise ValueError(f"quality is {name!r}; expected one of {', '.join(NAMES)} (or {', '.join(ALSO_CALLED)})")
    return found  # type: ignore[no-any-return]
