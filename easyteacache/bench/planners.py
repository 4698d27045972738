"""Published planners as mathematics: which steps a budget is spent on, and what L2P's training ends with.

Each searches the paths from the first step of a run to its end over the computed steps in between; they differ in what a stretch of
reused steps costs and in how a path adds its costs up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from easyteacache.errors import BenchError
from easyteacache.policy.methods.meancache import meancache_step
from easyteacache.policy.methods.rows import Weights
from easyteacache.records.trace import Array

#: Steps that DPCache's planner always computes at the beginning.
MANDATORY = 3
#: (from, to) → cost of computing both steps and none between them; the step count stands for the end of the run.
Edges = Mapping[tuple[int, int], float]
#: The largest span of MeanCache's forecasts that its published plans have.
LONGEST_SPAN = 5
#: L2P's own training (predictor/train.py): epochs and learning rate of Adam, from the identity on.
EPOCHS, RATE = 201, 0.01


def extrapolation_errors(grams: Sequence[Array]) -> Array:
    """How far DPCache's straight line through two computed steps misses every later one.

    Args:
        grams: (S, S) inner products of what is forecast, one a run and branch.

    Returns:
        (S, S, S): E[i, j, t] for i < j < t, the mean over ``grams`` of ‖ĥ_t(i, j) − h_t‖, each run's in units of its mean norm; 0
        elsewhere. The source takes the mean absolute value instead of the norm, which inner products do not hold.
    """
    steps = len(grams[0])
    found = np.zeros((steps, steps, steps))
    for gram in grams:
        norms = np.diagonal(gram)
        unit = math.sqrt(float(norms.mean()))
        for j in range(1, steps - 1):
            i, t = np.arange(j)[:, None], np.arange(j + 1, steps)[None, :]
            slope = (t - j) / (j - i)
            ahead = 1.0 + slope
            squared = (
                ahead**2 * norms[j]
                + slope**2 * norms[:j, None]
                + norms[None, j + 1 :]
                - 2 * ahead * slope * gram[:j, j, None]
                - 2 * ahead * gram[j, j + 1 :][None, :]
                + 2 * slope * gram[:j, j + 1 :]
            )
            found[:j, j, j + 1 :] += np.sqrt(np.maximum(squared, 0.0)) / unit
    return found / len(grams)


def dpcache_schedule(errors: Array, count: int) -> tuple[int, ...]:
    """The cheapest computed steps of a budget, exactly, over pairs of the two latest (arXiv 2602.22654, as SGLang plans it).

    Args:
        errors: (S, S, S) as ``extrapolation_errors`` gives them; a stretch from j to k after i costs Σ_{j<t<k} E[i, j, t].
        count: computed steps, ``MANDATORY`` to S.

    Raises:
        BenchError: the budget is outside.
    """
    steps = len(errors)
    if not MANDATORY <= count <= steps:
        raise BenchError(f"expected {MANDATORY} to {steps} computed steps, found {count}")
    costs = np.zeros((steps, steps, steps + 1))
    costs[:, :, 1:] = np.cumsum(errors, axis=2)
    # costs[i, j, k] sums up to t = k − 1; the steps up to j themselves cost nothing.
    best = {(MANDATORY - 2, MANDATORY - 1): (0.0, tuple(range(MANDATORY)))}
    for _ in range(MANDATORY, count):
        longer: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}
        for (i, j), (cost, path) in sorted(best.items()):
            for k in range(j + 1, steps):
                value = cost + float(costs[i, j, k])
                if (j, k) not in longer or value < longer[j, k][0]:
                    longer[j, k] = (value, (*path, k))
        best = longer
    ended = [(cost + float(costs[i, j, steps]), path) for (i, j), (cost, path) in sorted(best.items())]
    return min(ended)[1]


def meancache_edges(
    grams: Sequence[Array], levels: Sequence[float], longest: int
) -> dict[tuple[int, int], tuple[float, int]]:
    """What MeanCache's forecasts miss over each stretch of reused steps, and the span that misses least (arXiv 2601.19961).

    Args:
        grams: (S, S) inner products of the guided output, one a run.
        levels: (S + 1,) noise levels, falling.
        longest: most steps from one computed step to the next.

    Returns:
        (b, k) → the mean over runs of ‖û − u‖, u the mean velocity between the two on the uncached path and û its forecast from
        the outputs up to b; and the span S of that forecast.
    """
    steps, found = len(grams[0]), {}
    for b in range(steps):
        for k in range(b + 1, min(b + longest, steps) + 1):
            spans = {span: _missed(b, k, levels, span) for span in range(1, LONGEST_SPAN + 1)}
            errors = {span: _mean_norm(missed, grams) for span, missed in spans.items()}
            best = min(errors, key=lambda span: (errors[span], span))
            found[b, k] = (errors[best], best)
    return found


def _missed(b: int, k: int, levels: Sequence[float], span: int) -> Array:
    """Weights of (û − u) over the outputs of a whole run, whose steps between ``b`` and ``k`` alone are forecast."""
    known: list[Weights] = [{m: 1.0} for m in range(b + 1)]
    weights = np.zeros(len(levels) - 1)
    for j in range(b + 1, k):
        known.append(meancache_step(j, known, levels, span))
        share = (levels[j + 1] - levels[j]) / (levels[k] - levels[b])
        weights[j] -= share
        for m, weight in known[j].items():
            weights[m] += share * weight
    return weights


def _mean_norm(weights: Array, grams: Sequence[Array]) -> float:
    return float(np.mean([math.sqrt(max(float(weights @ gram @ weights), 0.0)) for gram in grams]))


def shortest_path(edges: Edges, steps: int, count: int, *, peak: float = 1.0) -> tuple[int, ...] | None:
    """The path of ``count`` computed steps whose costs, each to the power ``peak``, have the least sum; it ends at ``steps``.

    A power above 1 keeps single large costs out, as MeanCache's peak-suppressed shortest path does.
    """
    ended = _paths(edges, steps, count, 0.0, lambda total, cost: total + cost**peak)
    return ended.get(steps)


def minimax_path(edges: Edges, steps: int, count: int) -> tuple[int, ...] | None:
    """LeMiCa's lexicographic minimax path (arXiv 2511.00090): the largest cost as small as can be, then the second largest, and so on.

    It computes the first and the last step; None where no path has ``count`` computed steps.
    """
    start: tuple[float, ...] = ()
    ended = _paths(edges, steps - 1, count - 1, start, lambda costs, cost: tuple(sorted((*costs, cost), reverse=True)))
    found = ended.get(steps - 1)
    return None if found is None else (*found, steps - 1)


def _paths(
    edges: Edges, end: int, count: int, start: Any, added: Callable[[Any, float], Any]
) -> dict[int, tuple[int, ...]]:
    """Where paths of ``count`` edges from step 0 end → the cheapest of them, its end left out.

    What a path costs may be a sum, or all costs with the largest first: whatever ``added`` makes and ``<`` compares.
    """
    leaving: dict[int, list[int]] = {}
    for before, after in sorted(edges):
        if after <= end:
            leaving.setdefault(before, []).append(after)
    best: dict[int, tuple[Any, tuple[int, ...]]] = {0: (start, ())}
    for _ in range(count):
        level: dict[int, tuple[Any, tuple[int, ...]]] = {}
        for before, (cost, path) in sorted(best.items()):
            for after in leaving.get(before, ()):
                value = added(cost, edges[before, after])
                if after not in level or value < level[after][0]:
                    level[after] = (value, (*path, before))
        best = level
    return {node: ended[1] for node, ended in best.items()}


def l2p_matrix(grams: Sequence[Array]) -> Array:
    """Weights of all outputs so far for the next one, trained as L2P trains them (arXiv 2604.26365): one step ahead on full runs.

    Adam on the mean squared error from the identity on, whose gradient follows from inner products alone.

    Args:
        grams: (S, S) inner products of the model's outputs, one a run and branch.

    Returns:
        (S, S) lower-triangular; row k forecasts step k + 1, the last one is not used.
    """
    total = np.sum(grams, axis=0)
    steps = len(total)
    # In units in which an output's mean square is 1, as it is about in the source, whose loss is a mean over numbers.
    gram = total / np.diagonal(total).mean() / steps
    lower = np.tril(np.ones((steps, steps)))
    weights = np.eye(steps)
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for epoch in range(1, EPOCHS + 1):
        gradient = np.zeros_like(weights)
        gradient[:-1] = 2.0 * (weights[:-1] @ gram - gram[1:])
        gradient *= lower
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        step = first / (1 - 0.9**epoch) / (np.sqrt(second / (1 - 0.999**epoch)) + 1e-8)
        weights = weights - RATE * step * lower
    return np.asarray(weights)
