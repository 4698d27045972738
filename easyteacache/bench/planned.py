"""Methods that fix a plan before the run, by their published planners and rules on the traces that everybody is given.

None of them is on PyPI as a package that runs on a CPU: SGLang, which has DPCache and Spectrum, needs a GPU; MeanCache, L2P and LeMiCa
are scripts for single large models. ``tests/bench/test_planners.py`` holds their recurrences, written out from the sources.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from easyteacache.bench import planners
from easyteacache.bench.contender import Bed, Calibrated, Contender, Kind, Settings, most_steps
from easyteacache.bench.scheduled import plain_policy, recorded_runs
from easyteacache.bench.subject import Pair
from easyteacache.errors import BenchError
from easyteacache.integrations.diffusers import scheduler_facts
from easyteacache.policy.methods.intervals import spectrum_schedule
from easyteacache.policy.methods.l2p import l2p_rows
from easyteacache.policy.methods.meancache import meancache_rows, spans_of_edges
from easyteacache.policy.methods.rows import Rows
from easyteacache.policy.methods.spectrum import spectrum_rows
from easyteacache.records.plan import FITTED
from easyteacache.records.trace import FEATURE_PREFIX, GUIDED, OUTPUT_PREFIX, Array, Trace
from easyteacache.teacache import TeaCache

Computed = tuple[int, ...]
Levels = tuple[float, ...]


class Planned(Contender):
    """A schedule and what fills it, both known before the run."""

    family = "published rule"
    kind: Kind = "forecast"
    packages = ()
    #: What reused steps are made of, as a record says it.
    applied_to = "residual"

    def inapplicable(self, bed: Bed) -> str | None:
        """One transformer alone."""
        return "the pipeline has two transformers" if len(bed.subject.transformers) > 1 else None

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """As many steps as a target allows."""
        return tuple({"computed": count} for count in counts(bed))

    def piloted(self) -> bool:
        """Its planner chose."""
        return False

    @abstractmethod
    def plan(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> tuple[Computed, Rows | str]:
        """The computed steps, and the rows of weights or the predictor that fills the others."""

    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> contextlib.AbstractContextManager[Any]:
        """Attached inside the block."""
        computed, filled = self.plan(bed, settings, calibrated)
        fill: dict[str, Any] = (
            {"forecaster": filled}
            if isinstance(filled, str)
            else {"forecaster": FITTED, "weights": filled, "corrected": False}
        )
        policy = plain_policy(bed, schedule=computed, applied_to=self.applied_to, threshold=0.0, **fill)
        return TeaCache.from_policy(policy).attached(bed.subject.pipe)


class DPCache(Planned):
    """DPCache (arXiv 2602.22654), as SGLang plans and fills it: exact over pairs of computed steps, a straight line of the feature."""

    name = "DPCache"
    applied_to = "feature"
    note = "distances of its planner are norms, which traces hold, instead of mean absolute values"

    def calibrate(self, bed: Bed) -> Calibrated:
        """Plan every budget."""
        errors = planners.extrapolation_errors(_grams(bed, FEATURE_PREFIX))
        return {"plans": {str(count): planners.dpcache_schedule(errors, count) for count in counts(bed)}}

    def plan(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> tuple[Computed, Rows | str]:
        """What its planner found."""
        return tuple(calibrated["plans"][str(settings["computed"])]), "linear"


class MeanCache(Planned):
    """MeanCache (arXiv 2601.19961): forecasts of the mean velocity, on a peak-suppressed shortest path over its own errors."""

    name = "MeanCache"
    applied_to = "output"
    #: Powers of an edge's cost; 1 does not suppress peaks, the paper's are 4 and 5.
    peaks = (1.0, 2.0, 4.0)
    longest = 16
    note = "the power of an edge's cost is chosen by the pilot; its scripts print plans of single models and no planner"

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """Every power at every budget."""
        return tuple({"computed": count, "peak": peak} for count in counts(bed) for peak in self.peaks)

    def piloted(self) -> bool:
        """The pilot chooses the power."""
        return True

    def calibrate(self, bed: Bed) -> Calibrated:
        """Measure the edges on the traces, and plan every variant."""
        levels = levels_of(bed)
        edges = planners.meancache_edges(_guided(bed), levels, self.longest)
        costs, found = {edge: cost for edge, (cost, _) in edges.items()}, {}
        for settings in self.variants(bed):
            path = planners.shortest_path(costs, bed.case.steps, settings["computed"], peak=settings["peak"])
            if path is None:
                raise BenchError(
                    f"no path computes {settings['computed']} steps with at most {self.longest} between two"
                )
            ends = (*path[1:], bed.case.steps)
            spans = [edges[edge][1] for edge in zip(path, ends, strict=True)]
            found[_key(settings)] = {"computed": list(path), "spans": spans}
        return {"plans": found}

    def plan(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> tuple[Computed, Rows | str]:
        """Its rows over the noise levels of the run."""
        plan, steps = calibrated["plans"][_key(settings)], bed.case.steps
        computed = tuple(plan["computed"])
        # The end of the run closes the last edge.
        spans = spans_of_edges((*computed, steps), plan["spans"])
        return computed, meancache_rows(computed, steps, levels_of(bed), spans)


class L2P(Planned):
    """L2P (arXiv 2604.26365): learned weights of all outputs so far, forecasts included."""

    name = "L2P"
    applied_to = "output"
    #: Steps computed before the others, and how these are spaced: 1 evenly, above it with growing gaps. The schedules that are printed
    #: compute 0, 1, 2 and 4, and then with gaps that grow at first.
    warm_ups, growths = (3, 8, 12, 16), (1.0, 1.5)
    note = "its schedules are printed for 6 to 11 of 50 steps alone: warm-up and growth of the gaps are chosen by the pilot"

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """Every warm-up and growth at every budget."""
        return tuple(
            {"computed": count, "warmup": warm_up, "growth": growth}
            for count in counts(bed)
            for warm_up in self.warm_ups
            for growth in self.growths
            if warm_up < count
        )

    def piloted(self) -> bool:
        """The pilot chooses both."""
        return True

    def calibrate(self, bed: Bed) -> Calibrated:
        """Train the matrix, one for all branches."""
        return {"matrix": planners.l2p_matrix(_grams(bed, OUTPUT_PREFIX)).tolist()}

    def plan(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> tuple[Computed, Rows | str]:
        """Its rows for a warm-up and what follows it."""
        warm_up, steps = settings["warmup"], bed.case.steps
        after = settings["computed"] - warm_up
        shares = [((place + 1) / (after + 1)) ** settings["growth"] for place in range(after)]
        spaced = {min(warm_up + round(share * (steps - warm_up)), steps - 1) for share in shares}
        computed = (*range(warm_up), *sorted(spaced - set(range(warm_up))))
        return computed, l2p_rows(computed, steps, calibrated["matrix"])


class Spectrum(Planned):
    """Spectrum (arXiv 2603.01623): Chebyshev polynomials of the feature, on a window that grows with every computed step."""

    name = "Spectrum"
    applied_to = "feature"
    warm_ups, growths = (2, 5, 8, 12, 16, 20), (0.0, 0.25, 0.75, 1.5, 3.0)
    windows = tuple(width / 2 for width in range(2, 31))
    note = "warm-up, window and growth are chosen by the pilot; degree, ridge and blend as published"

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """Per budget, warm-up and growth the smallest window that computes little enough, where it computes nearly all that is allowed."""
        found: dict[Computed, Settings] = {}
        for most in counts(bed):
            for warm_up in self.warm_ups:
                for growth in self.growths:
                    for window in self.windows:
                        settings: dict[str, Any] = {"warmup": warm_up, "window": window, "growth": growth}
                        computed = spectrum_schedule(bed.case.steps, **settings)
                        if len(computed) <= most:
                            if len(computed) >= most - 2:
                                found.setdefault(computed, settings)
                            break
        return tuple(found.values())

    def piloted(self) -> bool:
        """The pilot chooses."""
        return True

    def plan(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> tuple[Computed, Rows | str]:
        """Schedule and rows by its rules."""
        computed = spectrum_schedule(bed.case.steps, **settings)
        return computed, spectrum_rows(computed, bed.case.steps)


class LeMiCa(Planned):
    """LeMiCa's planner (arXiv 2511.00090): the lexicographic minimax path over what each stretch of reuse does to the sample."""

    name = "LeMiCa"
    kind: Kind = "hold"
    #: Runs that the graph is measured on (the paper finds one within 0.2 dB of many), and most steps from one computed to the next.
    runs, longest = 1, 9
    note = "its graph is measured on one run of its own: every stretch of up to 8 reused steps, sampled to the end"

    def calibrate(self, bed: Bed) -> Calibrated:
        """Sample every stretch alone, and plan every budget."""
        steps, pairs = bed.case.steps, bed.calibration_pairs[: self.runs]
        full = {pair: bed.subject.sample(bed.case, pair, steps=steps) for pair in pairs}
        edges = {(i, i + 1): 0.0 for i in range(steps - 1)}
        for i in range(steps - 2):
            for j in range(i + 2, min(i + self.longest, steps - 1) + 1):
                edges[i, j] = float(
                    np.mean([np.abs(self._without(bed, i, j, pair) - full[pair]).mean() for pair in pairs])
                )
        found = {str(count): planners.minimax_path(edges, steps, count) for count in counts(bed)}
        return {"plans": {count: path for count, path in found.items() if path is not None}}

    def _without(self, bed: Bed, i: int, j: int, pair: Pair) -> Any:
        """A sample whose steps between ``i`` and ``j`` reuse step ``i``."""
        schedule = tuple(step for step in range(bed.case.steps) if not i < step < j)
        policy = plain_policy(bed, schedule=schedule, forecaster="hold", threshold=0.0)
        with TeaCache.from_policy(policy).attached(bed.subject.pipe):
            return bed.subject.sample(bed.case, pair, steps=bed.case.steps)

    def plan(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> tuple[Computed, Rows | str]:
        """What its planner found, filled with the last residual."""
        plan = calibrated["plans"].get(str(settings["computed"]))
        if plan is None:
            raise BenchError(f"no path computes {settings['computed']} steps with at most {self.longest} between two")
        return tuple(plan), "hold"


def counts(bed: Bed) -> tuple[int, ...]:
    """Computed steps of every target, most first."""
    return tuple(dict.fromkeys(most_steps(bed.case, target) for target in sorted(bed.targets)))


def levels_of(bed: Bed) -> Levels:
    """Noise levels of a run and of its sample.

    Raises:
        BenchError: the sampler keeps none.
    """
    facts = scheduler_facts.facts_for(bed.subject.pipe.scheduler, bed.case.steps)
    if facts is None or facts.levels is None:
        raise BenchError(f"{type(bed.subject.pipe.scheduler).__name__} keeps no noise levels")
    return facts.levels


def _grams(bed: Bed, prefix: str) -> list[Array]:
    """One a run and branch; raises ``BenchError`` where the model's recording has none.

    Older traces lack some, and other runs are recorded then.
    """

    def of(run: Trace) -> list[Array]:
        return [run.grams[f"{prefix}{branch}"] for branch in run.output_distances if f"{prefix}{branch}" in run.grams]

    found = [gram for run in recorded_runs(bed, lambda run: bool(of(run))) for gram in of(run)]
    if not found:
        raise BenchError(f"the traces hold no inner products of the {prefix.rstrip(':')}")
    return found


def _guided(bed: Bed) -> list[Array]:
    runs = recorded_runs(bed)
    name = f"{OUTPUT_PREFIX}{GUIDED}"
    return [run.grams[name] for run in runs if name in run.grams] or _grams(bed, OUTPUT_PREFIX)


def _key(settings: Settings) -> str:
    return f"{settings['computed']}/{settings['peak']:g}"
