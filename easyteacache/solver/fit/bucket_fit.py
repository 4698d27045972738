"""Fit one bucket: choose the curve's order and, among recorded signals, the one that held-out runs speak for.

Everything here is a function of the traces alone, so that validation can repeat it and must get the same numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import spearmanr

from easyteacache.errors import NotEnoughTraces, SignalMismatch
from easyteacache.records.calibration import TIMESTEP_SIGNALS, FitQuality
from easyteacache.records.trace_set import Trace
from easyteacache.solver.fit import crossvalidation, curves
from easyteacache.solver.fit.crossvalidation import Evidence
from easyteacache.solver.fit.curves import Fitted
from easyteacache.solver.fit.points import Points, gather
from easyteacache.solver.fit.sigma_profile import Profile, fit_profile

Method = Literal["monotone", "teacache", "auto"]
ORDERS = (1, 2, 3, 4, 5)
FEWEST_RUNS = 2
MOST_ROUNDING = 1e-9
# Below this share of explained variance even the best non-decreasing curve is no use: the signal is wrong for the model.
USEFUL_R2 = 0.1
# A signal known before the run starts is preferred unless another explains this much more (needs no tensor, no device wait).
PREFERENCE = 0.02


@dataclass(frozen=True)
class Candidate:
    """One curve that was tried, with what it gave on runs and on blocks of steps it had not seen."""

    fitted: Fitted
    over_runs: Evidence | None
    over_steps: Evidence | None

    @property
    def score(self) -> float:
        """Mean relative error of both kinds of evidence, lower is better."""
        errors = [evidence.relative_error for evidence in self._known]
        return sum(errors) / len(errors) if errors else float("inf")

    def noise_against(self, other: Candidate) -> float:
        """Standard error of the difference in ``score``, from the same left-out groups: less than this is noise."""
        pairs = list(zip(self._known, other._known, strict=True))
        variances = [float(np.var(np.subtract(a.errors, b.errors), ddof=1)) / len(a.errors) for a, b in pairs]
        return float(np.sqrt(sum(variances))) / len(pairs) if pairs else 0.0

    @property
    def _known(self) -> list[Evidence]:
        return [evidence for evidence in (self.over_runs, self.over_steps) if evidence is not None]


@dataclass(frozen=True, eq=False)
class BucketFit:
    """The fit of one bucket for one signal.

    Attributes:
        signal: what x is.
        chosen: the curve that is stored.
        quality: its evidence, as a record holds it.
        candidates: everything that was tried, the ceiling ``isotonic`` included.
        profile: the sigma profile of the same runs.
        points: the pairs.
    """

    signal: str
    chosen: Fitted
    quality: FitQuality
    candidates: tuple[Candidate, ...]
    profile: Profile
    points: Points

    @property
    def ceiling(self) -> float:
        """R² of the best non-decreasing curve on runs it had not seen."""
        best = next(c for c in self.candidates if c.fitted.form == "isotonic")
        return best.over_runs.r2 if best.over_runs else 0.0

    @property
    def explains(self) -> bool:
        """Whether any non-decreasing curve of this signal is worth storing."""
        return self.ceiling >= USEFUL_R2


def fit_bucket(
    traces: Sequence[Trace], signal: str, *, method: Method = "monotone", order: int | None = None, robust: bool = False
) -> BucketFit:
    """Fit one bucket's curve and profile.

    Args:
        traces: calibration runs of one sequence length, step count and shift, at least two.
        signal: one that all of them recorded.
        method: ``monotone`` (Bernstein, non-negative least squares), ``teacache`` (plain degree 4) or ``auto`` (whichever of
            monotone and unconstrained polynomials the held-out evidence prefers).
        order: fix the order instead of choosing it by cross-validation.
        robust: Huber weights instead of plain least squares.

    Raises:
        NotEnoughTraces: fewer than two runs.
        SignalMismatch: a run did not record the signal.
    """
    if len(traces) < FEWEST_RUNS:
        length = traces[0].header.sequence_length if traces else None
        raise NotEnoughTraces(sequence_length=length, runs=len(traces), needed=FEWEST_RUNS)
    points = gather(traces, signal)
    candidates = tuple(_candidates(points, method, order, robust))
    chosen = _choose(candidates, method)
    return BucketFit(signal, chosen.fitted, _quality(points, chosen), candidates, fit_profile(traces), points)


def best_signal(fits: Mapping[str, Sequence[BucketFit]]) -> str:
    """The signal with the highest held-out R² over buckets; one known before the run wins unless it loses clearly.

    Args:
        fits: signal → its fits, one per bucket.
    """

    def evidence(signal: str) -> float:
        values = [fit.quality.heldout_r2 for fit in fits[signal]]
        return float(np.mean([-np.inf if value is None else max(value, -1.0) for value in values]))

    def preferred(signal: str) -> tuple[float, str]:
        return evidence(signal) + (PREFERENCE if signal in TIMESTEP_SIGNALS else 0.0), signal

    return max(sorted(fits), key=preferred)


def signals_of(traces: Sequence[Trace]) -> tuple[str, ...]:
    """The signals that every run recorded, in the order of the first.

    Raises:
        SignalMismatch: there is none.
    """
    common = [s for s in traces[0].header.signals if all(s in trace.signal_distances for trace in traces)]
    if not common:
        raise SignalMismatch(
            "any", "none", "No signal was recorded by every run: solve the runs of one recording together."
        )
    return tuple(common)


def _candidates(points: Points, method: Method, order: int | None, robust: bool) -> list[Candidate]:
    orders = ORDERS if order is None else (order,)
    fits: list[crossvalidation.Fit] = [curves.isotonic, curves.power, curves.teacache]
    if method != "teacache":
        fits += [functools.partial(curves.monotone, order=n, robust=robust) for n in orders]
    if method == "auto":
        fits += [functools.partial(curves.chebyshev, order=n, robust=robust) for n in orders]
    return [
        Candidate(fit(points), crossvalidation.over_runs(points, fit), crossvalidation.over_steps(points, fit))
        for fit in fits
    ]


def _choose(candidates: Sequence[Candidate], method: Method) -> Candidate:
    forms = {"monotone": ("monotone",), "teacache": ("teacache",), "auto": ("monotone", "chebyshev")}[method]
    wanted = [c for c in candidates if c.fitted.form in forms]
    # A narrow domain far from 0 cancels digits when a high order is written in powers of x.
    usable = [c for c in wanted if c.fitted.rounding <= MOST_ROUNDING] or wanted[:1]
    best = min(usable, key=lambda c: c.score)
    # The lowest order that is not worse than the best by more than noise: a higher one has to earn its place.
    good = [c for c in usable if c.score - best.score <= c.noise_against(best)]
    return min(good, key=lambda c: (c.fitted.order, c.score))


def _quality(points: Points, chosen: Candidate) -> FitQuality:
    predicted = chosen.fitted.predict(points.x)
    r2, _ = crossvalidation.evidence(predicted, points.y)
    constant = np.ptp(predicted) == 0 or np.ptp(points.y) == 0
    rank = None if constant else float(spearmanr(predicted, points.y).statistic)
    heldout = chosen.over_runs
    return FitQuality(
        runs=points.runs,
        points=len(points),
        distinct_distances=points.distinct_distances,
        r2=six_digits(r2),
        heldout_r2=None if heldout is None else six_digits(heldout.r2),
        heldout_relative_error=None if heldout is None else six_digits(heldout.relative_error),
        rank_correlation=None if rank is None else six_digits(rank),
    )


def six_digits(value: float) -> float:
    """``value`` as records store it: to six significant digits."""
    return float(f"{value:.6g}")
