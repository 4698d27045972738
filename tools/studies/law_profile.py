"""Change profiles of the law study: fitted to recorded runs, compared over lengths, and turned into plans.

The form is that of ``easyteacache.policy.uncalibrated``: x̂ settles by normal steps of one width over log(σ/(1 − σ)), and a velocity's
inner products follow. A profile is fitted by least squares to the inner products of the outputs' first and second differences
from step to step, each scaled to its own size, because plans depend on small late changes as much as on large early ones;
its logarithm is kept smooth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from law_models import Setting
from law_runs import Recorded
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls
from scipy.special import ndtr

from easyteacache.policy import uncalibrated

Array = NDArray[np.float64]
KNOTS = np.arange(-6.0, 5.01, 0.5)
WIDTH = uncalibrated.WIDTH
SMALLEST_SCALE = 3e-3
SMOOTHNESS = 1e-2
SMALLEST_WEIGHT = 1e-7
FAR = 40.0
#: Numbers that a token stands for: channels times patch.
VALUES = {"digits": 4, "flux": 4, "scenes": 12}
REFERENCE_VALUES = uncalibrated.REFERENCE_VALUES


@dataclass(frozen=True)
class Profile:
    """Weights of ``KNOTS`` on the axis log(σ/(1 − σ))."""

    weights: Array

    def outputs(self, levels: Array, *, offset: float = 0.0) -> Array:
        """(S, K) vectors with the inner products expected of the outputs, with the profile moved up by ``offset``."""
        return features(levels, offset) * np.sqrt(self.weights)


def logit(levels: Array) -> Array:
    """log(σ/(1 − σ)), clipped."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(np.log(levels) - np.log1p(-levels), -FAR, FAR))


def features(levels: Array, offset: float = 0.0) -> Array:
    """∫ 1/σ dx̂ for every knot, (S, K)."""
    at = logit(levels[:-1])[:, None] - offset
    tail = np.exp(-offset - KNOTS + 0.5 * WIDTH * WIDTH)
    return np.asarray(ndtr((KNOTS - at) / WIDTH) + tail * ndtr((KNOTS - WIDTH * WIDTH - at) / WIDTH))


def offset_of(setting: Setting) -> float:
    """Where the law across models puts a setting's profile on the axis log(σ/(1 − σ)): half the logarithm of its values."""
    return float(0.5 * np.log(setting.tokens * VALUES[setting.model] / REFERENCE_VALUES))


def fit(runs: Sequence[Recorded], offsets: Sequence[float]) -> tuple[Profile, float]:
    """The smooth profile of several recorded settings together, each moved down by its offset, and the relative misfit."""
    rows, wanted = [], []
    for run, offset in zip(runs, offsets, strict=True):
        found = features(run.levels, offset)
        first = np.diff(np.eye(len(found)), axis=0)
        for difference in (first, np.diff(first, axis=0)):
            inner = difference @ run.gram @ difference.T
            size = np.sqrt(np.maximum(np.diagonal(inner), 1e-30))
            size = np.maximum(size, SMALLEST_SCALE * size.max())
            scaled = (difference @ found) / size[:, None]
            count = float(len(inner))
            rows.append((scaled[:, None, :] * scaled[None, :, :]).reshape(-1, len(KNOTS)) / count)
            wanted.append((inner / np.outer(size, size)).ravel() / count)
    matrix, target = np.concatenate(rows), np.concatenate(wanted)
    start = np.maximum(nnls(matrix, target, maxiter=50_000)[0], SMALLEST_WEIGHT)
    normal, moment, total = matrix.T @ matrix, matrix.T @ target, float(target @ target)
    bend = np.diff(np.eye(len(KNOTS)), 2, axis=0)

    def misfit(logs: Array) -> float:
        weights = np.exp(logs)
        return float((weights @ normal @ weights - 2.0 * moment @ weights + total) / total)

    def objective(logs: Array) -> tuple[float, Array]:
        weights, bent = np.exp(logs), bend @ logs
        slope = 2.0 * (normal @ weights - moment) * weights / total
        return misfit(logs) + SMOOTHNESS * float(bent @ bent), slope + 2.0 * SMOOTHNESS * (bend.T @ bent)

    best = minimize(objective, np.log(start), jac=True, method="L-BFGS-B", options={"maxiter": 5000}).x
    return Profile(np.exp(best)), float(np.sqrt(max(misfit(best), 0.0)))


def plan_of_profile(profile: Profile, levels: Array, computed: int, *, offset: float = 0.0) -> tuple[int, ...]:
    """The least-error plan that a profile, moved up by ``offset``, gives over ``levels``."""
    return _plan(profile.outputs(levels, offset=offset), levels, computed, offset)


def plan_of_gram(run: Recorded, computed: int, *, offset: float, rank: int = 16) -> tuple[int, ...]:
    """The least-error plan of recorded inner products themselves: what calibrating on the setting itself gives."""
    values, vectors = np.linalg.eigh(run.gram)
    best = np.argsort(values)[::-1][:rank]
    return _plan(vectors[:, best] * np.sqrt(np.maximum(values[best], 0.0)), run.levels, computed, offset)


def _plan(outputs: Array, levels: Array, computed: int, offset: float) -> tuple[int, ...]:
    kept = [uncalibrated.kept(place - offset) for place in logit(levels[:-1]).tolist()]
    return uncalibrated.least_error_plan(outputs.tolist(), (np.diff(levels) * kept).tolist(), computed)


def settled(run: Recorded) -> Array:
    """How far x̂ has come along the way to its end, before every step, (S,): 0 to 1; a share of its energy, not of its path."""
    first = np.diff(np.eye(len(run.gram)), axis=0)
    changes = first @ run.gram @ first.T * np.outer(run.levels[1:-1], run.levels[1:-1])
    along = np.concatenate(([0.0], np.cumsum(changes.sum(axis=1))))
    return np.asarray(along / along[-1])


def travelled(run: Recorded) -> Array:
    """Length of x̂'s path so far, before every step, (S,): 0 to 1."""
    diagonal = np.diagonal(run.gram)
    squares = diagonal[1:] + diagonal[:-1] - 2.0 * np.diagonal(run.gram, 1)
    total = np.concatenate(([0.0], np.cumsum(np.sqrt(np.maximum(squares, 0.0)) * run.levels[1:-1])))
    return np.asarray(total / total[-1])


def quantile(share: Array, run: Recorded, at: float) -> float:
    """log(σ/(1 − σ)) where a never-falling share reaches ``at``."""
    return float(np.interp(at, np.maximum.accumulate(share), logit(run.levels[:-1])))


def distance(source: Recorded, target: Recorded, *, move: float) -> float:
    """Mean distance, over the target's steps, of its path of x̂ from the source's moved up by ``move`` on the axis log(σ/(1 − σ))."""
    moved = np.interp(-logit(target.levels[:-1]), -logit(source.levels[:-1]) - move, travelled(source))
    # Steps at noise levels that the source never saw say nothing about either.
    moved = (moved - moved[0]) / (moved[-1] - moved[0])
    return float(np.mean(np.abs(moved - travelled(target))))
