"""What a record promises of one of its plans, and what a run recorded in full says of that."""

from __future__ import annotations

from easyteacache.policy.policy import Policy
from easyteacache.records.calibration import Calibration
from easyteacache.records.evidence import ErrorStatistics
from easyteacache.records.trace_set import Trace
from easyteacache.solver.replay.replay import Replay, filling_of
from easyteacache.solver.replay.runs import Runs

#: A run drifts when its error is beyond so many times the worst that was promised. Errors of single samples differ by a factor of
#: two and more (docs/solver.md), so that less would be chance: one run in three is beyond the worst of two.
DRIFT = 2.0


def error_of(policy: Policy, trace: Trace) -> float:
    """Error of the final sample that ``policy`` would have given in a recorded run, relative L2, by replay."""
    replay = Replay(Runs.stack([trace]))
    return float(replay.errors(replay.decide(policy), filling_of(policy))[0])


def promised(record: Calibration, policy: Policy) -> ErrorStatistics | None:
    """What ``record`` says of the operating point that ``policy`` applies; None where it is none of its own."""
    for bucket in record.buckets:
        for point in bucket.operating_points:
            same_gate = (
                point.threshold == policy.threshold if policy.schedule is None else point.schedule == policy.schedule
            )
            if same_gate and point.weights == policy.weights and point.forecaster == policy.forecaster:
                return point.error
    return None


def upper(error: ErrorStatistics) -> float:
    """The largest error that was seen when a point was judged."""
    return next(value for value in (error.worst, error.p90, error.mean) if value is not None)


def drifted(found: float, error: ErrorStatistics) -> bool:
    """Is an error of a run beyond what chance would put beside ``error``?"""
    return found > DRIFT * upper(error)
