"""Which steps engines with MagCache compute: its decisions follow from the ratios alone, so they are known before any step."""

from __future__ import annotations

from collections.abc import Sequence

from easyteacache.export.numbers import Numbers
from easyteacache.policy.methods import magcache
from easyteacache.policy.methods.magcache import USUAL_RETENTION, MagCacheRule, rule_of


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
    steps = numbers.num_steps
    if numbers.threshold <= 0.0:
        return tuple(range(steps))
    return magcache.magcache_schedule(
        ratios,
        steps,
        threshold=numbers.threshold,
        limit=numbers.limit,
        retention=retained_steps(numbers, steps) / steps,
        rule=MagCacheRule(inclusive=within, start="nearest"),
    )


def retained_steps(numbers: Numbers, num_steps: int) -> int:
    """How many first steps MagCache computes: the authors round their share down, for FLUX to the nearest step, for OmniGen2 up.

    Where they count the forwards of two branches together, the first branch may compute one more.
    """
    return magcache.first_steps(rule_of(numbers.record.model_key).start, _share(numbers), num_steps)


def _share(numbers: Numbers) -> float:
    return USUAL_RETENTION if numbers.retention is None else numbers.retention


def _known(numbers: Numbers) -> bool:
    return None not in (numbers.threshold, numbers.limit, numbers.retention, numbers.num_steps)
