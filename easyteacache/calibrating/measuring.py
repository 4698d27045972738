"""What the solver asks of a model that is at hand (`easyteacache solve --measure`, ``easyteacache.calibrate``)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easyteacache.integrations.diffusers.recording.plan_sampling import SampledPlans
    from easyteacache.policy.policy import Policy
    from easyteacache.records.trace_set import Trace
    from easyteacache.solver.replay.runs import Runs
    from easyteacache.solver.search.measured import Measure, Measured
    from easyteacache.solver.search.planner import Plan

# Far from the seeds that people record with: no held-out run is sampled.
FURTHER = 1 << 20


def measure_with(
    pipe: Any,
    *,
    model: str,
    runs: int | None,
    batch: int | None = None,
    kept_in: Path,
    on_step: Callable[[], None],
) -> Measure:
    """What samples plans on calibration runs of a bucket with ``pipe``: the first ``runs`` of the first one's size and guidance.

    Where fewer were recorded and a choice may take more, prompts are sampled with further seeds: weights and errors need no trace.
    None takes those there are. ``batch`` are sampled at once. Results stay in ``kept_in``. ``model`` is what the pipeline was opened
    by: results of another one are not taken for its own.
    """
    from easyteacache.integrations.diffusers.recording.plan_sampling import SampledPlans

    return _Measuring(SampledPlans(pipe, file=kept_in, model=model, on_step=on_step), runs, batch)


class _Measuring:
    """``solver.search.measured.Measure``, by sampling."""

    def __init__(self, plans: SampledPlans, runs: int | None, batch: int | None) -> None:
        self._plans, self._count, self._batch = plans, runs, batch

    def __call__(self, known: Runs, plan: Plan, /, *, batches: int | None = None) -> Measured:
        import numpy as np

        from easyteacache.solver.search.measured import Measured

        runs = _alike(known)[: self._count] if batches is None else self._all(known)
        if batches is not None and self._batch is not None:
            runs = runs[: batches * self._batch]
        found = self._plans.sampled(runs, policy_of(plan, known), batch=self._batch)
        steps = plan.computed[1:] if found.answers else ()
        return Measured(found.weights, np.array(found.errors), dict(zip(steps, found.answers, strict=True)))

    def batches(self, known: Runs, /) -> int:
        return 1 if self._batch is None else math.ceil(len(self._all(known)) / self._batch)

    def size(self, known: Runs, /) -> int:
        count = len(self._all(known))
        return count if self._batch is None else min(self._batch, count)

    def seconds(self, known: Runs, /) -> float | None:
        """None where plans are known already: a search that goes on samples what is lacking and nothing else."""
        return None if self._plans.kept else self._plans.seconds(_alike(known))

    def _all(self, known: Runs) -> list[Trace]:
        alike = _alike(known)[: self._count]
        more = range(0 if self._count is None else self._count - len(alike))
        return [*alike, *(_reseeded(alike[i % len(alike)], 1 + i // len(alike)) for i in more)]


def _alike(known: Runs) -> list[Trace]:
    first = _setting(known.traces[0])
    return [trace for trace in known.traces if _setting(trace) == first]


def _reseeded(trace: Trace, turn: int) -> Trace:
    seed = trace.header.seed
    changed = None if seed is None else seed + turn * FURTHER
    return dataclasses.replace(trace, header=trace.header.model_copy(update={"seed": changed}))


def _setting(trace: Trace) -> tuple[object, ...]:
    head = trace.header
    return head.width, head.height, head.frames, head.guidance_scale


def policy_of(plan: Plan, runs: Runs) -> Policy:
    """What a runtime would resolve, had ``plan`` been recorded for these runs' setting."""
    from easyteacache.policy.curves import Polynomial
    from easyteacache.policy.policy import Policy

    head, filling = runs.traces[0].header, plan.filling
    return Policy(
        model_key=head.model_key,
        revision=1,
        status="draft",
        layer="traces",
        signal=head.signals[0],
        curve=Polynomial((1.0, 0.0)),
        threshold=0.0,
        first_skip_step=1,
        last_skip_step=None,
        max_consecutive_skips=None,
        buckets=(),
        schedule=plan.computed,
        weights=filling.weights,
        forecaster=filling.forecaster,
        coordinate=filling.coordinate,
        applied_to=filling.applied_to,
        num_steps=head.num_steps,
        shift=head.shift,
    )
