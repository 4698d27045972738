"""The sigma profile D(σ): output distance accumulated along a run, as a function of the noise level.

It needs no signal, is monotone by construction, and carries over to other step counts, where a plain polynomial of x may fail
outright: docs/transfer.md measures both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from easyteacache.policy.curves import SigmaProfile
from easyteacache.records.calibration import SigmaProfileRecord
from easyteacache.records.trace import Array
from easyteacache.records.trace_set import Trace

DIGITS = 9


@dataclass(frozen=True, eq=False)
class Profile:
    """A profile with its spread over runs.

    Attributes:
        sigmas: (N,) strictly falling noise levels, ending at 0.
        distances: (N,) accumulated output distance, non-decreasing from 0.
        spread: (N,) standard deviation over runs; 0 for a single run.
    """

    sigmas: Array
    distances: Array
    spread: Array

    def curve(self) -> SigmaProfile:
        """The runtime's object."""
        return SigmaProfile(tuple(self.sigmas.tolist()), tuple(self.distances.tolist()))

    def record(self) -> SigmaProfileRecord:
        """The form a calibration stores."""
        return SigmaProfileRecord(
            sigmas=tuple(self.sigmas.tolist()),
            distances=tuple(self.distances.tolist()),
            spread=tuple(self.spread.tolist()),
        )


def fit_profile(traces: Sequence[Trace]) -> Profile:
    """Mean accumulated output distance of ``traces`` (all branches) at every noise level that occurs in them.

    A run says nothing after its last forward; from there to σ = 0 its last slope is continued, so that a longer schedule, whose
    last forwards lie closer to 0, is not told that nothing changes there.
    """
    levels = np.unique(_rounded(np.concatenate([trace.sigmas[:-1] for trace in traces] + [np.zeros(1)])))[::-1]
    accumulated = np.stack([_accumulated(trace, levels) for trace in traces])
    mean = np.maximum.accumulate(accumulated.mean(axis=0) - accumulated.mean(axis=0)[0])
    spread = accumulated.std(axis=0, ddof=1) if len(traces) > 1 else np.zeros(len(levels))
    return Profile(levels, _rounded(mean), _rounded(spread))


def _accumulated(trace: Trace, levels: Array) -> Array:
    """D of one run, mean over branches, interpolated to ``levels`` (N,) descending: (N,)."""
    steps = np.mean([trace.output_distances[branch] for branch in trace.header.branches], axis=0)
    distance = np.concatenate(([0.0], np.cumsum(steps)))
    sigmas = trace.sigmas[:-1]
    slope = steps[-1] / (sigmas[-2] - sigmas[-1])
    sigmas, distance = np.append(sigmas, 0.0), np.append(distance, distance[-1] + slope * sigmas[-1])
    return np.asarray(np.interp(-levels, -sigmas, distance))


def _rounded(values: Array) -> Array:
    # What is stored is what was planned with: rounding later could move a threshold across a step.
    return np.array([float(f"{value:.{DIGITS}g}") for value in values.tolist()])
