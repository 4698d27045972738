"""How well one way of predicting output distances does on held-out runs: the judge behind tools/studies/transfer.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from easyteacache.records.trace_set import Trace
from easyteacache.solver.fit import crossvalidation, curves
from easyteacache.solver.fit.bucket_fit import fit_bucket
from easyteacache.solver.fit.points import gather
from easyteacache.solver.fit.sigma_profile import fit_profile
from easyteacache.solver.replay import gate_replay
from easyteacache.solver.replay.gate_replay import Schedule, Window
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.propagation import gains
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.replay.segment_objective import Objective
from easyteacache.solver.search.planner import computed_steps

Array = NDArray[np.float64]
Predict = Callable[[Trace], Array]
FILLINGS = {"hold": Filling("hold"), "linear": Filling("linear")}
ROUNDS = 18


class Judge:
    """Judges predictions on R held-out runs of one setting.

    Both branches of a run follow one plan, made from the mean of their predicted distances: replay is then exact about how
    their errors combine.
    """

    def __init__(self, traces: Sequence[Trace]) -> None:
        self.runs = Runs.stack(traces)
        growth = gains(self.runs.sigmas)
        self._objectives = {name: Objective(self.runs, filling, growth) for name, filling in FILLINGS.items()}
        self._known: dict[tuple[str, Schedule], Array] = {}

    def accuracy(self, predict: Predict) -> tuple[float, float]:
        """(R², mean absolute error / mean) of predicted output distances."""
        predicted = np.concatenate([predict(trace).ravel() for trace in self.runs.traces])
        return crossvalidation.evidence(predicted, np.concatenate([truth(t).ravel() for t in self.runs.traces]))

    def plans(self, predict: Predict, computed: int) -> list[Schedule]:
        """What a gate computes of each run at the lowest threshold at which they compute ``computed`` steps on average."""
        predicted = [followed(predict, trace) for trace in self.runs.traces]
        return drive(predicted, threshold_for(predicted, computed))

    def errors(self, plans: Sequence[Schedule], filling: str) -> Array:
        """Predicted error of the final sample of each run with its plan, (R,)."""
        for plan in set(plans):
            if (filling, plan) not in self._known:
                self._known[filling, plan] = self._objectives[filling].errors(plan)
        return np.array([self._known[filling, plan][run] for run, plan in enumerate(plans)])


def fit(traces: Sequence[Trace], kind: str, signal: str) -> Predict:
    """Fit one curve (or the sigma profile) to ``traces`` of any settings; gives (B, S − 1) predicted output distances."""
    if kind == "profile":
        profile = fit_profile(traces).curve()
        return lambda trace: np.array(list(gate_replay.from_profile(trace, profile).values()))
    if kind == "monotone":
        curve = fit_bucket(traces, signal).chosen
    else:
        curve = (curves.teacache if kind == "quartic" else curves.power)(gather(traces, signal))
    return lambda trace: np.stack([curve.predict(trace.signal_distances[signal][b]) for b in trace.header.branches])


def truth(trace: Trace) -> Array:
    """The output distances that the run itself recorded, (B, S − 1)."""
    return np.stack([trace.output_distances[branch] for branch in trace.header.branches])


def counts_near(num_steps: int, speedup: int) -> tuple[int, ...]:
    """Computed steps around a speed-up: a single count is at the mercy of where a threshold happens to fall."""
    count = computed_steps(num_steps, speedup)
    near = max(1, round(count / 10))
    return count - near, count, count + near


def followed(predict: Predict, trace: Trace) -> tuple[float, ...]:
    """What the gate of both branches follows: predicted distances of steps 1 … S − 1, mean over branches."""
    return tuple(predict(trace).mean(axis=0).tolist())


def drive(predictions: Sequence[tuple[float, ...]], threshold: float) -> list[Schedule]:
    """The steps that the runtime's gate computes of every run."""
    gate = Window().gate(threshold)
    known = {predicted: gate_replay.drive(gate, predicted) for predicted in set(predictions)}
    return [known[predicted] for predicted in predictions]


def threshold_for(predictions: Sequence[tuple[float, ...]], computed: int) -> float:
    """The lowest threshold at which the runs compute at most ``computed`` steps on average."""
    highest = 1.0 + 2.0 * max(float(np.sum(np.abs(predicted))) for predicted in predictions)

    def count(threshold: float) -> float:
        return float(np.mean([len(plan) for plan in drive(predictions, threshold)]))

    return gate_replay.bisect(count, computed, highest=highest, rounds=ROUNDS)
