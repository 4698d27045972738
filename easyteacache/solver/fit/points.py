"""What a fit sees of a set of runs: pairs (signal distance, output distance), each with the run and step it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from easyteacache.errors import SignalMismatch
from easyteacache.records.trace import Array
from easyteacache.records.trace_set import Trace

Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Points:
    """N pairs; a pair belongs to the step it arrives at.

    Attributes:
        x: (N,) signal distances, 0 or more.
        y: (N,) output distances, 0 or more.
        run: (N,) position of the run each pair comes from.
        step: (N,) step each pair arrives at, 1 … S − 1.
    """

    x: Array
    y: Array
    run: Indices
    step: Indices

    def __len__(self) -> int:
        return len(self.x)

    @property
    def runs(self) -> int:
        """Runs the pairs come from: the independent observations, however many pairs each gives."""
        return len(np.unique(self.run))

    @property
    def distinct_distances(self) -> int:
        """Different signal distances among the pairs; for a timestep-only signal one per step, however many runs."""
        return len(np.unique(np.round(self.x, 9)))

    @property
    def domain(self) -> tuple[float, float]:
        """[x_min, x_max], widened where all distances are equal, because a domain has a width."""
        low, high = float(self.x.min()), float(self.x.max())
        return (low, high) if high > low else (low, low + max(1e-12, 1e-6 * low))

    def take(self, mask: NDArray[np.bool_]) -> Points:
        """The pairs where ``mask`` (N,) is true."""
        return Points(self.x[mask], self.y[mask], self.run[mask], self.step[mask])


def gather(traces: Sequence[Trace], signal: str) -> Points:
    """All pairs of ``signal`` over every branch of ``traces``.

    Raises:
        SignalMismatch: a run did not record this signal.
    """
    x, y, run, step = [], [], [], []
    for position, trace in enumerate(traces):
        if signal not in trace.signal_distances:
            recorded = ", ".join(trace.header.signals)
            raise SignalMismatch(
                signal, recorded, f"The traces hold {recorded}: record this signal too, or solve for one of them."
            )
        for branch in trace.header.branches:
            x.append(trace.signal_distances[signal][branch])
            y.append(trace.output_distances[branch])
            run.append(np.full(trace.num_steps - 1, position, dtype=np.intp))
            step.append(np.arange(1, trace.num_steps, dtype=np.intp))
    return Points(np.concatenate(x), np.concatenate(y), np.concatenate(run), np.concatenate(step))
