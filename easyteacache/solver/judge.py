"""Operating points on held-out runs: are the stated errors true, and is each better than what needs no calibration?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from easyteacache.bucket import Bucket, OperatingPoint
from easyteacache.calibration import Calibration
from easyteacache.errors import EasyTeaCacheError
from easyteacache.policy import Policy, Setting, resolve
from easyteacache.solver import baselines
from easyteacache.solver.decisions import drive, from_truth
from easyteacache.solver.replay import Replay, filling_of, mean_computed, policy_at, window_of
from easyteacache.solver.rules import RULES
from easyteacache.solver.runs import Runs
from easyteacache.solver.verdict import Finding, Judged
from easyteacache.trace import Trace

Array = NDArray[np.float64]


def judge_points(
    record: Calibration, bucket: Bucket, unseen: Sequence[Trace], incumbent: Calibration | None = None
) -> tuple[list[Finding], list[Judged]]:
    """Judge every operating point of one bucket.

    Args:
        record: the calibration.
        bucket: one of its buckets.
        unseen: held-out runs of the bucket's setting.
        incumbent: the record it would replace.
    """
    replay = Replay(Runs.stack(unseen))
    findings: list[Finding] = []
    judged: list[Judged] = []
    agreements: list[float] = []
    for point in bucket.operating_points:
        policy = policy_at(record, bucket, point)
        decided = replay.decide(policy)
        computed = mean_computed(decided)
        errors = replay.errors(decided, filling_of(policy))
        others = _baselines(replay, policy, computed, incumbent)
        where = f"{bucket.sequence_length} tokens, {computed:.4g} of {replay.runs.num_steps} steps, {_gate(point)}"
        findings += _judge_errors(point, errors, where)
        findings += [_against(rule, errors, others[name], where) for rule, name in _contests(point) if name in others]
        if policy.schedule is None:
            agreements.append(agreement(replay, policy))
        judged.append(_judged(bucket, point, errors, computed, others, replay.runs.num_steps))
    if agreements:
        findings.append(_judge_agreement(float(np.mean(agreements)), f"{bucket.sequence_length} tokens"))
    return findings, judged


def agreement(replay: Replay, policy: Policy) -> float:
    """Share of steps (the first left out) on which a threshold decides as it would with the true output distances."""
    gate = window_of(policy).gate(policy.threshold)
    steps = replay.runs.num_steps
    shares = []
    for trace, decided in zip(replay.runs.traces, replay.decide(policy), strict=True):
        truth = from_truth(trace)
        for branch, computed in decided.items():
            different = set(computed) ^ set(drive(gate, truth[branch]))
            shares.append(1.0 - len(different) / (steps - 1))
    return float(np.mean(shares))


def _baselines(replay: Replay, policy: Policy, computed: float, incumbent: Calibration | None) -> dict[str, Array]:
    steps = max(1, round(computed))
    found = {
        "uniform": baselines.uniform(replay, steps, filling_of(policy)),
        "fewer steps": baselines.fewer_steps(replay, steps),
    }
    if all(policy.signal in trace.signal_distances for trace in replay.runs.traces):
        found["identity"] = baselines.identity(replay, policy, computed, filling_of(policy))
    other = None if incumbent is None else _incumbent(replay, incumbent, computed)
    if other is not None:
        found["incumbent"] = other
    return found


def _contests(point: OperatingPoint) -> list[tuple[str, str]]:
    contests = [
        ("point.worse-than-uniform", "uniform"),
        ("point.worse-than-fewer-steps", "fewer steps"),
        ("incumbent.better", "incumbent"),
    ]
    return contests if point.threshold is None else [*contests, ("point.worse-than-identity", "identity")]


def _incumbent(replay: Replay, incumbent: Calibration, computed: float) -> Array | None:
    """The incumbent's errors (R,) with at most as many computed steps; None where it says nothing about these runs."""
    head = replay.runs.traces[0].header
    try:
        setting = Setting(
            sequence_length=head.sequence_length, num_steps=head.num_steps, shift=head.shift, threshold=0.0
        )
        policy = resolve(incumbent, setting, allow_yanked=True)
        own = [b for b in incumbent.buckets if b.setting == (head.sequence_length, head.num_steps, head.shift or 0.0)]
        policies = [policy_at(incumbent, bucket, point) for bucket in own for point in bucket.operating_points]
        candidates = [(replay.decide(p), filling_of(p)) for p in policies]
        candidates = [(d, f) for d, f in candidates if mean_computed(d) <= computed]
        if policy.profile is not None or all(policy.signal in t.signal_distances for t in replay.runs.traces):
            candidates.append((baselines.at_equal_cost(replay, policy, computed), filling_of(policy)))
    except EasyTeaCacheError:
        return None
    errors = [replay.errors(decided, filling) for decided, filling in candidates]
    return min(errors, key=lambda values: float(np.log(values).mean()), default=None)


def _judge_errors(point: OperatingPoint, errors: Array, where: str) -> list[Finding]:
    mean = float(errors.mean())
    findings = []
    if point.error is not None:
        off = abs(point.error.mean - mean) / max(mean, np.finfo(float).tiny)
        good = RULES["point.misstated"].holds(off)
        message = "" if good else f"the record states an error of {point.error.mean:.4g}, held-out runs give {mean:.4g}"
        findings.append(Finding("point.misstated", good, where, off, message))
    good = RULES["point.inaccurate"].holds(mean)
    message = "" if good else f"a mean error of {mean:.3g}, at most {RULES['point.inaccurate'].limit:g} is let through"
    return [*findings, Finding("point.inaccurate", good, where, mean, message)]


def _against(rule: str, errors: Array, baseline: Array, where: str) -> Finding:
    ratio = float(np.exp(np.mean(np.log(errors) - np.log(baseline))))
    good = RULES[rule].holds(ratio)
    message = "" if good else f"{ratio:.3g} times its error, at most {RULES[rule].limit:g} times is let through"
    return Finding(rule, good, where, ratio, message)


def _judge_agreement(found: float, where: str) -> Finding:
    rule = RULES["gate.agreement"]
    message = "" if rule.holds(found) else f"{found:.0%} of the steps, at least {rule.limit:.0%} are needed"
    return Finding(rule.id, rule.holds(found), where, found, message)


def _judged(
    bucket: Bucket, point: OperatingPoint, errors: Array, computed: float, others: dict[str, Array], steps: int
) -> Judged:
    return Judged(
        where=f"{bucket.sequence_length} tokens, {steps} steps",
        gate=_gate(point),
        filling=str(filling_of(point)),
        computed=round(computed, 2),
        speedup=round(steps / computed, 3),
        error=float(errors.mean()),
        p90=float(np.percentile(errors, 90)),
        baselines={name: float(values.mean()) for name, values in others.items()},
    )


def _gate(point: OperatingPoint) -> str:
    return "schedule" if point.threshold is None else "threshold"
