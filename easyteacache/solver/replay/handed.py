"""What a plan hands the sampler, as rows over what was recorded: the runtime's corrector and predictors, driven by rows.

Everything a plan hands over is a combination of recorded quantities: outputs, which the Gram matrix of the outputs knows exactly, and errors
of residuals or features, which the head passes on and whose inner products only their own Gram matrix knows. So a row has a place for
every output and, behind them, one for every residual, and what a plan hands over at step j is exact output j and some error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from easyteacache.records.trace import Array
from easyteacache.runtime.corrector import Corrector
from easyteacache.runtime.sampler_steps import SamplerSteps


class RowSums:
    """Rows of numbers, added up."""

    def kept(self, output: Array, /) -> Array:
        """The row itself."""
        return output

    def add(self, total: Array | None, value: Array, weight: float, /) -> Array:
        """A new row."""
        return weight * value if total is None else total + weight * value

    def combined(self, terms: Sequence[tuple[float, Array]], taken: Array | None, size: float, /) -> Array:
        """A new row."""
        total = sum((weight * row for weight, row in terms), -taken if taken is not None else np.zeros(()))
        return np.asarray(total / size)


def handed_rows(
    schedule: Sequence[int],
    weights: Sequence[tuple[float, ...]],
    filled: Array,
    sampler: SamplerSteps | None,
    *,
    fills: bool = False,
) -> Array:
    """What the sampler is handed at every step, as rows over any D quantities.

    Args:
        schedule: the computed steps, ascending.
        weights: a row a step, as an operating point holds them.
        filled: (S, D) what every step gives by itself: at a computed step its own output, at a reused one what it is filled with.
        sampler: what the sampler's steps do; None: nothing is corrected.
        fills: the weights fill reused steps, too.

    Returns:
        (S, D), a row a step.
    """
    corrector, chosen = Corrector[Array](weights, schedule, RowSums(), fills=fills), frozenset(schedule)
    found = [corrector.handed(step, row, sampler, computed=step in chosen) for step, row in enumerate(filled)]
    return np.stack(found)
