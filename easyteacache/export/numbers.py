"""What is exported: a record resolved for one sequence length, step count and operating point."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from easyteacache.errors import ExportRefused, UnreachableTarget
from easyteacache.export import presets
from easyteacache.policy import operating_point, policy
from easyteacache.policy.bucket_choice import select
from easyteacache.policy.curves import USUAL_DISTANCES, Blend, Curve, Polynomial, RescalePost
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.bucket import Bucket
from easyteacache.records.calibration import Calibration
from easyteacache.records.fields import MAX_STEPS
from easyteacache.records.preset import Preset
from easyteacache.records.sampler import SamplerRecord
from easyteacache.registry.registry import Found

Ratios = dict[str, tuple[float, ...]]
#: Formats for programs of the reader's own, which take any method's numbers.
PLAIN = ("json", "python")
Kind = Literal["threshold", "schedule", "either"]

#: Places of a domain at which two curves are compared.
SAMPLES = 601


@dataclass(frozen=True)
class Numbers:
    """One record's numbers, ready to be written.

    Attributes:
        record: where they come from.
        bucket: the bucket with the greatest share.
        coefficients: highest degree first, without leading zeros; None for ratios.
        domain: ``(x_min, x_max)`` the fit saw, None when it is not known.
        post: what this project does to p(x).
        threshold: accumulated predicted distance at which a step is computed; None for a schedule.
        schedule: the computed steps instead of a threshold.
        forecaster: what filled a reused step when this operating point was judged, ``coordinate`` its axis, and ``applied_to`` what it
            repeats or continues.
        rows: per step the weights of the computed steps, where a plan lists them; ``levels`` the (S + 1,) noise levels they hold over,
            None for any.
        corrected: rows of computed steps correct the sampler's state.
        combined: what is predicted is the output after guidance.
        of_branches: (branch, its computed steps), where branches compute different ones; ``schedule`` then has those of any.
        preset: another engine's settings instead of numbers.
        server: what the caller says of the program that will read the file, for formats that name it.
        speedup: what the operating point is known to give.
        first, last: inclusive window in which steps may be reused; last None means the end, a negative one counts from an end
            that is not known.
        fraction: the window as shares of the run, where the record gives it so.
        limit: most steps reused in a row, None for no limit.
        trusted_up_to: beyond this distance, and where p is below 0, this runtime computes; None: it follows p everywhere.
        num_steps, sequence_length: what they hold for, None where that is not known.
        ratios: MagCache's ratios, branch → one a step.
        retention: share of the run computed first, 0 to 1; None where the record does not say.
        notes: every choice that was made on the way.
    """

    record: Calibration
    bucket: Bucket
    coefficients: tuple[float, ...] | None = None
    domain: tuple[float, float] | None = None
    post: RescalePost = "none"
    threshold: float | None = None
    schedule: tuple[int, ...] | None = None
    forecaster: str = "hold"
    coordinate: str = "step"
    applied_to: str = "residual"
    rows: tuple[tuple[float, ...], ...] | None = None
    levels: tuple[float, ...] | None = None
    corrected: bool = False
    combined: bool = False
    of_branches: tuple[tuple[str, tuple[int, ...]], ...] = ()
    preset: Preset | None = None
    server: Mapping[str, Any] = field(default_factory=dict)
    speedup: float | None = None
    first: int = 1
    last: int | None = None
    fraction: tuple[float, float] | None = None
    limit: int | None = None
    trusted_up_to: float | None = None
    num_steps: int | None = None
    sequence_length: int | None = None
    ratios: Ratios = field(default_factory=dict)
    retention: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def curve(self) -> Polynomial:
        """p as this project's runtime evaluates it."""
        assert self.coefficients is not None
        return Polynomial(self.coefficients, domain=self.domain, post=self.post)


def resolve(
    found: Found,
    request: Request,
    run: RunContext,
    *,
    engine: str,
    needs_threshold: bool,
    kind: Kind = "either",
    name: str = "json",
) -> Numbers:
    """The numbers of a record for one request and run.

    Args:
        found: what the registry gave.
        request: the operating point; may be left open.
        run: sequence length, step count and shift; may be left open.
        engine: title of the engine, for refusals, and ``name`` that of its entry in the table.
        needs_threshold: whether a record without operating points is refused.
        kind: what the engine takes; operating points of the other kind are passed over where the record has both.

    Raises:
        ExportRefused: there is no threshold, nothing may be reused, the step count is outside the calibration, or two buckets
            cannot be blended into one polynomial.
        RetiredCalibration: the record was yanked.
    """
    if run.num_steps is not None and run.num_steps > MAX_STEPS:
        raise ExportRefused(engine, ["steps"], [f"{run.num_steps} steps; a record holds at most {MAX_STEPS}."])
    if request.exact and not (name in PLAIN and found.calibration.method == "teacache"):
        raise ExportRefused(engine, ["threshold"], ["quality='exact' reuses nothing: run it without its cache."])
    if found.calibration.method == "preset":
        return _preset(found, request, run, engine, name)
    if found.calibration.method == "magcache" and kind == "schedule":
        return _magcache_steps(found, request, run, engine)
    # Ratios say nothing beside a plan that names its steps: with them goes a threshold.
    kind = "threshold" if found.calibration.method == "magcache" else kind
    found = dataclasses.replace(found, calibration=_of_kind(found.calibration, kind))
    if found.calibration.method == "plan":
        return _plan(found, request, run, engine)
    if found.calibration.method == "magcache":
        return _magcache(found, request, run, engine, needs_threshold)
    return _teacache(found, request, run, engine, needs_threshold)


def _of_kind(record: Calibration, kind: Kind) -> Calibration:
    """The record with the operating points that an engine can take, if it has any of them."""
    if kind == "either":
        return record
    kept = [
        tuple(point for point in bucket.operating_points if (point.schedule is None) == (kind == "threshold"))
        for bucket in record.buckets
    ]
    if not any(kept):
        return record
    buckets = [
        bucket.model_copy(update={"operating_points": points})
        for bucket, points in zip(record.buckets, kept, strict=True)
    ]
    return record.model_copy(update={"buckets": tuple(buckets)})


def _plan(found: Found, request: Request, run: RunContext, engine: str) -> Numbers:
    """A record of plans: no signal is asked, so only step counts that it has can be exported."""
    record, notes = found.calibration, [*found.notes, *found.calibration.notes]
    selection = select(record.buckets, run, notes)
    bucket = selection.main
    steps = run.num_steps or bucket.num_steps
    if steps != bucket.num_steps:
        reason = f"The plan holds for {bucket.num_steps} steps, not for {steps}."
        raise ExportRefused(engine, ["steps"], [reason], "Export for the step count it was made for.")
    try:
        offer = operating_point.Offer(bucket.operating_points, 1.0)
        chosen = operating_point.choose([offer], request, _own_run(bucket, run), notes)
    except UnreachableTarget as error:
        raise ExportRefused(engine, ["threshold"], [_sentence(str(error))]) from error
    plan = chosen.plan
    if plan is None:
        raise ExportRefused(engine, ["plan"], ["A record of plans has no threshold."])
    return Numbers(
        record=record,
        bucket=bucket,
        schedule=plan.computed,
        forecaster=chosen.forecaster,
        coordinate=chosen.coordinate,
        applied_to=chosen.applied_to,
        rows=plan.rows,
        levels=plan.levels,
        corrected=plan.corrected,
        combined=plan.combined,
        speedup=chosen.speedup,
        num_steps=steps,
        sequence_length=run.sequence_length or bucket.sequence_length,
        notes=tuple(notes),
    )


def _preset(found: Found, request: Request, run: RunContext, engine: str, name: str) -> Numbers:
    """One of a record's presets that the engine can be given; its own go first."""
    record = found.calibration
    if request.threshold is not None or request.budget is not None:
        raise ExportRefused(
            engine, ["threshold"], ["A preset has settings of its own. Choose by --speedup, or leave it open."]
        )
    offered = [
        (bucket, point, point.preset)
        for bucket in record.buckets
        for point in bucket.operating_points
        if point.preset is not None
        and (name in PLAIN or presets.rule_for(name, point.preset) is not None)
        and run.num_steps in (None, bucket.num_steps or run.num_steps)
    ]
    if not offered:
        made = ", ".join(str(bucket.num_steps) for bucket in record.buckets if bucket.num_steps)
        raise ExportRefused(engine, ["steps"], [f"Its presets are for {made} steps."])
    if request.speedup is not None:
        fast = [one for one in offered if one[1].speedup is not None and one[1].speedup >= request.speedup]
        if not fast:
            values = ", ".join(f"{s:g}" for s in sorted({one[1].speedup for one in offered if one[1].speedup}))
            raise ExportRefused(
                engine,
                ["threshold"],
                [f"No preset is known to reach {request.speedup:g}×; known are: {values or 'none'}."],
            )
        offered = sorted(fast, key=lambda one: one[1].speedup or 0.0)
    elif name not in PLAIN:
        order = [presets.rule_for(name, one[2]) for one in offered]
        rank = [rule.made_for.index(one[2].engine) if rule else 0 for rule, one in zip(order, offered, strict=True)]
        offered = [one for _, one in sorted(zip(rank, offered, strict=True), key=lambda pair: pair[0])]
    bucket, point, chosen = offered[0]
    return Numbers(
        record=record,
        bucket=bucket,
        preset=chosen,
        speedup=point.speedup,
        num_steps=run.num_steps or bucket.num_steps,
        sequence_length=run.sequence_length or bucket.sequence_length,
        notes=(*found.notes, *record.notes),
    )


def _magcache_steps(found: Found, request: Request, run: RunContext, engine: str) -> Numbers:
    """MagCache's ratios as the steps that they make it compute, for an engine that takes no ratios."""
    record = found.calibration
    own = next((bucket.num_steps for bucket in record.buckets if bucket.num_steps is not None), None)
    run = run if run.num_steps is not None else dataclasses.replace(run, num_steps=own)
    try:
        resolved = policy.resolve(found, request, run)
    except UnreachableTarget as error:
        raise ExportRefused(engine, ["threshold"], [_sentence(str(error))]) from error
    if resolved.refusal is not None or resolved.schedule is None:
        reason = resolved.refusal or "At this threshold every step is computed."
        raise ExportRefused(engine, ["steps"], [reason])
    return Numbers(
        record=record,
        bucket=select(record.buckets, run, []).main,
        schedule=resolved.schedule,
        of_branches=resolved.branch_schedules,
        speedup=resolved.expected_speedup,
        num_steps=run.num_steps,
        sequence_length=run.sequence_length,
        notes=resolved.notes,
    )


def _own_run(bucket: Bucket, run: RunContext) -> RunContext:
    """The run with the sampler that the bucket was made with, where the caller names none: a file is for such runs."""
    if run.sampler is not None:
        return run
    plans = [point.plan for point in bucket.operating_points if point.plan is not None]
    levels = next((plan.levels for plan in plans if plan.levels is not None), None)
    if bucket.sampler is None or bucket.sampler.levels is None:
        return run if levels is None else dataclasses.replace(run, sampler=SamplerRecord.euler(levels))
    return dataclasses.replace(run, sampler=bucket.sampler)


def _teacache(found: Found, request: Request, run: RunContext, engine: str, needs_threshold: bool) -> Numbers:
    record = found.calibration
    resolved = _resolved(found, request, run, engine, needs_threshold)
    if resolved.refusal is not None or resolved.needs_sigma:
        reason = resolved.refusal or "At this step count only the sigma profile holds, which no engine can evaluate."
        raise ExportRefused(engine, ["steps"], [reason], "Export for the step count it was calibrated for.")
    notes = list(resolved.notes)
    coefficients, domain = _one_polynomial(resolved.curve, engine, notes)
    selection = select(record.buckets, run, [])
    bucket = selection.main
    limits = [one.max_consecutive_skips for one in selection.buckets if one.max_consecutive_skips is not None]
    # The record's own limit and the caller's: what this runtime adds to published numbers is no part of them.
    limit = min(limits, default=None) if request.max_consecutive_skips is None else request.max_consecutive_skips
    num_steps = run.num_steps or bucket.num_steps
    return Numbers(
        record=record,
        bucket=bucket,
        coefficients=strip(coefficients),
        domain=domain,
        post=record.rescale_post,
        threshold=None if resolved.schedule is not None or not resolved.threshold else resolved.threshold,
        schedule=resolved.schedule,
        forecaster=resolved.forecaster,
        coordinate=resolved.coordinate,
        rows=resolved.weights,
        levels=resolved.noise_levels,
        corrected=resolved.weights is not None and resolved.corrected,
        combined=resolved.combined,
        of_branches=resolved.branch_schedules,
        speedup=resolved.expected_speedup,
        applied_to=resolved.applied_to,
        first=max(resolved.first_skip_step, 1),
        last=resolved.last_skip_step if num_steps or bucket.max_skip_step >= 0 else _from_end(bucket.max_skip_step),
        fraction=bucket.skip_window_fraction,
        limit=limit,
        trusted_up_to=_trusted_up_to(resolved.curve),
        num_steps=num_steps,
        sequence_length=run.sequence_length or bucket.sequence_length,
        notes=tuple(notes),
    )


def _resolved(found: Found, request: Request, run: RunContext, engine: str, needs_threshold: bool) -> policy.Policy:
    """The policy; where no threshold is needed and none was asked for, a record without one, or with schedules, is good enough."""
    asked = request.chooses
    try:
        resolved = policy.resolve(found, request, run)
    except UnreachableTarget as error:
        if needs_threshold or asked:
            raise ExportRefused(engine, ["threshold"], [_sentence(str(error))]) from error
        # Any threshold resolves the rest for an engine that takes none.
        return policy.resolve(found, Request(threshold=0.0), run)
    return resolved


def _from_end(max_skip_step: int) -> int | None:
    return None if max_skip_step == -1 else max_skip_step


def _trusted_up_to(curve: Curve) -> float | None:
    polynomials = [curve.lower, curve.upper] if isinstance(curve, Blend) else [curve]
    known = [one.up_to for one in polynomials if isinstance(one, Polynomial) and one.up_to is not None]
    return min(known, default=None)


def _one_polynomial(
    curve: Curve, engine: str, notes: list[str]
) -> tuple[tuple[float, ...], tuple[float, float] | None]:
    """A curve as one list of coefficients: blending is exact where both polynomials hold, and impossible elsewhere."""
    if isinstance(curve, Polynomial):
        return curve.coefficients, curve.domain
    assert isinstance(curve, Blend)
    low, high = curve.lower, curve.upper
    assert isinstance(low, Polynomial)
    assert isinstance(high, Polynomial)
    domains = [polynomial.domain for polynomial in (low, high) if polynomial.domain is not None]
    shared = (max(d[0] for d in domains), min(d[1] for d in domains)) if domains else None
    if shared is not None and shared[0] >= shared[1]:
        reason = "The sequence length lies between two buckets whose domains do not meet, so no one polynomial stands for both."
        raise ExportRefused(engine, ["length"], [reason], "Export for the length of one bucket.")
    size = max(len(low.coefficients), len(high.coefficients))
    pairs = zip(pad(low.coefficients, size), pad(high.coefficients, size), strict=True)
    coefficients = tuple((1 - curve.weight) * a + curve.weight * b for a, b in pairs)
    blended = Polynomial(coefficients, domain=shared, post=low.post)
    start, end = shared or USUAL_DISTANCES
    places = [start + (end - start) * i / (SAMPLES - 1) for i in range(SAMPLES)]
    if any(abs(blended(x) - curve(x)) > 1e-9 * max(abs(curve(x)), 1e-12) for x in places):
        reason = "The sequence length lies between two buckets of which one goes negative, so no one polynomial stands for both."
        raise ExportRefused(engine, ["length"], [reason], "Export for the length of one bucket.")
    notes.append("Two buckets are blended into one polynomial, exact where both were fitted.")
    return coefficients, shared


def _magcache(found: Found, request: Request, run: RunContext, engine: str, needs_threshold: bool) -> Numbers:
    record = found.calibration
    notes = [*found.notes, *record.notes]
    selection = select(record.buckets, run, notes)
    bucket = selection.main
    threshold = None
    try:
        threshold = operating_point.choose(
            [operating_point.Offer(bucket.operating_points, 1.0)], request, run, notes
        ).threshold
    except UnreachableTarget as error:
        if needs_threshold:
            raise ExportRefused(engine, ["threshold"], [_sentence(str(error))]) from error
    limit = bucket.max_consecutive_skips if request.max_consecutive_skips is None else request.max_consecutive_skips
    fraction = bucket.skip_window_fraction
    return Numbers(
        record=record,
        bucket=bucket,
        threshold=threshold or None,
        first=bucket.min_skip_step,
        limit=limit,
        num_steps=run.num_steps or bucket.num_steps,
        sequence_length=run.sequence_length or bucket.sequence_length,
        ratios={entry.branch: entry.ratios for entry in bucket.magnitude_ratios},
        retention=None if fraction is None else fraction[0],
        notes=tuple(notes),
    )


def strip(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    """Without the zeros of powers that do not occur at the high end; at least one number."""
    leading = next((i for i, value in enumerate(coefficients) if value), len(coefficients) - 1)
    return coefficients[leading:]


def pad(coefficients: tuple[float, ...], count: int) -> tuple[float, ...]:
    """The same polynomial written with ``count`` coefficients; exact."""
    return (0.0,) * (count - len(coefficients)) + coefficients


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
