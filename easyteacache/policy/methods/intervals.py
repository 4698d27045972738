"""Schedules that follow from a few numbers of a method's settings: which steps are computed, whatever the model gives."""

from __future__ import annotations

import math

from easyteacache.errors import InvalidPlan


def taylorseer_schedule(num_steps: int, *, interval: int, first_enhance: int = 1) -> tuple[int, ...]:
    """TaylorSeer and FORA: the first steps, then one step after every ``interval − 1`` reused ones (arXiv 2503.06923, 2407.01425).

    Args:
        num_steps: steps of a run.
        interval: N, distance of computed steps, at least 1.
        first_enhance: steps computed at the beginning, at least 1.
    """
    _at_least("interval", interval, 1)
    _at_least("first_enhance", first_enhance, 1)
    computed, reused = [], 0
    for step in range(num_steps):
        if step < first_enhance or reused == interval - 1:
            computed.append(step)
            reused = 0
        else:
            reused += 1
    return tuple(computed)


def fora_schedule(num_steps: int, *, interval: int) -> tuple[int, ...]:
    """FORA as SmoothCache's files spell it: every ``interval``-th step and the last one."""
    _at_least("interval", interval, 1)
    return tuple(sorted({*range(0, num_steps, interval), num_steps - 1}))


def spectrum_schedule(
    num_steps: int, *, warmup: int, window: float, growth: float, stop: int | None = None
) -> tuple[int, ...]:
    """Spectrum: a window that grows with every computed step (arXiv 2603.01623).

    After the warm-up, with q steps reused in a row, a step is computed where (q + 1) mod ⌊window⌋ = 0; the window is then
    ``round(window + growth, 3)``.

    Args:
        num_steps: steps of a run.
        warmup: steps computed at the beginning, at least 1.
        window: its first width, at least 1.
        growth: α, what every computed step adds to it, 0 or more.
        stop: from this step on everything is computed; None: to the end as above.
    """
    _at_least("warmup", warmup, 1)
    _at_least("window", window, 1)
    _at_least("growth", growth, 0)
    computed, reused, width = [], 0, float(window)
    for step in range(num_steps):
        if step < warmup or (stop is not None and step >= stop):
            computed.append(step)
            reused = 0
        elif (reused + 1) % math.floor(width) == 0:
            computed.append(step)
            reused, width = 0, round(width + growth, 3)
        else:
            reused += 1
    return tuple(computed)


def skip_every(num_steps: int, *, warmup: int, every: int) -> tuple[int, ...]:
    """ComfyUI-CacheDiT's image nodes: after the warm-up every ``every``-th step is *reused*, counted from the first step behind it."""
    _at_least("warmup", warmup, 1)
    _at_least("every", every, 1)
    return tuple(step for step in range(num_steps) if step < warmup or (step + 1 - warmup) % every)


def compute_every(num_steps: int, *, warmup: int, every: int, after: int = 0) -> tuple[int, ...]:
    """ComfyUI-CacheDiT's video nodes: after the warm-up every ``every``-th step is *computed*.

    Args:
        num_steps: steps of a run.
        warmup: steps computed at the beginning, at least 1.
        every: distance of computed steps behind it, at least 1.
        after: how many steps behind the warm-up are reused before the first computed one: 0 for LTX-2, ``every − 1`` for Wan.
    """
    _at_least("warmup", warmup, 1)
    _at_least("every", every, 1)
    return tuple(step for step in range(num_steps) if step < warmup or (step - warmup - after) % every == 0)


def stride_between(num_steps: int, *, start: int, end: int, interval: int) -> tuple[int, ...]:
    """HunyuanVideo-1.5's own helpers: every ``interval``-th step from ``start`` up to ``end``, and all steps outside them.

    Args:
        num_steps: steps of a run.
        start: the last step of the computed beginning.
        end: the first step of the computed end.
        interval: distance of computed steps between them, at least 1.
    """
    _at_least("interval", interval, 1)
    if not 0 <= start <= end <= num_steps:
        raise InvalidPlan(f"start {start} and end {end} of {num_steps} steps; expected 0 ≤ start ≤ end ≤ {num_steps}")
    inside = set(range(start, end, interval))
    return tuple(step for step in range(num_steps) if step < start or step >= end or step in inside)


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise InvalidPlan(f"{name} is {value}, expected at least {least}")
