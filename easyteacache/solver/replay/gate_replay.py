"""What the runtime's own gate decides on a recorded run: thresholds become schedules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from easyteacache.policy.curves import Curve, SigmaProfile
from easyteacache.records.trace_set import Trace
from easyteacache.runtime.gate import Gate

Schedule = tuple[int, ...]
Predictions = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Window:
    """Where reuse is allowed; the fields are those of a bucket, ``last`` already counted from the start."""

    first: int = 1
    last: int | None = None
    max_consecutive_skips: int | None = None

    def gate(self, threshold: float) -> Gate:
        """The runtime's gate with this window."""
        return Gate(
            threshold=threshold, first=self.first, last=self.last, max_consecutive_skips=self.max_consecutive_skips
        )


def from_curve(trace: Trace, signal: str, curve: Curve) -> Predictions:
    """Predicted output distances of every branch: p of its recorded signal distances, S − 1 each."""
    return {b: [curve(x) for x in trace.signal_distances[signal][b].tolist()] for b in trace.header.branches}


def from_profile(trace: Trace, profile: SigmaProfile) -> Predictions:
    """Predicted output distances by noise level, the same for every branch; NaN beyond the levels the profile covers."""
    sigmas = trace.sigmas[:-1].tolist()
    steps = [profile.between(a, b) for a, b in itertools.pairwise(sigmas)]
    return dict.fromkeys(trace.header.branches, steps)


def from_truth(trace: Trace) -> Predictions:
    """The output distances that were recorded: what a perfect prediction would give."""
    return {b: trace.output_distances[b].tolist() for b in trace.header.branches}


def drive(gate: Gate, predicted: Sequence[float]) -> Schedule:
    """Drive a gate through one run.

    Args:
        gate: is reset first.
        predicted: output distance predicted for steps 1 … S − 1.

    Returns:
        The steps it computes, ascending.
    """
    gate.reset()
    computed = []
    for step in range(len(predicted) + 1):
        if gate.admits(step, _answer(predicted, step)):
            gate.reused(step)
        else:
            gate.computed(step)
            computed.append(step)
    return tuple(computed)


def _answer(predicted: Sequence[float], step: int) -> Callable[[], float]:
    return lambda: predicted[step - 1]


def bisect(mean_computed: Callable[[float], float], target: float, *, highest: float, rounds: int = 40) -> float:
    """The smallest threshold found at which at most ``target`` steps are computed.

    Args:
        mean_computed: mean number of computed steps at a threshold, falling (nearly) as it grows.
        target: computed steps to stay within.
        highest: a threshold that computes as few as any; returned when the target is out of reach.
        rounds: halvings of the interval.
    """
    low, high = 0.0, highest
    for _ in range(rounds):
        middle = 0.5 * (low + high)
        if mean_computed(middle) <= target:
            high = middle
        else:
            low = middle
    return high
