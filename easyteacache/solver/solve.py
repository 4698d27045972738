"""Traces → calibration: fit every bucket, plan its operating points, and state their error on held-out runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from easyteacache._version import __version__
from easyteacache.policy.policy import Policy
from easyteacache.records import plan as plans_of_record
from easyteacache.records.bucket import Bucket, OperatingPoint
from easyteacache.records.calibration import SCHEMA_VERSION, Calibration, Signal
from easyteacache.records.evidence import RELATIVE_L2, Evidence
from easyteacache.records.parsing import explained
from easyteacache.records.plan import FITTED
from easyteacache.records.provenance import Conditions, Provenance
from easyteacache.records.trace import Array
from easyteacache.records.trace_set import Trace, TraceSet, common_model, one_model
from easyteacache.solver.fit import bucket_fit
from easyteacache.solver.fit.bucket_fit import BucketFit, six_digits
from easyteacache.solver.fit.options import FitOptions
from easyteacache.solver.garbage import rarely_collected
from easyteacache.solver.replay import baselines
from easyteacache.solver.replay.replay import Replay, filling_of, mean_computed, policy_at
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.search.measured import QUICK, Effort, FittedPlans, Measure, Progress
from easyteacache.solver.search.planner import Plan
from easyteacache.solver.search.plans import make_plans
from easyteacache.solver.validation.error_statistics import statistics
from easyteacache.solver.validation.rules import RULES, require_all, require_runs

TOOL = "easyteacache solve"
# So many held-out runs are asked first whether thresholds are worth it.
FEW_RUNS = 6
AnyValue = TypeVar("AnyValue")


@dataclass(frozen=True)
class Labels:
    """What a record says beside its numbers; None is taken from the traces or left out.

    Attributes:
        model_key: key of the record; by default that of the traces, with the expert appended.
        title: the model's name as people write it.
        modality: what it generates.
        revision: of the record, 1 or more.
        license: of the numbers, SPDX id.
        author: who fitted them.
        date: YYYY-MM-DD; by default the day of the last recording, so that the same traces give the same bytes.
        notes: what a user should know.
    """

    model_key: str | None = None
    title: str | None = None
    modality: str | None = None
    revision: int = 1
    license: str | None = None
    author: str | None = None
    date: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Solution:
    """A draft calibration and how it came about.

    Attributes:
        calibration: the record, status ``draft``.
        fits: signal → its fits, one per bucket, in the record's order.
        signal: the signal that was chosen.
    """

    calibration: Calibration
    fits: Mapping[str, Sequence[BucketFit]] = field(repr=False)
    signal: str

    @property
    def explains(self) -> bool:
        """Whether the chosen signal explains the output in every bucket, by any non-decreasing curve."""
        return all(bucket.explains for bucket in self.fits[self.signal])


def solve(
    traces: TraceSet,
    *,
    signal: str | None = None,
    options: FitOptions | None = None,
    labels: Labels | None = None,
    measure: Measure | None = None,
    effort: Effort = QUICK,
    progress: Progress = lambda _: None,
) -> Solution:
    """Solve the calibration of one model (one expert of it) from its runs.

    Args:
        traces: runs of one model key; the split into calibration and held-out runs follows from their content.
        signal: fit this one; None chooses the one held-out evidence speaks for.
        options: see ``FitOptions``.
        labels: see ``Labels``.
        measure: samples plans with the model itself, to choose between those that traces cannot tell apart.
        effort: how much of that.
        progress: told about every stage.

    Raises:
        InvalidTrace: the runs are of several models or experts, or differ in their noise levels.
        InvalidCalibration: no record may hold these labels; nothing was solved.
        NotEnoughTraces: a bucket has too few runs.
        SignalMismatch: the signal was not recorded by every run.
    """
    options, labels = options or FitOptions(), labels or Labels()
    one_model(traces)
    _check(traces, options, labels)
    for setting in traces.settings():
        require_all(len(traces.group(*setting)), setting[0])
    calibration, heldout = traces.split_heldout()
    for setting in traces.settings():
        require_runs(calibration.group(*setting), heldout.group(*setting), setting[0])
    fits = fit_buckets(calibration, signal, options, progress=progress)
    chosen = bucket_fit.best_signal(fits)
    fitted, buckets = FittedPlans(measure, effort), []
    for setting, bucket in zip(traces.settings(), fits[chosen], strict=True):
        progress(f"planning for {setting[0]} tokens, {setting[1]} steps")
        judged_on = Runs.stack(heldout.group(*setting).runs)
        seen = Runs.stack(calibration.group(*setting).runs)
        # Not while a model samples: a cycle may hold its tensors.
        with rarely_collected() if measure is None else nullcontext():
            plans = make_plans(seen, bucket.profile, progress, fitted=fitted, unseen=judged_on)
        buckets.append(_bucket(traces.group(*setting).runs[0], bucket, plans, judged_on))
        progress(f"solved {setting[0]} tokens, {setting[1]} steps")
    notes = _warnings(chosen, fits[chosen], buckets)
    record = _record(traces, _signal(chosen), buckets, options, labels, notes)
    return Solution(_with_worthwhile_thresholds(record, heldout), fits, chosen)


def _check(traces: TraceSet, options: FitOptions, labels: Labels) -> None:
    """Refuse now what a record cannot say; the search may take hours."""
    with explained(where="labels", rules="record"):
        _record(traces, "unknown", [Bucket(coefficients=(1.0, 0.0))], options, labels, [])


def check_labels(labels: Labels) -> None:
    """Refuse labels that no record can hold, before there is a run.

    Raises:
        InvalidCalibration: as ``solve`` raises it for them.
    """
    with explained(where="labels", rules="record"):
        Calibration(
            schema_version=SCHEMA_VERSION,
            model_key=labels.model_key or "any/model",
            revision=labels.revision,
            status="draft",
            title=labels.title or "any model",
            modality=labels.modality or "image",  # type: ignore[arg-type]
            method="teacache",
            signal="unknown",
            fitted_output="block_output",
            buckets=(Bucket(coefficients=(1.0, 0.0)),),
            provenance=Provenance(license=labels.license, author=labels.author, date=labels.date, tool=TOOL),
            notes=labels.notes,
        )


def fit_buckets(
    calibration: TraceSet, signal: str | None, options: FitOptions, *, progress: Progress = lambda _: None
) -> dict[str, list[BucketFit]]:
    """Fit ``signal``, or every recorded one, in every setting: signal → fits in the order of ``settings()``."""
    names = bucket_fit.signals_of(calibration.runs) if signal is None else (signal,)
    fits: dict[str, list[BucketFit]] = {name: [] for name in names}
    for setting in calibration.settings():
        runs = calibration.group(*setting).runs
        for name in names:
            progress(f"fitting {name} at {setting[0]} tokens, {setting[1]} steps")
            fits[name].append(
                bucket_fit.fit_bucket(runs, name, method=options.method, order=options.order, robust=options.robust)
            )
    return fits


def replayed(errors: Array, speedup: float) -> Evidence:
    """What an operating point states about itself: its errors on held-out runs, (R,), and what it saves."""
    error = statistics(errors)
    return Evidence(
        kind="submitted",
        how="replayed",
        metric=RELATIVE_L2,
        value=error.mean,
        p50=error.p50,
        p90=error.p90,
        worst=error.worst,
        runs=error.runs,
        speedup=six_digits(speedup),
    )


def _point(plan: Plan, replay: Replay) -> OperatingPoint:
    errors = baselines.fixed(replay, plan.computed, plan.filling)
    evidence, filling = replayed(errors, replay.runs.num_steps / len(plan.computed)), plan.filling
    if plan.threshold is not None:
        return OperatingPoint(
            threshold=plan.threshold,
            predictor=filling.forecaster,
            coordinate=filling.coordinate,
            applied_to=filling.applied_to,
            computed_steps=len(plan.computed),
            evidence=(evidence,),
        )
    stored = plans_of_record.Plan(
        computed=plan.computed,
        predictor=None if filling.forecaster == FITTED else filling.forecaster,
        coordinate=filling.coordinate,
        applied_to=filling.applied_to,
        corrected=filling.weights is not None,
        rows=filling.weights,
    )
    return OperatingPoint(plan=stored, computed_steps=len(plan.computed), evidence=(evidence,))


def _bucket(example: Trace, fitted: BucketFit, plans: Sequence[Plan], heldout: Runs) -> Bucket:
    head, replay = example.header, Replay(heldout)
    return Bucket(
        sequence_length=head.sequence_length,
        frames=head.frames,
        height=head.height,
        width=head.width,
        num_steps=head.num_steps,
        shift=head.shift,
        # What no plan here ever did was never judged: another step count may not do it either.
        max_consecutive_skips=max((_longest_reuse(plan.computed, head.num_steps) for plan in plans), default=0) or None,
        coefficients=fitted.chosen.coefficients,
        domain=fitted.chosen.domain,
        quality=fitted.quality,
        sampler=head.sampler,
        operating_points=tuple(_point(plan, replay) for plan in plans),
        sigma_profile=fitted.profile.record(),
    )


def _with_worthwhile_thresholds(record: Calibration, heldout: TraceSet) -> Calibration:
    """Without the thresholds for which a bucket's gates would be worse than without a fit on held-out runs; the worst goes first."""
    buckets = []
    for bucket, setting in zip(record.buckets, heldout.settings(), strict=True):
        runs = Runs.stack(heldout.group(*setting).runs)
        gates = {
            place: policy_at(record, bucket, point)
            for place, point in enumerate(bucket.operating_points)
            if point.threshold is not None
        }
        ratios = _against_identity(Replay(runs.take(range(min(FEW_RUNS, len(runs))))), gates)
        # Few runs are enough to see that gates are better with the fit than without.
        if len(runs) > FEW_RUNS and ratios and sum(ratios.values()) > 0.0:
            ratios = _against_identity(Replay(runs), gates)
        while ratios and not RULES["gate.worse-than-identity"].holds(math.exp(sum(ratios.values()) / len(ratios))):
            del ratios[max(ratios, key=lambda place: ratios[place])]
        points = [
            point for place, point in enumerate(bucket.operating_points) if point.threshold is None or place in ratios
        ]
        buckets.append(bucket.model_copy(update={"operating_points": tuple(points)}))
    return record.model_copy(update={"buckets": tuple(buckets)})


def _against_identity(replay: Replay, gates: Mapping[int, Policy]) -> dict[int, float]:
    """Mean logarithm of every threshold's errors relative to those of the same gate without a fit."""
    found = {}
    for place, policy in gates.items():
        decided, filling = replay.decide(policy), filling_of(policy)
        others = baselines.identity(replay, policy, mean_computed(decided), filling)
        found[place] = float(np.mean(np.log(replay.errors(decided, filling)) - np.log(others)))
    return found


def _longest_reuse(computed: Sequence[int], num_steps: int) -> int:
    return max(b - a - 1 for a, b in zip(computed, [*computed[1:], num_steps], strict=True))


def _record(
    traces: TraceSet,
    signal: Signal,
    buckets: Sequence[Bucket],
    options: FitOptions,
    labels: Labels,
    notes: Sequence[str],
) -> Calibration:
    head = traces[0].header
    key = labels.model_key or "/".join(filter(None, (head.model_key, head.part)))
    modality = labels.modality or ("video" if any(trace.header.moves for trace in traces) else "image")
    recorded = [trace.header.recorded_at for trace in traces if trace.header.recorded_at]
    return Calibration(
        schema_version=SCHEMA_VERSION,
        model_key=key,
        revision=labels.revision,
        status="draft",
        title=labels.title or key,
        modality=modality,  # type: ignore[arg-type]
        model=common_model(traces),
        method="teacache",
        signal=signal,
        fitted_output="block_output",
        branches=head.branches,
        buckets=tuple(buckets),
        conditions=_conditions(traces),
        provenance=Provenance(
            license=labels.license,
            author=labels.author,
            date=labels.date or max(recorded, default=None),
            tool=TOOL,
            tool_version=__version__,
            tool_options=options.spell(),
            traces=traces.files,
        ),
        notes=(*labels.notes, *notes),
    )


def _conditions(traces: TraceSet) -> Conditions:
    heads = [trace.header for trace in traces]
    return Conditions(
        sampler=_only({None if head.sampler is None else head.sampler.name for head in heads}),
        guidance_scale=_only({head.guidance_scale for head in heads}),
    )


def _warnings(signal: str, fits: Sequence[BucketFit], buckets: Sequence[Bucket]) -> list[str]:
    return [
        f"At {bucket.sequence_length} tokens even the best non-decreasing curve of {signal} explains only "
        f"{max(fitted.ceiling, 0.0):.0%} of the output's change on runs it had not seen: the signal is no use for this model."
        for fitted, bucket in zip(fits, buckets, strict=True)
        if not fitted.explains
    ]


def _only(values: set[AnyValue]) -> AnyValue | None:
    return next(iter(values)) if len(values) == 1 else None


def _signal(name: str) -> Signal:
    return name  # type: ignore[return-value]
