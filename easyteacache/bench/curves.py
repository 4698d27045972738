"""From measured cells to curves: the best a contender does within a budget, with intervals over pairs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from easyteacache.bench.contender import allowed
from easyteacache.bench.results import MEASURED, Cell, Results

OWN, HOLD, SAMPLER = "own", "hold", "sampler"
#: EasyTeaCache, and EasyTeaCache by a record whose plans were chosen by sampling.
OURS = (OWN, "own, measured")
RESAMPLES = 2000
WORST_SHARE = 0.1
_SEED = 0


@dataclass(frozen=True)
class Interval:
    """A mean over pairs with its bootstrap 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Standing:
    """One contender at one target: the best of its points that computed no more than allowed.

    Attributes:
        cell: that point.
        psnr: mean over pairs, decibels.
        worst: mean of the lowest tenth of the pairs, decibels.
        ssim: mean.
        right: pairs that show what was asked for, divided by pairs; None where nothing can tell.
        time: median over pairs of wall time divided by the uncached run's; None where none was timed beside it.
    """

    cell: Cell
    psnr: Interval
    worst: float
    ssim: float
    right: float | None
    time: float | None


@dataclass(frozen=True)
class Difference:
    """EasyTeaCache minus the best of some others on the same pairs, decibels.

    Attributes:
        against: which others, ``all others``, ``hold`` or ``sampler``.
        other: the best of them at this target.
        psnr: mean difference.
        worst: difference of the worst tenths.
    """

    against: str
    other: str
    psnr: Interval
    worst: float


def bootstrap(values: Sequence[float]) -> Interval:
    """Mean with the percentile interval of ``RESAMPLES`` bootstrap means, the same for the same values."""
    numbers = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(_SEED).integers(0, len(numbers), (RESAMPLES, len(numbers)))
    low, high = np.percentile(numbers[draws].mean(axis=1), (2.5, 97.5))
    return Interval(float(numbers.mean()), float(low), float(high))


def worst_tenth(values: Sequence[float]) -> float:
    """Mean of the lowest tenth, rounded up to whole pairs."""
    count = math.ceil(WORST_SHARE * len(values))
    return statistics.fmean(sorted(values)[:count])


def measured(results: Results, case: str) -> dict[str, list[Cell]]:
    """Contender → its measured points in a case, most computed first."""
    found: dict[str, list[Cell]] = {}
    for cell in results.cells:
        if cell.case == case and cell.state == MEASURED:
            found.setdefault(cell.contender, []).append(cell)
    return {name: sorted(cells, key=lambda cell: -cell.share) for name, cells in found.items()}


def best_within(cells: Iterable[Cell], target: float) -> Cell | None:
    """The point of highest mean PSNR among those that computed little enough for ``target``; None when there is none."""
    able = [cell for cell in cells if cell.share <= allowed(target)]
    return max(able, key=_mean_psnr, default=None)


def envelope(cells: Sequence[Cell]) -> list[tuple[float, float]]:
    """(speed-up, PSNR) with the best PSNR at no more computed work, speed-up ascending: a falling line."""
    found: list[tuple[float, float]] = []
    best = -math.inf
    for cell in sorted(cells, key=lambda cell: (cell.share, -_mean_psnr(cell))):
        value = _mean_psnr(cell)
        if value > best:
            best = value
            found.append((1.0 / cell.share, value))
    return found[::-1]


def standing(cells: Iterable[Cell], target: float) -> Standing | None:
    """How a contender stands at a target; None when none of its points computed so little."""
    cell = best_within(cells, target)
    if cell is None:
        return None
    right = [value for value in cell.pairs["right"] if value is not None]
    ratios = [value for value in cell.pairs["ratio"] if value is not None]
    return Standing(
        cell=cell,
        psnr=bootstrap(cell.pairs["psnr"]),
        worst=worst_tenth(cell.pairs["psnr"]),
        ssim=statistics.fmean(cell.pairs["ssim"]),
        right=statistics.fmean(map(float, right)) if right else None,
        time=statistics.median(ratios) if ratios else None,
    )


def differences(points: dict[str, list[Cell]], target: float) -> list[Difference]:
    """EasyTeaCache against the best of all others, of the hold-type caches, and of fewer steps, pair by pair."""
    own = next((cells for cells in points.values() if cells[0].kind == OWN), None)
    mine = None if own is None else best_within(own, target)
    if mine is None:
        return []
    groups = {
        "all others": [cells for cells in points.values() if cells[0].kind not in OURS],
        HOLD: [cells for cells in points.values() if cells[0].kind == HOLD],
        SAMPLER: [cells for cells in points.values() if cells[0].kind == SAMPLER],
    }
    found = []
    for against, group in groups.items():
        able = [cell for cells in group if (cell := best_within(cells, target)) is not None]
        if able:
            other = max(able, key=_mean_psnr)
            pairs = zip(mine.pairs["psnr"], other.pairs["psnr"], strict=True)
            worst = worst_tenth(mine.pairs["psnr"]) - worst_tenth(other.pairs["psnr"])
            found.append(Difference(against, other.contender, bootstrap([a - b for a, b in pairs]), worst))
    return found


def _mean_psnr(cell: Cell) -> float:
    return statistics.fmean(cell.pairs["psnr"])
