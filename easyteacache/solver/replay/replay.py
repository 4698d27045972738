"""Replay a policy on recorded runs: the runtime's own gate and predictor, driven by traces instead of tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.bucket import FITTED, Bucket, OperatingPoint
from easyteacache.records.calibration import Calibration
from easyteacache.records.trace import Array
from easyteacache.records.trace_set import Trace
from easyteacache.solver.replay import gate_replay
from easyteacache.solver.replay.corrected import CorrectedTravel
from easyteacache.solver.replay.error_propagation import PlainTravel
from easyteacache.solver.replay.fitted_weights import StateFit, Weights
from easyteacache.solver.replay.gate_replay import Predictions, Schedule, Window
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.propagation import gains
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.replay.segment_objective import Objective

Decisions = Mapping[str, Schedule]


def policy_at(record: Calibration, bucket: Bucket, point: OperatingPoint | None = None) -> Policy:
    """What the runtime resolves for ``bucket``'s own setting, at one of its operating points.

    Args:
        record: the calibration.
        bucket: one of its buckets.
        point: None leaves the gate shut (threshold 0).
    """
    run = RunContext(sequence_length=bucket.sequence_length, num_steps=bucket.num_steps, shift=bucket.shift)
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
        self._gains = gains(runs.sigmas)
        self._objectives: dict[tuple[Filling, str | None], Objective] = {}
        self._travels: dict[Filling, PlainTravel] = {}
        self._fit: StateFit | None = None

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
        """Predicted error of every run's final sample, relative to how far the sampler moved the noise, (R,).

        Where the branches of a run compute different steps their errors are added up, which bounds the error of their
        combination: its Gram matrix knows only equal weights for all branches.
        """
        if filling.weights is not None:
            return self._weighted_errors(decided, filling, filling.weights)
        found = np.empty(len(self.runs))
        groups: dict[tuple[tuple[str, Schedule], ...], list[int]] = {}
        for position, branches in enumerate(decided):
            groups.setdefault(tuple(branches.items()), []).append(position)
        for plan, members in groups.items():
            found[members] = self._group_errors(dict(plan), filling)[members]
        return found

    def _weighted_errors(self, decided: list[Decisions], filling: Filling, weights: Weights) -> Array:
        """Of a schedule with weights, which is the same for every run and branch."""
        schedule = next(iter(decided[0].values()))
        if filling.forecaster == FITTED:
            self._fit = self._fit or StateFit(self.runs)
            return self._fit.errors_of(schedule, weights)
        return CorrectedTravel(self.runs, filling).errors(schedule, weights)

    def _group_errors(self, branches: Decisions, filling: Filling) -> Array:
        schedules = list(branches.values())
        if all(schedule == schedules[0] for schedule in schedules):
            return self._travel(filling).errors(schedules[0])
        total = np.zeros(len(self.runs))
        for branch, schedule in branches.items():
            objective = self._objective(filling, branch)
            share = np.array([abs(_share(trace, branch)) for trace in self.runs.traces])
            total += share * objective.errors(schedule) * objective.runs.displacement / self.runs.displacement
        return total

    def _travel(self, filling: Filling) -> PlainTravel:
        if filling not in self._travels:
            self._travels[filling] = PlainTravel(self.runs, filling)
        return self._travels[filling]

    def _objective(self, filling: Filling, branch: str | None) -> Objective:
        key = (filling, branch)
        if key not in self._objectives:
            runs = self.runs if branch is None else self.runs.of_branch(branch)
            self._objectives[key] = Objective(runs, filling, self._gains)
        return self._objectives[key]


def mean_computed(decided: list[Decisions]) -> float:
    """Mean number of computed steps over runs and branches."""
    return float(np.mean([len(schedule) for branches in decided for schedule in branches.values()]))


def _share(trace: Trace, branch: str) -> float:
    """How a branch enters the guided output v_uncond + g (v_cond − v_uncond)."""
    scale = trace.header.guidance_scale
    if scale is None or set(trace.header.branches) != {"cond", "uncond"}:
        return 1.0
    return scale if branch == "cond" else 1.0 - scale
