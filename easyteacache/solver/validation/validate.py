"""Judge a calibration: refit it from its traces, then replay it on runs it has not seen, against what it has to beat.

The split follows from the runs' content, so nobody can choose it; the limits stand in ``rules.TABLE``. The command line, CI and
push all call this.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from easyteacache.errors import InvalidCalibration, InvalidTrace, SignalMismatch
from easyteacache.policy.curves import Polynomial
from easyteacache.records import calibration as records
from easyteacache.records.bucket import Bucket
from easyteacache.records.calibration import Calibration
from easyteacache.records.trace_set import TraceSet, common_model, one_model
from easyteacache.solver.fit import bucket_fit
from easyteacache.solver.fit.bucket_fit import BucketFit
from easyteacache.solver.fit.options import FitOptions
from easyteacache.solver.fit.points import gather
from easyteacache.solver.validation.points import describe, judge_points
from easyteacache.solver.validation.rules import RULES
from easyteacache.solver.validation.verdict import Finding, Judged, Report

GRID = 401


def validate_files(
    path: str | os.PathLike[str],
    traces: Iterable[str | os.PathLike[str]],
    incumbent: str | os.PathLike[str] | None = None,
) -> Report:
    """Validate a calibration file against trace files or folders; unreadable ones are findings, not exceptions."""
    try:
        record = records.load(path)
        runs = TraceSet.load(*traces)
        other = None if incumbent is None else records.load(incumbent)
    except (InvalidCalibration, InvalidTrace) as error:
        return Report(None, (Finding(error.rule, False, Path(error.where).name or str(path), message=error.reason),))
    return validate(record, runs, other)


def validate(record: Calibration, traces: TraceSet, incumbent: Calibration | None = None) -> Report:
    """Validate a calibration against the runs it claims to come from.

    Args:
        record: the calibration.
        traces: all its runs, of both sides of the split.
        incumbent: the record it would replace.
    """
    findings = _admissible(record, traces)
    if not all(finding.passed for finding in findings):
        return Report(record.model_key, tuple(findings))
    calibration, heldout = traces.split_heldout()
    points: list[Judged] = []
    for bucket in record.buckets:
        setting = traces.setting_of(bucket)
        seen, unseen = calibration.group(*setting), heldout.group(*setting)
        findings += _judge_fit(record, bucket, seen)
        findings.append(_judge_ranks(record, bucket, unseen))
        more, judged = judge_points(record, bucket, unseen.runs, incumbent)
        findings += more
        points += judged
    return Report(record.model_key, tuple(findings), tuple(points), len(calibration), len(heldout))


def _admissible(record: Calibration, traces: TraceSet) -> list[Finding]:
    """What must hold before any number is looked at; stops where going on has no meaning."""
    findings = [
        _judge_method(record),
        _judge_options(record),
        _judge_model(record, traces),
        _judge_files(record, traces),
    ]
    if not all(finding.passed for finding in findings):
        return findings
    findings += _judge_settings(record, traces)
    if not all(finding.passed for finding in findings):
        return findings
    findings += _judge_split(traces)
    missing = [trace.label for trace in traces if record.signal not in trace.signal_distances]
    message = f"{record.signal!r} was not recorded by {len(missing)} runs, first the {missing[0]}" if missing else ""
    return [*findings, Finding("signal.absent", not missing, record.signal, message=message)]


def _judge_method(record: Calibration) -> Finding:
    good = record.method == "teacache" and record.signal != "unknown" and record.rescale_post == "none"
    message = (
        "" if good else f"method {record.method!r}, signal {record.signal!r}, rescale_post {record.rescale_post!r}"
    )
    return Finding("record.method", good, "record", message=message)


def _judge_options(record: Calibration) -> Finding:
    try:
        FitOptions.parse(record.provenance.tool_options, where="tool_options")
    except InvalidCalibration as error:
        return Finding("record.tool-options", False, "provenance", message=error.reason)
    return Finding("record.tool-options", True, "provenance")


def _judge_model(record: Calibration, traces: TraceSet) -> Finding:
    if not len(traces):
        return Finding("traces.bucket", False, "traces", message="there are no runs at all")
    try:
        one_model(traces)
    except InvalidTrace as error:
        return Finding(error.rule, False, "traces", message=error.reason)
    head = traces[0].header
    keys = {head.model_key, "/".join(filter(None, (head.model_key, head.part)))}
    if record.model_key not in keys:
        message = f"the runs are of {max(keys)!r}, the record is {record.model_key!r}"
        return Finding("traces.model-key", False, "traces", message=message)
    message = _other_model(record, traces)
    return Finding("traces.model", not message, "traces", message=message)


def _other_model(record: Calibration, traces: TraceSet) -> str:
    """Where the record names another model than the runs do; empty where it does not."""
    ran = common_model(traces)
    if record.model is None or ran is None:
        return ""
    pairs = ((name, getattr(record.model, name), getattr(ran, name)) for name in type(ran).model_fields)
    return ", ".join(
        f"{name}: the record says {said}, the runs say {found}"
        for name, said, found in pairs
        if said not in (None, ()) and found not in (None, ()) and said != found
    )


def _judge_files(record: Calibration, traces: TraceSet) -> Finding:
    named = {reference.sha256: reference.file for reference in record.provenance.traces}
    given = {reference.sha256: reference.file for reference in traces.files}
    message = ""
    if named and given and set(named) != set(given):
        absent = [f"{named[sha]} ({sha[:12]})" for sha in sorted(set(named) - set(given))]
        strange = [f"{given[sha]} ({sha[:12]})" for sha in sorted(set(given) - set(named))]
        message = f"named in the record but not given: {', '.join(absent) or 'none'}; given but not named: {', '.join(strange) or 'none'}"
    return Finding("traces.files", not message, "traces", message=message)


def _judge_settings(record: Calibration, traces: TraceSet) -> list[Finding]:
    found = []
    recorded = set(traces.settings())
    for bucket in record.buckets:
        setting = traces.setting_of(bucket)
        message = "" if setting in recorded else "no run of this setting"
        found.append(Finding("traces.bucket", not message, describe(bucket), message=message))
        if not message:
            found.append(_judge_sampler(bucket, traces.group(*setting)))
        recorded.discard(setting)
    for length, steps, shift, *sampler in sorted(recorded):
        message = "runs of a setting that the record has no bucket for"
        where = ", ".join((f"{length} tokens, {steps} steps, shift {shift:g}", *sampler))
        found.append(Finding("traces.bucket", False, where, message=message))
    return found


def _judge_sampler(bucket: Bucket, runs: TraceSet) -> Finding:
    sampler = runs[0].header.sampler
    message = ""
    if bucket.sampler is not None and sampler is not None and bucket.sampler.agrees(sampler) is False:
        message = f"the bucket says {bucket.sampler.name}, the runs were sampled otherwise, by {sampler.name}"
    return Finding("traces.sampler", not message, describe(bucket), message=message)


def _judge_split(traces: TraceSet) -> list[Finding]:
    findings = []
    for setting in traces.settings():
        group = traces.group(*setting)
        sides = group.split_heldout() if len(group) > 1 else (group, group[:0])
        where = ", ".join((f"{setting[0]} tokens, {setting[1]} steps, shift {setting[2]:g}", *setting[3:]))
        for rule, side in zip(("traces.calibration-runs", "traces.heldout-runs"), sides, strict=True):
            good = RULES[rule].holds(len(side))
            message = "" if good else f"{len(side)} runs, at least {RULES[rule].limit:g} are needed: record more"
            findings.append(Finding(rule, good, where, float(len(side)), message))
    pairs = traces.near_duplicates()
    message = f"the {pairs[0][0].label} and the {pairs[0][1].label} are one run" if pairs else ""
    return [*findings, Finding("traces.duplicate", not pairs, "traces", message=message)]


def _judge_fit(record: Calibration, bucket: Bucket, seen: TraceSet) -> list[Finding]:
    where = describe(bucket)
    options = FitOptions.parse(record.provenance.tool_options, where=where)
    fitted = _refit(seen, record.signal, options)
    difference = _curve_difference(bucket, fitted)
    findings = [_reproduced("fit.not-reproduced", where, difference)]
    if not findings[0].passed:
        owner = _owner(bucket, seen, record.signal, options)
        message = f"they are the fit of {owner!r}, the record says {record.signal!r}" if owner else ""
        findings.append(Finding("signal.mislabelled", owner is None, where, message=message))
    findings.append(_reproduced("fit.profile-not-reproduced", where, _profile_difference(bucket, fitted)))
    rule = RULES["signal.explains-nothing"]
    message = (
        ""
        if fitted.explains
        else f"{record.signal} explains {fitted.ceiling:.0%} of the output's change, whatever the curve"
    )
    findings.append(Finding(rule.id, rule.holds(fitted.ceiling), where, fitted.ceiling, message))
    return findings


def _reproduced(rule: str, where: str, difference: float) -> Finding:
    good = RULES[rule].holds(difference)
    message = "" if good else f"the refit differs by {difference:.3g} of its largest value; solve the traces again"
    return Finding(rule, good, where, difference, message)


def _refit(seen: TraceSet, signal: str, options: FitOptions) -> BucketFit:
    return bucket_fit.fit_bucket(seen.runs, signal, method=options.method, order=options.order, robust=options.robust)


def _owner(bucket: Bucket, seen: TraceSet, declared: str, options: FitOptions) -> str | None:
    """Another recorded signal whose fit these coefficients are."""
    rule = RULES["fit.not-reproduced"]
    for signal in bucket_fit.signals_of(seen.runs):
        if signal != declared and rule.holds(_curve_difference(bucket, _refit(seen, signal, options))):
            return signal
    return None


def _curve_difference(bucket: Bucket, fitted: BucketFit) -> float:
    """Largest difference of the two curves over both domains, relative to the refit's largest value."""
    stored, again = Polynomial(bucket.coefficients or (), domain=bucket.domain), fitted.chosen.curve()
    low, high = fitted.points.domain
    if bucket.domain is not None:
        low, high = min(low, bucket.domain[0]), max(high, bucket.domain[1])
    grid = np.linspace(low, high, GRID).tolist()
    ours = np.array([again(x) for x in grid])
    theirs = np.array([stored(x) for x in grid])
    return float(np.max(np.abs(ours - theirs)) / max(float(np.max(np.abs(ours))), np.finfo(float).tiny))


def _profile_difference(bucket: Bucket, fitted: BucketFit) -> float:
    if bucket.sigma_profile is None:
        return 0.0
    stored, again = bucket.sigma_profile, fitted.profile
    end = max(float(again.distances[-1]), np.finfo(float).tiny)
    curve = again.curve()
    differences = [abs(curve(s) - d) for s, d in zip(stored.sigmas, stored.distances, strict=True)]
    # A profile cut short would agree wherever it says anything.
    missing = abs(stored.sigmas[0] - again.sigmas[0]) + abs(stored.sigmas[-1] - again.sigmas[-1])
    return max(*differences, abs(end - stored.distances[-1])) / end + float(missing)


def _judge_ranks(record: Calibration, bucket: Bucket, unseen: TraceSet) -> Finding:
    rule = RULES["fit.rank-correlation"]
    try:
        points = gather(unseen.runs, record.signal)
    except SignalMismatch as error:
        return Finding(rule.id, False, describe(bucket), message=str(error))
    curve = Polynomial(bucket.coefficients or (), domain=bucket.domain)
    predicted = np.array([curve(x) for x in points.x.tolist()])
    constant = np.ptp(predicted) == 0 or np.ptp(points.y) == 0
    found = 0.0 if constant else float(spearmanr(predicted, points.y).statistic)
    message = "" if rule.holds(found) else f"{found:.2f}, at least {rule.limit:g} is needed"
    return Finding(rule.id, rule.holds(found), describe(bucket), found, message)
