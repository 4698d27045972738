"""Which steps MagCache computes: its decisions follow from the ratios alone, so they are known before any step."""

from __future__ import annotations

import math

from easyteacache.export.numbers import Numbers, nearest_ratios


def magcache_plan(numbers: Numbers, branch: str) -> tuple[int, ...] | None:
    """The computed steps of one branch, None where threshold, run length, retention or step count is not known.

    Ratios multiply since the last computed step; a step is reused while the sum of ``|1 - product|`` stays below the threshold, at
    most ``limit`` times in a row, and not within the first ``floor(retention * num_steps)`` steps (arXiv 2506.09045, section 3.3;
    Zehong-Ma/MagCache, MagCache4Wan2.1/magcache_generate.py at e1862e09).
    """
    steps = numbers.num_steps
    if numbers.threshold is None or numbers.limit is None or numbers.retention is None or steps is None:
        return None
    ratios = nearest_ratios(numbers.ratios[branch], steps)
    product, error, run, computed = 1.0, 0.0, 0, []
    for step in range(steps):
        if step >= retained_steps(numbers.retention, steps):
            product, run = product * ratios[step], run + 1
            error += abs(1 - product)
            if step and error < numbers.threshold and run <= numbers.limit:
                continue
            product, error, run = 1.0, 0.0, 0
        computed.append(step)
    return tuple(computed)


def retained_steps(retention: float, num_steps: int) -> int:
    """How many first steps MagCache computes: the authors round down."""
    return math.floor(retention * num_steps)
