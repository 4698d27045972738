"""Which steps engines with MagCache compute: its decisions follow from the ratios alone, so they are known before any step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from easyteacache.export.numbers import Numbers
from easyteacache.policy.methods import magcache
from easyteacache.policy.methods.magcache import USUAL_RETENTION, nearest_ratios, rule_of


def magcache_plan(numbers: Numbers, branch: str) -> tuple[int, ...] | None:
    """The computed steps of one branch by the authors' rule for the record's model, as this runtime applies it.

    None where threshold, run length, retention or step count is not known, and where two experts take turns.
    """
    rule = rule_of(numbers.record.model_key)
    if not _known(numbers) or rule.boundary is not None:
        return None
    assert numbers.num_steps is not None
    assert numbers.threshold is not None
    return magcache.magcache_plan(
        numbers.bucket,
        numbers.num_steps,
        branch,
        threshold=numbers.threshold,
        rule=rule,
        limit=numbers.limit,
        retention=numbers.retention,
    )


def engine_plan(numbers: Numbers, ratios: Sequence[float], *, within: bool) -> tuple[int, ...] | None:
    """The computed steps of an engine that is given one list of ratios, ``retained_steps`` of first steps, and no other rule.

    Ratios multiply since the last computed step; a step is reused while the sum of ``|1 - product|`` stays below the threshold, at
    most ``limit`` times in a row (arXiv 2506.09045, section 3.3).

    Args:
        numbers: what is written for it.
        ratios: the list that the branch is given.
        within: the sum may reach the threshold, too.
    """
    if not _known(numbers):
        return None
    assert numbers.num_steps is not None
    assert numbers.threshold is not None
    assert numbers.limit is not None
    steps, kept = numbers.num_steps, retained_steps(numbers, numbers.num_steps)
    gammas = nearest_ratios(ratios, steps)
    product, error, run, computed = 1.0, 0.0, 0, []
    for step in range(steps):
        if step >= kept:
            product, run = product * gammas[step], run + 1
            error += abs(1 - product)
            below = error <= numbers.threshold if within else error < numbers.threshold
            if step and below and run <= numbers.limit:
                continue
            product, error, run = 1.0, 0.0, 0
        computed.append(step)
    return tuple(computed)


def retained_steps(numbers: Numbers, num_steps: int) -> int:
    """How many first steps MagCache computes: the authors round their share down, for FLUX to the nearest step, for OmniGen2 up.

    Where they count the forwards of two branches together, the first branch may compute one more.
    """
    start = rule_of(numbers.record.model_key).start
    wanted = _share(numbers) * num_steps
    if start == "up":
        return math.ceil(wanted)
    return math.floor(wanted + 0.5 if start == "nearest" else wanted)


def _share(numbers: Numbers) -> float:
    return USUAL_RETENTION if numbers.retention is None else numbers.retention


def _known(numbers: Numbers) -> bool:
    return None not in (numbers.threshold, numbers.limit, numbers.retention, numbers.num_steps)
