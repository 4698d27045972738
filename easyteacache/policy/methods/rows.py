"""Rows of weights: the form that every linear recurrence comes to once it is unrolled over the computed steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from easyteacache.errors import InvalidPlan

#: One row a step: weights of the latest computed steps up to and including it, oldest first.
Rows = tuple[tuple[float, ...], ...]
#: Computed step → weight.
Weights = Mapping[int, float]
#: Most weights in one row.
LONGEST_ROW = 100


def unrolled(computed: Sequence[int], num_steps: int, fill: Callable[[int, Sequence[Weights]], Weights]) -> Rows:
    """The rows of a recurrence that gives each reused step from everything before it, forecasts included.

    Args:
        computed: the computed steps, ascending, the first of them 0.
        num_steps: steps of a run, S.
        fill: (reused step j, weights of the steps 0 … j − 1) → weights of step j over computed steps below j.

    Returns:
        S rows; that of a computed step is ``(1.0,)``.

    Raises:
        InvalidPlan: the computed steps are no plan of ``num_steps`` steps, or a row reaches back over more than ``LONGEST_ROW``
            computed steps.
    """
    expect_plan(computed, num_steps)
    known: list[Weights] = []
    rows, seen = [], 0
    for step in range(num_steps):
        if seen < len(computed) and computed[seen] == step:
            seen += 1
            known.append({step: 1.0})
        else:
            known.append(fill(step, known))
        rows.append(aligned(known[-1], computed[:seen]))
    return tuple(rows)


def aligned(weights: Weights, computed: Sequence[int]) -> tuple[float, ...]:
    """Weights of computed steps as one row: of the latest ones, from the oldest that counts on.

    Raises:
        InvalidPlan: that would be more than ``LONGEST_ROW``.
    """
    oldest = min(
        (position for position, step in enumerate(computed) if weights.get(step, 0.0)), default=len(computed) - 1
    )
    row = tuple(weights.get(step, 0.0) for step in computed[oldest:])
    if len(row) > LONGEST_ROW:
        raise InvalidPlan(f"a row reaches back over {len(row)} computed steps, expected at most {LONGEST_ROW}")
    return row


def combined(terms: Sequence[tuple[float, Weights]]) -> dict[int, float]:
    """Σ c · weights, over the computed steps that any of them has."""
    total: dict[int, float] = {}
    for factor, weights in terms:
        for step, weight in weights.items():
            total[step] = total.get(step, 0.0) + factor * weight
    return total


def expect_plan(computed: Sequence[int], num_steps: int) -> None:
    """Computed steps ascend from 0 and end below the step count.

    Raises:
        InvalidPlan: they do not.
    """
    steps = list(computed)
    if not steps or steps[0] != 0 or any(b <= a for a, b in itertools.pairwise(steps)) or steps[-1] >= num_steps:
        raise InvalidPlan(
            f"computed steps {steps} of {num_steps}; expected ascending indices below {num_steps} that begin with 0"
        )


def expect_levels(levels: Sequence[float], num_steps: int) -> None:
    """One noise level before each step and one of the sample, strictly falling.

    Raises:
        InvalidPlan: they are not.
    """
    if len(levels) != num_steps + 1:
        raise InvalidPlan(
            f"{len(levels)} noise levels for {num_steps} steps; expected {num_steps + 1}, the sample's included"
        )
    if any(after >= before for before, after in itertools.pairwise(levels)):
        raise InvalidPlan("noise levels do not fall from step to step; expected a strictly falling series")
