"""What a calibration has to beat, at the same number of computed steps."""

from __future__ import annotations

import dataclasses

import numpy as np

from easyteacache.policy.curves import Polynomial
from easyteacache.policy.policy import Policy
from easyteacache.records.trace import Array
from easyteacache.runtime.predictors import families
from easyteacache.runtime.sampler_steps import SamplerSteps
from easyteacache.solver.replay import gate_replay
from easyteacache.solver.replay.predictor_rows import Filling, Target
from easyteacache.solver.replay.replay import Decisions, Replay, mean_computed
from easyteacache.solver.search import schedules

IDENTITY = Polynomial((1.0, 0.0))
# Bisection of a threshold that every run and branch answers differently, to a four-thousandth of what a run adds up to.
ROUNDS = 12


def fixed(replay: Replay, computed: tuple[int, ...], filling: Filling) -> Array:
    """Errors (R,) of one fixed schedule."""
    return replay.errors([dict.fromkeys(trace.header.branches, computed) for trace in replay.runs.traces], filling)


def uniform(replay: Replay, computed: int, filling: Filling) -> Array:
    """Errors (R,) of evenly spaced computed steps with the same filling: what needs no calibration at all.

    Weights are a calibration: there it is the best of the forecasts that need none.
    """
    steps = schedules.uniform(replay.runs.num_steps, computed)
    if filling.weights is None:
        return fixed(replay, steps, filling)
    found = [
        fixed(replay, steps, Filling(name, "step", filling.applied_to))
        for family in families()
        for name in family.searched()
        if filling.applied_to in family.places
    ]
    return min(found, key=lambda errors: float(np.log(errors).mean()))


def fewer_steps(replay: Replay, computed: int) -> Array:
    """Errors (R,) of simply sampling with ``computed`` steps of the same sampler.

    From the traces: a coarse Euler step keeps one output over several fine ones, that is, it holds the model's output on a
    uniform subset of the noise levels (teacher forced, like every replay); a multistep sampler continues the last two outputs, and
    the better of both stands for it. Where the traces lack the output, its residual.
    """
    target: Target = "output" if replay.runs.output is not None else "residual"
    held = uniform(replay, computed, Filling("hold", "step", target))
    steps = SamplerSteps.of(replay.runs.map)
    if steps is not None and steps.memory == 1:
        return held
    continued = uniform(replay, computed, Filling("linear", "step", target))
    return min(held, continued, key=lambda errors: float(np.log(errors).mean()))


def identity(replay: Replay, policy: Policy, computed: float, filling: Filling) -> Array:
    """Errors (R,) of a gate without any fit, p(x) = x, at the threshold that computes as many steps."""
    bare = dataclasses.replace(policy, curve=IDENTITY, profile=None, schedule=None)
    return replay.errors(at_equal_cost(replay, bare, computed), filling)


def at_equal_cost(replay: Replay, policy: Policy, computed: float) -> list[Decisions]:
    """What a policy's gate decides at the threshold whose mean number of computed steps comes down to ``computed``."""

    def count(threshold: float) -> float:
        return mean_computed(replay.decide(dataclasses.replace(policy, threshold=threshold)))

    # Above what a run adds up to nothing but its first step is computed.
    highest = 1e-9 + 1.01 * max(
        sum(steps) for trace in replay.runs.traces for steps in replay.predictions(policy, trace).values()
    )
    threshold = gate_replay.bisect(count, computed, highest=highest, rounds=ROUNDS)
    return replay.decide(dataclasses.replace(policy, threshold=threshold))
