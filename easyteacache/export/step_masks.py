"""Masks of steps and bins: how cache-dit, and what builds on it, spell a plan's computed steps.

A mask has one entry a step, 1 computed and 0 reused. Bins are the same as lengths of runs: so many computed, so many reused, so many
computed again (vipshop/cache-dit 1.5.3, ``steps_mask`` in src/cache_dit/caching/cache_interface.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, zip_longest
from typing import Any

from easyteacache.export.parsed import refuse
from easyteacache.files import strict_json
from easyteacache.records.fields import MAX_STEPS

Bins = tuple[tuple[int, ...], tuple[int, ...]]


def mask_of(computed: Sequence[int], num_steps: int) -> tuple[int, ...]:
    """One entry a step: 1 computed, 0 reused."""
    steps = set(computed)
    return tuple(int(step in steps) for step in range(num_steps))


def bins_of(mask: Sequence[int]) -> Bins:
    """(lengths of computed runs, lengths of reused runs) of a mask that begins with a computed step."""
    lengths = [(value, len(list(run))) for value, run in groupby(mask)]
    return tuple(n for value, n in lengths if value), tuple(n for value, n in lengths if not value)


def mask_of_bins(compute: Sequence[int], cache: Sequence[int], where: str, total: int | None = None) -> tuple[int, ...]:
    """The mask that bins stand for, as cache-dit puts them together.

    Args:
        compute: lengths of computed runs.
        cache: lengths of reused runs.
        where: the file, for messages.
        total: steps of the run, which the mask is cut to; None: as many as the bins cover.

    Raises:
        InvalidCalibration: the bins cover fewer steps than there are, or more than a record holds.
    """
    covered = sum(compute) + sum(cache)
    if covered > MAX_STEPS:
        raise refuse(where, f"the bins cover {covered} steps; a record holds at most {MAX_STEPS}")
    if total is not None and covered < total:
        raise refuse(where, f"the bins cover {covered} of {total} steps; expected at least as many")
    mask: list[int] = []
    for ones, zeros in zip_longest(compute, cache, fillvalue=0):
        mask += [1] * ones + [0] * zeros
    return tuple(mask if total is None else mask[:total])


def computed_of(mask: Any, name: str, where: str) -> tuple[int, ...]:
    """The computed steps of a mask in a file.

    Raises:
        InvalidCalibration: it is no list of 0 and 1, or its first step is not computed.
    """
    if not isinstance(mask, (list, tuple)) or not mask:
        raise refuse(where, f"{name} is {strict_json.shown(mask)}, expected a list of 0 and 1, one a step")
    if len(mask) > MAX_STEPS:
        raise refuse(where, f"{name} has {len(mask)} entries; a record holds at most {MAX_STEPS}")
    for step, value in enumerate(mask):
        if isinstance(value, bool) or value not in (0, 1):
            raise refuse(where, f"{name}[{step}] is {strict_json.shown(value)}, expected 0 or 1")
    if mask[0] != 1:
        raise refuse(where, f"{name}[0] is 0; the first step must be computed, nothing can be reused before it")
    return tuple(step for step, value in enumerate(mask) if value)


def bin_list(value: Any, name: str, where: str, *, empty: bool = False) -> tuple[int, ...]:
    """The lengths of runs in a file: whole numbers, at least 0; ``empty``: there may be none.

    Raises:
        InvalidCalibration: they are something else.
    """
    if not isinstance(value, (list, tuple)) or not (value or empty):
        raise refuse(where, f"{name} is {strict_json.shown(value)}, expected a list of numbers of steps")
    for place, length in enumerate(value):
        if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= MAX_STEPS:
            raise refuse(
                where, f"{name}[{place}] is {strict_json.shown(length)}, expected a number of steps, 0 to {MAX_STEPS}"
            )
    return tuple(value)
