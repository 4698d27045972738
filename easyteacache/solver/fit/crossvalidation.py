"""Held-out evidence for a curve: runs left out show noise, blocks of steps left out show what happens outside the fit.

Runs are the independent observations, so whole runs are left out, never pairs of them. Over runs a higher order always looks
harmless; only blocks of steps expose a curve that leaves its data badly (measured: order 4 against order 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from easyteacache.records.trace import Array
from easyteacache.solver.fit.curves import Fitted
from easyteacache.solver.fit.points import Points

Fit = Callable[[Points], Fitted]
# Beyond this many runs they are left out in groups: the answer hardly changes and the cost stops growing.
MOST_FOLDS = 20
STEP_BLOCKS = 5


@dataclass(frozen=True)
class Evidence:
    """How a curve did on pairs it had not seen.

    Attributes:
        r2: 1 − squared error / squared deviation from the mean; 1 is perfect, 0 no better than a constant.
        relative_error: mean |p(x) − y| / mean y, 0 or more.
        errors: the same for each left-out group.
    """

    r2: float
    relative_error: float
    errors: tuple[float, ...]


def over_runs(points: Points, fit: Fit) -> Evidence | None:
    """Leave one run out in turn (one group of runs where there are more than ``MOST_FOLDS``); None for a single run."""
    runs = np.unique(points.run)
    if len(runs) < 2:
        return None
    folds = np.array_split(runs, min(len(runs), MOST_FOLDS))
    return _judge(points, fit, (np.isin(points.run, fold) for fold in folds))


def over_steps(points: Points, fit: Fit) -> Evidence | None:
    """Leave one contiguous block of steps out in turn, of all runs together; None for fewer steps than blocks."""
    steps = np.unique(points.step)
    if len(steps) < 2 * STEP_BLOCKS:
        return None
    return _judge(points, fit, (np.isin(points.step, block) for block in np.array_split(steps, STEP_BLOCKS)))


def evidence(predicted: Array, observed: Array) -> tuple[float, float]:
    """(R², mean absolute error / mean observation) of predictions (N,) for observations (N,)."""
    spread = float(np.sum((observed - observed.mean()) ** 2))
    missed = float(np.sum((predicted - observed) ** 2))
    r2 = 1.0 - missed / spread if spread > 0 else (1.0 if missed == 0 else 0.0)
    scale = float(observed.mean())
    return r2, float(np.mean(np.abs(predicted - observed))) / scale if scale > 0 else 0.0


def _judge(points: Points, fit: Fit, heldout: Iterator[NDArray[np.bool_]]) -> Evidence:
    predicted = np.full(len(points), np.nan)
    errors = []
    scale = max(float(points.y.mean()), np.finfo(float).tiny)
    for mask in heldout:
        predicted[mask] = fit(points.take(~mask)).predict(points.x[mask])
        errors.append(float(np.mean(np.abs(predicted[mask] - points.y[mask]))) / scale)
    r2, relative_error = evidence(predicted, points.y)
    return Evidence(r2, relative_error, tuple(errors))
