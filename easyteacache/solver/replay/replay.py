"""Replay a policy on recorded runs: the runtime's own gate and predictor, driven by traces instead of tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.bucket import Bucket, OperatingPoint
from easyteacache.records.calibration import Calibration
from easyteacache.records.trace import Array
from easyteacache.records.trace_set import Trace
from easyteacache.solver.replay import gate_replay
from easyteacache.solver.replay.gate_replay import Predictions, Schedule, Window
from easyteacache.solver.replay.plan_errors import PlanErrors
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.runs import Runs

Decisions = Mapping[str, Schedule]


def policy_at(record: Calibration, bucket: Bucket, point: OperatingPoint | None = None) -> Policy:
    """What the runtime resolves for ``bucket``'s own setting, at one of its operating points.

    Args:
        record: the calibration.
        bucket: one of its buckets.
        point: None leaves the gate shut (threshold 0).
    """
    run = RunContext(
        sequence_length=bucket.sequence_length, num_steps=bucket.num_steps, shift=bucket.shift, sampler=bucket.sampler
    )
    policy = resolve(record, Request(threshold=0.0), run, allow_yanked=True)
    if point is None:
        return policy
    return dataclasses.replace(
        policy,
        threshold=point.threshold or 0.0,
        schedule=point.schedule,
        weights=point.weights,
        forecaster=point.forecaster,
        coordinate=point.coordinate,
        applied_to=point.applied_to,
        fitted_for=bucket.sampler if point.plan is not None and point.plan.corrected else None,
    )


def filling_of(policy: Policy | OperatingPoint) -> Filling:
    """What fills the reused steps of a policy or an operating point."""
    return Filling(policy.forecaster, policy.coordinate, policy.applied_to, policy.weights)  # type: ignore[arg-type]


def window_of(policy: Policy) -> Window:
    """Where a policy allows reuse."""
    return Window(policy.first_skip_step, policy.last_skip_step, policy.max_consecutive_skips)


class Replay:
    """Replays policies on the runs of one bucket; keeps what several replays share.

    Args:
        runs: R runs of S steps.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._plans = PlanErrors(runs)

    def predictions(self, policy: Policy, trace: Trace) -> Predictions:
        """Output distances that the runtime would predict on a run: by the profile where the policy has one."""
        if policy.profile is not None:
            return gate_replay.from_profile(trace, policy.profile)
        return gate_replay.from_curve(trace, policy.signal, policy.curve)

    def decide(self, policy: Policy) -> list[Decisions]:
        """The steps that each branch of each run computes."""
        if policy.schedule is not None:
            return [dict.fromkeys(trace.header.branches, policy.schedule) for trace in self.runs.traces]
        gate = window_of(policy).gate(policy.threshold)
        known: dict[tuple[float, ...], Schedule] = {}

        def drive(predicted: tuple[float, ...]) -> Schedule:
            if predicted not in known:
                known[predicted] = gate_replay.drive(gate, predicted)
            return known[predicted]

        return [
            {branch: drive(tuple(steps)) for branch, steps in self.predictions(policy, trace).items()}
            for trace in self.runs.traces
        ]

    def errors(self, decided: list[Decisions], filling: Filling) -> Array:
        """Predicted error of every run's final sample, relative to what the outputs make up of it, (R,).

        Args:
            decided: of every run the steps that each branch computes.
            filling: what fills reused steps.
        """
        found = np.empty(len(self.runs))
        groups: dict[tuple[tuple[str, Schedule], ...], list[int]] = {}
        for position, branches in enumerate(decided):
            groups.setdefault(tuple(branches.items()), []).append(position)
        for plan, members in groups.items():
            found[members] = self._plans.errors(dict(plan), filling)[members]
        return found


def mean_computed(decided: list[Decisions]) -> float:
    """Mean number of computed steps over runs and branches."""
    return float(np.mean([len(schedule) for branches in decided for schedule in branches.values()]))
