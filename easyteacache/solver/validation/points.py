"""Operating points on held-out runs: are the stated errors true, and is each better than what needs no calibration?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from easyteacache.errors import EasyTeaCacheError
from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.bucket import Bucket, OperatingPoint
from easyteacache.records.calibration import Calibration
from easyteacache.records.sampler import EULER
from easyteacache.records.trace import Array
from easyteacache.records.trace_set import Trace
from easyteacache.solver.replay import baselines
from easyteacache.solver.replay.gate_replay import drive, from_truth
from easyteacache.solver.replay.replay import Replay, filling_of, mean_computed, policy_at, window_of
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.validation.error_statistics import ninetieth
from easyteacache.solver.validation.rules import RULES
from easyteacache.solver.validation.verdict import Finding, Judged


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
    trials = [_try(replay, record, bucket, point, incumbent) for point in bucket.operating_points]
    findings = [finding for trial in trials for finding in _judge_errors(trial)]
    findings += [_against("point.worse-than-uniform", trial, "uniform") for trial in trials]
    findings += [_against("point.worse-than-fewer-steps", trial, "fewer steps") for trial in trials]
    findings += [
        _against("incumbent.better", trial, "incumbent") for trial in _best(trials) if "incumbent" in trial.baselines
    ]
    findings += _judge_gate(replay, [trial for trial in trials if trial.policy.schedule is None], bucket)
    return findings, [trial.judged() for trial in trials]


def describe(bucket: Bucket) -> str:
    """A bucket as findings name it."""
    shift = "" if bucket.shift is None else f", shift {bucket.shift:g}"
    sampler = "" if bucket.sampler is None or bucket.sampler.name == EULER else f", {bucket.sampler.name}"
    return f"{bucket.sequence_length} tokens, {bucket.num_steps} steps{shift}{sampler}"


@dataclass(frozen=True, eq=False)
class _Trial:
    """One operating point and its baselines, replayed: errors (R,) of the held-out runs."""

    setting: str
    point: OperatingPoint
    policy: Policy
    computed: float
    num_steps: int
    errors: Array
    baselines: dict[str, Array]

    @property
    def where(self) -> str:
        length = self.policy.sequence_length
        return f"{length} tokens, {self.computed:.4g} of {self.num_steps} steps, {self.gate}"

    @property
    def gate(self) -> str:
        return "threshold" if self.policy.schedule is None else "schedule"

    def ratio(self, baseline: str) -> float:
        """Geometric mean over runs of the error relative to a baseline's."""
        return float(np.exp(np.mean(np.log(self.errors) - np.log(self.baselines[baseline]))))

    def judged(self) -> Judged:
        return Judged(
            where=self.setting,
            gate=self.gate,
            filling=str(filling_of(self.policy)),
            computed=round(self.computed, 2),
            speedup=round(self.num_steps / self.computed, 3),
            error=float(self.errors.mean()),
            p90=ninetieth(self.errors),
            baselines={name: float(values.mean()) for name, values in self.baselines.items()},
        )


def _try(
    replay: Replay, record: Calibration, bucket: Bucket, point: OperatingPoint, incumbent: Calibration | None
) -> _Trial:
    policy = policy_at(record, bucket, point)
    decided = replay.decide(policy)
    computed = mean_computed(decided)
    errors = replay.errors(decided, filling_of(policy))
    others = _baselines(replay, policy, computed, incumbent)
    return _Trial(describe(bucket), point, policy, computed, replay.runs.num_steps, errors, others)


def _best(trials: Sequence[_Trial]) -> list[_Trial]:
    """The better operating point of every number of computed steps: what a user who asks for a speed-up is given."""
    best: dict[int, _Trial] = {}
    for trial in trials:
        count = round(trial.computed)
        if count not in best or trial.errors.mean() < best[count].errors.mean():
            best[count] = trial
    return list(best.values())


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
    if policy.weights is None and all(policy.signal in trace.signal_distances for trace in replay.runs.traces):
        found["identity"] = baselines.identity(replay, policy, computed, filling_of(policy))
    other = None if incumbent is None else _incumbent(replay, incumbent, computed)
    if other is not None:
        found["incumbent"] = other
    return found


def _incumbent(replay: Replay, incumbent: Calibration, computed: float) -> Array | None:
    """The incumbent's errors (R,) with at most as many computed steps; None where it says nothing about these runs."""
    head = replay.runs.traces[0].header
    try:
        run = RunContext(
            sequence_length=head.sequence_length, num_steps=head.num_steps, shift=head.shift, sampler=head.sampler
        )
        policy = resolve(incumbent, Request(threshold=0.0), run, allow_yanked=True)
        own = [b for b in incumbent.buckets if b.setting == (head.sequence_length, head.num_steps, head.shift or 0.0)]
        own = [
            b for b in own if b.sampler is None or head.sampler is None or b.sampler.agrees(head.sampler) is not False
        ]
        policies = [policy_at(incumbent, bucket, point) for bucket in own for point in bucket.operating_points]
        candidates = [(replay.decide(p), filling_of(p)) for p in policies]
        candidates = [(d, f) for d, f in candidates if mean_computed(d) <= computed]
        if policy.profile is not None or all(policy.signal in t.signal_distances for t in replay.runs.traces):
            bare = dataclasses.replace(policy, schedule=None)
            candidates.append((baselines.at_equal_cost(replay, bare, computed), filling_of(bare)))
    except EasyTeaCacheError:
        return None
    errors = [replay.errors(decided, filling) for decided, filling in candidates]
    return min(errors, key=lambda values: float(np.log(values).mean()), default=None)


def _judge_errors(trial: _Trial) -> list[Finding]:
    mean = float(trial.errors.mean())
    findings = []
    given = {
        "mean": mean,
        "median": float(np.percentile(trial.errors, 50)),
        "90th percentile": ninetieth(trial.errors),
        "largest": float(trial.errors.max()),
    }
    # What others found on prompts of their own, these runs cannot repeat.
    for stated in (one.error for one in trial.point.evidence if one.kind == "submitted" and one.error is not None):
        pairs = zip(given.items(), (stated.mean, stated.p50, stated.p90, stated.worst), strict=True)
        known = [(name, value, found) for (name, found), value in pairs if value is not None]
        offs = [abs(value - found) / max(found, np.finfo(float).tiny) for _, value, found in known]
        off = max(offs)
        name, value, found = known[offs.index(off)]
        good = RULES["point.misstated"].holds(off)
        message = "" if good else f"the record states a {name} error of {value:.4g}, held-out runs give {found:.4g}"
        findings.append(Finding("point.misstated", good, trial.where, off, message))
    rule = RULES["point.inaccurate"]
    message = "" if rule.holds(mean) else f"a mean error of {mean:.3g}, at most {rule.limit:g} is let through"
    return [*findings, Finding(rule.id, rule.holds(mean), trial.where, mean, message)]


def _against(rule: str, trial: _Trial, baseline: str) -> Finding:
    ratio = trial.ratio(baseline)
    good = RULES[rule].holds(ratio)
    message = "" if good else f"{ratio:.3g} times its error, at most {RULES[rule].limit:g} times is let through"
    return Finding(rule, good, trial.where, ratio, message)


def _judge_gate(replay: Replay, thresholds: Sequence[_Trial], bucket: Bucket) -> list[Finding]:
    """The gate as a whole, over all its thresholds: each moves by whole steps, so a single one proves little."""
    if not thresholds:
        return []
    where = f"{bucket.sequence_length} tokens, {len(thresholds)} thresholds"
    rule = RULES["gate.agreement"]
    share = float(np.mean([agreement(replay, trial.policy) for trial in thresholds]))
    message = "" if rule.holds(share) else f"{share:.0%} of the steps, at least {rule.limit:.0%} are needed"
    findings = [Finding(rule.id, rule.holds(share), where, share, message)]
    if all("identity" in trial.baselines for trial in thresholds):
        rule = RULES["gate.worse-than-identity"]
        ratio = float(np.exp(np.mean([np.log(trial.ratio("identity")) for trial in thresholds])))
        message = (
            "" if rule.holds(ratio) else f"{ratio:.3g} times its error, at most {rule.limit:g} times is let through"
        )
        findings.append(Finding(rule.id, rule.holds(ratio), where, ratio, message))
    return findings
