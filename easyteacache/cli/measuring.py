"""`easyteacache solve --measure`: what the solver asks of a model that is at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from easyteacache.policy import Policy
    from easyteacache.solver.choice import Measure
    from easyteacache.solver.plan import Plan
    from easyteacache.solver.runs import Runs


def measure_with(pipe: Any, *, model: str, runs: int, kept_in: Path, on_run: Callable[[], None]) -> Measure:
    """What samples plans on the first ``runs`` calibration runs of a bucket with ``pipe``; measured errors stay in a file.

    ``model`` is what the pipeline was opened by: errors of another one are not taken for its own.
    """
    import numpy as np

    from easyteacache.integrations.recording.sampled import SampledErrors

    sampled = SampledErrors(pipe, kept_in, model=model, on_run=on_run)

    def measure(known: Runs, plans: Sequence[Plan]) -> NDArray[np.float64]:
        traces = known.traces[:runs]
        return np.array(sampled.errors(traces, [_policy(plan, known) for plan in plans]))

    return measure


def _policy(plan: Plan, runs: Runs) -> Policy:
    from easyteacache.policy import Policy
    from easyteacache.rescale import Polynomial

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
