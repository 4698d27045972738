"""Which steps engines with MagCache compute: its decisions follow from the ratios alone, so they are known before any step."""

from __future__ import annotations

import math

from easyteacache.export.numbers import Numbers
from easyteacache.policy.methods.magcache import MagCacheRule, magcache_schedule

#: What engines do: as the authors' script for Wan2.1, but the first steps are counted for each branch by itself.
_ENGINES = MagCacheRule(start="down")


def magcache_plan(numbers: Numbers, branch: str) -> tuple[int, ...] | None:
    """The computed steps of one branch, None where threshold, run length, retention or step count is not known.

    The first ``retained_steps`` are computed, and all where the threshold is 0.
    """
    steps = numbers.num_steps
    if numbers.threshold is None or numbers.limit is None or numbers.retention is None or steps is None:
        return None
    if not numbers.threshold:
        return tuple(range(steps))
    return magcache_schedule(
        numbers.ratios[branch],
        steps,
        threshold=numbers.threshold,
        limit=numbers.limit,
        retention=numbers.retention,
        rule=_ENGINES,
    )


def retained_steps(retention: float, num_steps: int) -> int:
    """How many first steps MagCache computes: the authors round down."""
    return math.floor(retention * num_steps)
