"""Find the best of several plans when every sample costs: all run a first batch, and those that may still win go on.

Samples of diffusion models differ by more than plans do, so that few runs choose by chance and many are dear. Most candidates are
clearly worse after few runs, though. Racing (Maron and Moore 1993, "Hoeffding races") spends the runs on those that are close: after
every batch a plan is dropped unless chance leaves it a chance to be better than the leader by what is worth having. Both were sampled on the
same runs, so what counts is the spread of their difference. And after every batch the worse half is dropped whatever chance may say, down
to the best two ("successive halving", Jamieson and Talwalkar 2016), so that many candidates do not make a race long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from easyteacache.records.trace import Array
from easyteacache.solver.replay.segment_objective import SMALLEST, typical

# Standard errors of the difference that chance is given.
CHANCE = 2.0
# In logarithms of the error, 0.26 dB: plans that are no further apart need not be told apart.
WORTH = 0.03


class Result(Protocol):
    """What sampling a contestant gave."""

    @property
    def errors(self) -> Array:
        """(R,) of the final samples, above 0; the same runs for all, in the same order."""
        ...


AnyPlan = TypeVar("AnyPlan")
AnyResult = TypeVar("AnyResult", bound=Result)


def race(
    plans: Sequence[AnyPlan], sample: Callable[[AnyPlan, int], AnyResult], rounds: int
) -> list[tuple[AnyPlan, AnyResult]]:
    """All ``plans`` with what is known of them, the best first: those that are left, then those that were dropped, the last ones first.

    Args:
        plans: one or more; the earlier one wins a draw.
        sample: of a plan and a number of batches, what that many batches of runs say; more of them begin with the same ones.
        rounds: how many batches there are, 1 or more; after the last one none is dropped.
    """
    left, batches, dropped = list(plans), 1, list[tuple[AnyPlan, AnyResult]]()
    while True:
        sampled = [(plan, sample(plan, batches)) for plan in left]
        leader, *others = sorted(sampled, key=lambda each: typical_of(each[1].errors))
        if batches >= rounds:
            return [leader, *others, *dropped]
        stay = [may_win(result.errors, leader[1].errors) for _, result in others]
        dropped = [each for each, stays in zip(others, stay, strict=True) if not stays] + dropped
        others = [each for each, stays in zip(others, stay, strict=True) if stays]
        most = max(1, math.ceil(len(left) / 2) - 1)
        dropped, others = [*others[most:], *dropped], others[:most]
        if not others:
            return [leader, *dropped]
        left, batches = [plan for plan, _ in (leader, *others)], batches + 1


def typical_of(errors: Array) -> float:
    """One number for all runs, a logarithm."""
    return float(typical(np.maximum(errors, SMALLEST)))


def may_win(errors: Array, best: Array) -> bool:
    """Whether a plan's ``errors`` (R,) leave it possible to be better than the ``best`` one by ``WORTH``, had there been other runs.

    The standard error of the difference is the jackknife's: one run left out at a time.
    """
    count = len(errors)
    if count < 2:
        return True
    kept = ~np.eye(count, dtype=bool)
    without = [
        typical(np.broadcast_to(np.maximum(each, SMALLEST), (count, count))[kept].reshape(count, count - 1))
        for each in (errors, best)
    ]
    apart = without[0] - without[1]
    spread = float(np.sqrt((count - 1) / count * np.square(apart - apart.mean()).sum()))
    return typical_of(errors) - typical_of(best) < CHANCE * spread - WORTH
