"""The skip window of a policy: the cautious intersection of its buckets' windows, in the caller's step count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from easyteacache.policy.request import Request, RunContext
from easyteacache.records.bucket import Bucket

NO_STEP = -1
NEEDS_STEPS = (
    "The window ends before the last step, but the step count is not known: every step is computed. Pass num_steps=."
)
# Fractions such as 0.1 · 30 must not miss their own step by a rounding error.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SkipWindow:
    """Inclusive range of steps that may be reused.

    Attributes:
        first: first step that may be reused.
        last: last one; None: no limit is known; ``NO_STEP``: nothing may be reused.
        max_consecutive_skips: most steps reused in a row, None for no limit.
    """

    first: int
    last: int | None
    max_consecutive_skips: int | None


def skip_window(buckets: Sequence[Bucket], request: Request, run: RunContext, notes: list[str]) -> SkipWindow:
    """Intersect the buckets' windows; the caller's own limits replace the record's.

    Args:
        buckets: the one or two buckets of the policy.
        request: whose limits replace the record's.
        run: how many steps it has.
        notes: gets one sentence when the window was scaled, or allows nothing.
    """
    first = max(_first(bucket, run.num_steps) for bucket in buckets)
    lasts = [_last(bucket, run.num_steps) for bucket in buckets]
    last = min((end for end in lasts if end is not None), default=None)
    limits = [bucket.max_consecutive_skips for bucket in buckets if bucket.max_consecutive_skips is not None]
    limit = min(limits, default=None)
    overridden = request.min_skip_step is not None and request.max_skip_step is not None
    if not overridden and any(_differs(bucket, run.num_steps) for bucket in buckets):
        end = "the end" if last is None else str(last)
        notes.append(
            f"Calibrated for {buckets[0].num_steps} steps, used with {run.num_steps}: "
            f"the skip window is scaled to {first}-{end}."
        )
    num_steps = run.num_steps or buckets[0].num_steps
    if request.min_skip_step is not None:
        first = request.min_skip_step
    if request.max_skip_step is not None:
        last = from_end(request.max_skip_step, num_steps)
    if request.max_consecutive_skips is not None:
        limit = request.max_consecutive_skips
    window = SkipWindow(first, last, limit)
    ends_early = request.max_skip_step if request.max_skip_step is not None else buckets[0].max_skip_step
    notes.extend(_empty_notes(window, known=bool(num_steps), end=ends_early))
    return window


def given_window(request: Request, notes: list[str], *, num_steps: int | None) -> SkipWindow:
    """The window of the original's constructor: what the caller gave and nothing else."""
    end = -1 if request.max_skip_step is None else request.max_skip_step
    window = SkipWindow(request.min_skip_step or 0, from_end(end, num_steps), request.max_consecutive_skips)
    notes.extend(_empty_notes(window, known=num_steps is not None, end=end))
    return window


def from_end(step: int, num_steps: int | None) -> int | None:
    """A window end as a step index: negative ones count from the end.

    Returns:
        The index; None when every step up to the end is meant; ``NO_STEP`` (reuse nothing) when the end lies a given number
        of steps before an end that is not known.
    """
    if step >= 0:
        return step
    if num_steps is None:
        return None if step == -1 else NO_STEP
    return max(num_steps + step, NO_STEP)


def _empty_notes(window: SkipWindow, *, known: bool, end: int) -> list[str]:
    if window.last is None or window.last >= window.first:
        return []
    if window.last == NO_STEP and not known:
        return [NEEDS_STEPS]
    return [
        f"The skip window is empty (first {window.first}, last {window.last}"
        + (f", from max_skip_step {end}" if end < 0 else "")
        + "): every step is computed."
    ]


def _first(bucket: Bucket, num_steps: int | None) -> int:
    first = bucket.min_skip_step
    if _differs(bucket, num_steps) and first > 1:
        # Step 0 is computed whatever the window says, so a window from 1 on leaves nothing out that could be scaled.
        first = math.ceil(first * _ratio(bucket, num_steps) - _ROUNDING)
    steps = num_steps or bucket.num_steps
    if bucket.skip_window_fraction is None or steps is None:
        return first
    return max(first, math.ceil(bucket.skip_window_fraction[0] * steps - _ROUNDING))


def _last(bucket: Bucket, num_steps: int | None) -> int | None:
    steps = num_steps or bucket.num_steps
    last = from_end(bucket.max_skip_step, steps)
    if bucket.max_skip_step >= 0 and _differs(bucket, num_steps):
        assert bucket.num_steps is not None
        assert num_steps is not None
        # What is scaled is how many steps the window leaves out at the end.
        left_out = bucket.num_steps - 1 - bucket.max_skip_step
        last = max(num_steps - 1 - math.ceil(left_out * _ratio(bucket, num_steps) - _ROUNDING), NO_STEP)
    if bucket.skip_window_fraction is None or bucket.skip_window_fraction == (0.0, 1.0):
        return last
    if steps is None:
        return NO_STEP
    end = math.floor(bucket.skip_window_fraction[1] * steps + _ROUNDING)
    return end if last is None else min(last, end)


def _differs(bucket: Bucket, num_steps: int | None) -> bool:
    return num_steps is not None and bucket.num_steps not in (None, num_steps)


def _ratio(bucket: Bucket, num_steps: int | None) -> float:
    assert bucket.num_steps is not None
    assert num_steps is not None
    return num_steps / bucket.num_steps
