"""The solver's validator in the form that push and the check of submissions take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easyteacache.hub.review.check_submission import Judge
    from easyteacache.records.calibration import Calibration
    from easyteacache.records.trace_set import TraceSet
    from easyteacache.solver.validation.verdict import Finding, Report


def judge_of(heldout: Sequence[Path] = ()) -> Judge:
    """A judge: refit and held-out runs of the record's own traces, then the maintainers' own runs where there are any.

    Args:
        heldout: trace files or folders that submitters have not seen; runs of other models or settings are left out.
    """

    def judge(record: Calibration, traces: Sequence[Path], incumbent: Calibration | None) -> Report:
        from dataclasses import replace

        from easyteacache.errors import InvalidTrace
        from easyteacache.records.trace_set import TraceSet
        from easyteacache.solver.validation.validate import validate
        from easyteacache.solver.validation.verdict import Finding, Report

        try:
            report = validate(record, TraceSet.load(*traces), incumbent)
            own = TraceSet.load(*heldout) if heldout and report.passed else None
        except InvalidTrace as error:
            return Report(record.model_key, (Finding(error.rule, False, Path(error.where).name, message=error.reason),))
        if own is None:
            return report
        return replace(report, findings=(*report.findings, *_on_own_runs(record, own, incumbent)))

    return judge


def _on_own_runs(record: Calibration, own: TraceSet, incumbent: Calibration | None) -> list[Finding]:
    from dataclasses import replace

    from easyteacache.records.trace_set import TraceSet
    from easyteacache.solver.validation.points import judge_points

    runs = TraceSet(run for run in own if _key(run.header.model_key, run.header.part) == record.model_key)
    found: list[Finding] = []
    for bucket in record.buckets:
        group = runs.group(*runs.setting_of(bucket))
        if len(group):
            findings, _ = judge_points(record, bucket, group.runs, incumbent)
            # What the record states was measured on its own runs; other runs give another mean.
            judged = [finding for finding in findings if finding.rule != "point.misstated"]
            found += [replace(finding, where=f"maintainers' runs, {finding.where}") for finding in judged]
    return found


def _key(model_key: str, part: str | None) -> str:
    return "/".join(filter(None, (model_key, part)))
