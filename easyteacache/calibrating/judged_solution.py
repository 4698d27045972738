"""Solve a calibration and judge it at once: what passes on held-out runs is a record, what does not is a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from easyteacache.records.bucket import Bucket, OperatingPoint
from easyteacache.records.calibration import Calibration
from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.search.measured import Measure, Progress
from easyteacache.solver.solve import Labels, solve
from easyteacache.solver.validation.points import judge_points
from easyteacache.solver.validation.validate import validate
from easyteacache.solver.validation.verdict import Report

#: Runs that a record takes at least: four to fit to, two held out (the solver's own rules).
FEWEST_RUNS = 6
# Rules of single operating points, and of all thresholds together.
_POINT, _GATE = "point.", "gate."


@dataclass(frozen=True)
class Judged:
    """What came of a solve.

    Attributes:
        record: ``validated`` where it passed, else the ``draft``.
        report: the verdict on it.
        left_out: operating points that did not pass and are not in it, in words.
    """

    record: Calibration
    report: Report
    left_out: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the record may be used."""
        return self.report.passed and any(bucket.operating_points for bucket in self.record.buckets)

    @property
    def reason(self) -> str:
        """Why it did not pass, a sentence; empty where it did."""
        failed = self.report.failures
        if failed:
            return "; ".join(f"{one.rule}: {one.where}: {one.message}" for one in failed[:3])
        return "" if self.passed else "no operating point passed on held-out runs"


def solved_and_judged(
    traces: TraceSet,
    labels: Labels,
    *,
    measure: Measure | None = None,
    progress: Progress = lambda _: None,
) -> Judged:
    """Solve ``traces`` and judge the record on its held-out runs.

    Operating points that do not pass are left out, and what is left is judged again: a plan that did badly on runs it had not seen is
    no reason against another one that did well.

    Args:
        traces: of one model (one expert of it), every run from a file.
        labels: what the record says beside its numbers.
        measure: samples plans with the model itself.
        progress: told about every stage.

    Raises:
        InvalidTrace, InvalidCalibration, NotEnoughTraces, SignalMismatch: as ``solve``.
    """
    record = solve(traces, labels=labels, measure=measure, progress=progress).calibration
    progress("judging on held-out runs")
    report = validate(record, traces)
    left_out: list[str] = []
    if any(finding.rule.startswith(_POINT) for finding in report.failures):
        _, heldout = traces.split_heldout()
        record = _keeping(record, lambda bucket, point: _passes(record, bucket, point, heldout), left_out)
        report = validate(record, traces)
    if report.failures and all(finding.rule.startswith(_GATE) for finding in report.failures):
        # Plans do well without the gate that thresholds need.
        record = _keeping(record, lambda _, point: point.threshold is None, left_out)
        report = validate(record, traces)
    if not report.passed:
        return Judged(record, report, tuple(left_out))
    content = record.model_copy(update={"status": "validated"}).to_json()
    # Through the constructor, so that the record's own rules for this status apply.
    return Judged(Calibration.from_json(content, where=record.model_key), report, tuple(left_out))


def _keeping(record: Calibration, good: Callable[[Bucket, OperatingPoint], bool], left_out: list[str]) -> Calibration:
    """The record with the points that are good; ``left_out`` gets the others in words."""
    buckets = []
    for bucket in record.buckets:
        kept = tuple(point for point in bucket.operating_points if good(bucket, point))
        left_out += [
            f"{bucket.sequence_length} tokens, {point.computed_steps} of {bucket.num_steps} steps, {point.forecaster}"
            for point in bucket.operating_points
            if point not in kept
        ]
        buckets.append(bucket.model_copy(update={"operating_points": kept}))
    return record.model_copy(update={"buckets": tuple(buckets)})


def _passes(record: Calibration, bucket: Bucket, point: OperatingPoint, heldout: TraceSet) -> bool:
    unseen = heldout.group(bucket.sequence_length, bucket.num_steps, bucket.shift or 0.0)
    findings, _ = judge_points(record, bucket.model_copy(update={"operating_points": (point,)}), unseen.runs)
    return all(finding.passed for finding in findings if finding.rule.startswith(_POINT))
