"""What a report shows of one bucket: refitted curves, frontiers of the usual predictors and baselines, distances along the run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from easyteacache.records.bucket import Bucket, OperatingPoint
from easyteacache.records.calibration import Calibration
from easyteacache.records.trace import Array
from easyteacache.records.trace_set import TraceSet
from easyteacache.runtime.predictors import families
from easyteacache.solver.fit import curves
from easyteacache.solver.fit.curves import Fitted
from easyteacache.solver.fit.options import FitOptions
from easyteacache.solver.fit.points import Points, gather
from easyteacache.solver.replay.baselines import fewer_steps
from easyteacache.solver.replay.gate_replay import Schedule
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.propagation import gains
from easyteacache.solver.replay.replay import Replay, filling_of, mean_computed, policy_at
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.replay.segment_objective import Objective
from easyteacache.solver.search import schedules
from easyteacache.solver.search.planner import SPEEDUPS, candidates, changes, computed_steps


@dataclass(frozen=True, eq=False)
class Frontier:
    """Error against speed-up of one way to sample.

    Attributes:
        name: predictor or baseline.
        computed: (N,) computed steps, falling.
        errors: (N,) mean error over held-out runs.
    """

    name: str
    computed: tuple[int, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Shown:
    """One operating point: what it computes and what that gives on held-out runs."""

    point: OperatingPoint
    computed: Schedule
    speedup: float
    error: float
    p90: float


@dataclass(frozen=True, eq=False)
class BucketEvidence:
    """Everything the report draws of one bucket.

    Attributes:
        bucket: the record's numbers.
        points: pairs of the record's signal, calibration runs.
        unseen: the same of held-out runs.
        others: curves for comparison: the paper's quartic, a power law, the best non-decreasing curve.
        frontiers: per predictor and baseline.
        shown: the operating points.
        distances: (R, S − 1) output distance of every run, mean over branches.
        signals: signal → (S − 1,) mean distance over runs and branches.
    """

    bucket: Bucket
    points: Points
    unseen: Points
    others: tuple[Fitted, ...]
    frontiers: tuple[Frontier, ...]
    shown: tuple[Shown, ...]
    distances: Array
    signals: dict[str, Array]


def collect(record: Calibration, bucket: Bucket, calibration: TraceSet, heldout: TraceSet) -> BucketEvidence:
    """Gather what the report shows of ``bucket``.

    Args:
        record: the calibration.
        bucket: one of its buckets.
        calibration: the bucket's runs that were fitted to.
        heldout: the bucket's other runs.
    """
    traces = [*calibration.runs, *heldout.runs]
    points = gather(calibration.runs, record.signal)
    robust = FitOptions.parse(record.provenance.tool_options, where="tool_options").robust
    others = (curves.teacache(points), curves.power(points), curves.isotonic(points))
    if record.provenance.tool_options and "teacache" in record.provenance.tool_options:
        others = (curves.monotone(points, 4, robust=robust), *others[1:])
    unseen = Runs.stack(heldout.runs)
    return BucketEvidence(
        bucket=bucket,
        points=points,
        unseen=gather(heldout.runs, record.signal),
        others=others,
        frontiers=tuple(frontiers(Runs.stack(calibration.runs), unseen)),
        shown=tuple(_shown(record, bucket, unseen)),
        distances=np.stack([np.mean([t.output_distances[b] for b in t.header.branches], axis=0) for t in traces]),
        signals={
            signal: np.mean([t.signal_distances[signal][b] for t in traces for b in t.header.branches], axis=0)
            for signal in traces[0].header.signals
            if all(signal in t.signal_distances for t in traces)
        },
    )


def frontiers(seen: Runs, unseen: Runs) -> list[Frontier]:
    """Error against speed-up on ``unseen`` of ``hold`` and every predictor that is worth sampling, with a schedule eliminated on ``seen``, and of two baselines.

    Each predictor is drawn with the axis and target that are best for it on ``seen``.
    """
    counts = sorted({computed_steps(seen.num_steps, target) for target in SPEEDUPS}, reverse=True)
    found = []
    for name in ("hold", *(name for family in families() for name in family.sampled)):
        filling = _best_filling(seen, name, counts)
        plans = schedules.eliminate(Objective(seen, filling, gains(seen.sigmas)), counts[-1])
        judge = Objective(unseen, filling, gains(unseen.sigmas))
        errors = tuple(float(judge.errors(plans[count]).mean()) for count in counts)
        found.append(Frontier(str(filling), tuple(counts), errors))
    replay = Replay(unseen)
    fewer = tuple(float(fewer_steps(replay, count).mean()) for count in counts)
    return [*found, Frontier("fewer steps", tuple(counts), fewer)]


def _best_filling(runs: Runs, name: str, counts: list[int]) -> Filling:
    plans = [schedules.equalised(changes(runs), count) for count in counts]

    def error(filling: Filling) -> float:
        objective = Objective(runs, filling, gains(runs.sigmas))
        return float(np.mean([np.log(objective.errors(plan)).mean() for plan in plans]))

    return min((filling for filling in candidates(runs) if filling.forecaster == name), key=error)


def _shown(record: Calibration, bucket: Bucket, unseen: Runs) -> list[Shown]:
    replay, found = Replay(unseen), []
    for point in bucket.operating_points:
        decided = replay.decide(policy_at(record, bucket, point))
        errors = replay.errors(decided, filling_of(point))
        speedup = unseen.num_steps / mean_computed(decided)
        first = next(iter(decided[0].values()))
        found.append(Shown(point, first, speedup, float(errors.mean()), float(np.percentile(errors, 90))))
    return found
