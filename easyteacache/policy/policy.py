"""Resolve a calibration for one request and one run: all that the runtime needs, and why.

Between two buckets *curves* are blended, (1−w)·p_lo(x) + w·p_hi(x) with w linear in log(sequence length), each clamped to its own
domain; the skip window is the cautious intersection, but for a schedule, which keeps to its own bucket's. Outside the outermost buckets the nearest one is used, and says so.

For another step count or shift a polynomial says little (measured in docs/transfer.md). What was fitted and judged here is then
carried over by its sigma profile or computes every step; published numbers scale their window, as their users do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from easyteacache.errors import EasyTeaCacheError, InvalidCalibration, UnreachableTarget
from easyteacache.policy.bucket_choice import Selection, select
from easyteacache.policy.curves import Blend, Curve, Polynomial, SigmaProfile, blend_profiles
from easyteacache.policy.operating_point import Choice, Offer, choose
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.skip_window import SkipWindow, skip_window
from easyteacache.records.bucket import Bucket
from easyteacache.records.calibration import Calibration
from easyteacache.registry.registry import Found

__all__ = ["BucketShare", "DecidedBy", "Policy", "RetiredCalibration", "resolve"]

DecidedBy = Literal["schedule", "sigma", "signal", "nothing"]


class RetiredCalibration(EasyTeaCacheError, ValueError):
    """The record was yanked and must not be used.

    Attributes:
        model_key: the record.
        replacement: the model key to use instead, or None.
    """

    def __init__(self, record: Calibration) -> None:
        assert record.retirement is not None
        self.model_key, self.replacement = record.model_key, record.retirement.replacement
        instead = f" Use {self.replacement!r} instead." if self.replacement else ""
        super().__init__(
            f"{record.model_key!r} was yanked on {record.retirement.date}: {record.retirement.reason}{instead} "
            "Pass allow_yanked=True only to reproduce an old result."
        )


@dataclass(frozen=True)
class BucketShare:
    """One bucket that a policy uses and how much of it.

    Attributes:
        sequence_length: tokens of the bucket, None where the record does not say.
        num_steps: the bucket's step count, None where the record does not say.
        shift: the bucket's time shift, None where the record does not say.
        weight: share in the blended curve, 0 to 1.
    """

    sequence_length: int | None
    num_steps: int | None
    shift: float | None
    weight: float


@dataclass(frozen=True)
class Policy:
    """A calibration resolved for one request and one run.

    Attributes:
        model_key, revision, status, layer: which record, and the registry layer it came from.
        signal: the signal that must drive it.
        curve: predicted output distance from signal distance.
        profile: accumulated output distance over sigma, or None.
        threshold: accumulated predicted distance at which a step must be computed; 0 computes every step.
        schedule: the computed steps, when the operating point is a fixed plan; the threshold is then not used.
        weights: per step those of the last computed outputs, when the forecaster is ``fitted`` to that schedule.
        noise_levels: those of every step and of the sample, (S + 1,), that the weights were fitted at; None where nobody says.
        forecaster: name of what fills a reused step; ``coordinate`` its axis, ``applied_to`` what it extrapolates.
        first_skip_step, last_skip_step: inclusive window in which reuse is allowed; last is None when the end is not known.
        max_consecutive_skips: most steps reused in a row, None for no limit.
        buckets: the buckets used, with their weights.
        sequence_length, num_steps, shift: what it was resolved for; None where the caller did not say.
        expected_speedup, expected_error: what the operating point gave on held-out runs, where the record knows.
        refusal: why no step may be reused in this run; None when steps may be.
        needs_sigma: the curve does not hold in this run, only the profile does: without noise levels every step is computed.
        notes: every choice that was made on the way, one sentence each.
    """

    model_key: str
    revision: int
    status: str
    layer: str
    signal: str
    curve: Curve
    threshold: float
    first_skip_step: int
    last_skip_step: int | None
    max_consecutive_skips: int | None
    buckets: tuple[BucketShare, ...]
    profile: SigmaProfile | None = None
    schedule: tuple[int, ...] | None = None
    weights: tuple[tuple[float, ...], ...] | None = None
    noise_levels: tuple[float, ...] | None = None
    forecaster: str = "hold"
    coordinate: str = "step"
    applied_to: str = "residual"
    sequence_length: int | None = None
    num_steps: int | None = None
    shift: float | None = None
    expected_speedup: float | None = None
    expected_error: float | None = None
    refusal: str | None = None
    needs_sigma: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def decided_by(self) -> DecidedBy:
        """What says which steps are computed.

        ``schedule``: a fixed plan. ``sigma``: the profile, where a step's noise level is known; elsewhere the signal, unless
        ``needs_sigma``. ``signal``: the curve over the signal's distance. ``nothing``: every step is computed.
        """
        if self.schedule is not None:
            return "schedule"
        if self.threshold <= 0:
            return "nothing"
        return "sigma" if self.profile is not None or self.needs_sigma else "signal"

    def reads_signal(self, sigma: float | None) -> bool:
        """Does a decision take the signal's tensor at a step of noise level ``sigma``, None where that is not known?"""
        if self.decided_by == "sigma":
            return sigma is None and not self.needs_sigma
        return self.decided_by == "signal"


def resolve(
    found: Found | Calibration,
    request: Request | None = None,
    run: RunContext | None = None,
    *,
    allow_yanked: bool = False,
) -> Policy:
    """Resolve a record.

    Args:
        found: what a registry lookup gave, or a bare record.
        request: what the caller wishes.
        run: what is known of the run, and what its driver can apply.
        allow_yanked: use a yanked record all the same, to reproduce an old result.

    Raises:
        RetiredCalibration: the record was yanked.
        InvalidCalibration: the record's method has no rescale polynomial.
        UnreachableTarget: no operating point reaches the speed-up or error asked for.

    What the record cannot do at another step count or shift than its own is no error: the policy then says so in ``refusal``.
    """
    if isinstance(found, Calibration):
        found = Found(found, "given", found.model_key)
    request, run = request or Request(), run or RunContext()
    record = found.calibration
    notes = [*found.notes, *_status_notes(record, allow_yanked)]
    if record.method != "teacache":
        raise InvalidCalibration(
            record.model_key,
            f"its method is {record.method!r}, this runtime applies 'teacache' records; "
            "use `easyteacache export` to hand the numbers to an engine that runs it",
            rule="record.method",
        )
    selection = select(record.buckets, run, notes)
    profile = _profile(selection)
    refusal = _refusal(record, selection, profile, notes)
    choice, unreachable = _choice(selection, request, run, notes, refused=refusal is not None)
    planned = _bucket_of(selection, choice)
    window = skip_window(selection.buckets if planned is None else (planned,), request, run, notes)
    weights = choice.weights if request.predictor is None else None
    measured = not selection.foreign and request.predictor in (None, choice.forecaster)
    refusal = refusal or unreachable
    if refusal is not None:
        notes.append(refusal)
    return Policy(
        model_key=record.model_key,
        revision=record.revision,
        status=record.status,
        layer=found.layer,
        signal=record.signal,
        curve=_curve(record, selection),
        profile=profile,
        refusal=refusal,
        needs_sigma=bool(selection.foreign) and _states_where_it_holds(record),
        first_skip_step=window.first,
        last_skip_step=_end(window, planned, choice),
        max_consecutive_skips=window.max_consecutive_skips,
        buckets=tuple(BucketShare(b.sequence_length, b.num_steps, b.shift, w) for b, w in selection.shares),
        sequence_length=run.sequence_length,
        num_steps=run.num_steps,
        shift=run.shift,
        threshold=choice.threshold,
        schedule=choice.schedule,
        weights=weights,
        noise_levels=None if weights is None or planned is None else _levels(planned),
        forecaster=request.predictor or choice.forecaster,
        coordinate=choice.coordinate,
        applied_to=choice.applied_to,
        # What was measured holds for the setting and the forecaster it was measured with.
        expected_speedup=None if selection.foreign else choice.speedup,
        expected_error=choice.error if measured else None,
        notes=tuple(notes),
    )


def _status_notes(record: Calibration, allow_yanked: bool) -> list[str]:
    notes = []
    if record.status == "yanked" and not allow_yanked:
        raise RetiredCalibration(record)
    if record.retirement is not None:
        notes.append(f"{record.status} on {record.retirement.date}: {record.retirement.reason}")
        if record.retirement.replacement:
            notes.append(f"Its replacement is {record.retirement.replacement!r}.")
    if record.status == "published":
        notes.append("Published numbers without traces: evaluated as their authors did, not validated here.")
    if record.status == "draft":
        notes.append("A draft: not yet judged on held-out traces.")
    return [*notes, *record.notes]


def _states_where_it_holds(record: Calibration) -> bool:
    """True for what was fitted to traces: its steps and shifts are what the traces had, not what a source happened to say."""
    return record.status in ("draft", "validated") or bool(record.provenance.traces)


def _refusal(record: Calibration, selection: Selection, profile: SigmaProfile | None, notes: list[str]) -> str | None:
    """Why nothing may be reused at this step count or shift; None when something may."""
    if not selection.foreign or not _states_where_it_holds(record):
        return None
    if profile is None:
        return (
            f"It was calibrated for {' and '.join(selection.foreign)}, and has no sigma profile that would carry it over: "
            "every step is computed."
        )
    notes.append("The sigma profile carries it over; a step whose noise level is not known is computed (pass sigma=).")
    return None


def _choice(
    selection: Selection, request: Request, run: RunContext, notes: list[str], *, refused: bool
) -> tuple[Choice, str | None]:
    """The operating point, and why there is none where the record has none for this sampler setting."""
    if refused:
        return Choice(threshold=0.0), None
    offers = [Offer(bucket.operating_points, weight, _levels(bucket)) for bucket, weight in selection.shares]
    try:
        return choose(offers, request, run, notes, foreign=bool(selection.foreign)), None
    except UnreachableTarget as error:
        if not selection.foreign:
            raise
        # The step count may become known in the middle of a program, so this must not end it.
        return Choice(threshold=0.0), f"At this step count and shift {error}; every step is computed."


def _curve(record: Calibration, selection: Selection) -> Curve:
    curves = [
        Polynomial(bucket.coefficients or (), domain=bucket.domain, post=record.rescale_post)
        for bucket in selection.buckets
    ]
    return curves[0] if len(curves) == 1 else Blend(curves[0], curves[1], selection.shares[1][1])


def _profile(selection: Selection) -> SigmaProfile | None:
    profiles = [
        None if entry is None else SigmaProfile(entry.sigmas, entry.distances)
        for entry in (bucket.sigma_profile for bucket in selection.buckets)
    ]
    if len(profiles) == 1:
        return profiles[0]
    lower, upper = profiles
    if lower is None or upper is None:
        return None
    return blend_profiles(lower, upper, selection.shares[1][1])


def _bucket_of(selection: Selection, choice: Choice) -> Bucket | None:
    """The bucket whose schedule was chosen: another one's window would cut it short. None for a threshold."""
    if choice.schedule is None:
        return None
    nearest_first = sorted(selection.shares, key=lambda share: -share[1])
    plan = (choice.schedule, choice.weights)
    return next(b for b, _ in nearest_first if any((p.schedule, p.weights) == plan for p in b.operating_points))


def _levels(bucket: Bucket) -> tuple[float, ...] | None:
    """The noise levels of the bucket's runs: its profile has a knot at each, and the sample's."""
    profile = bucket.sigma_profile
    known = profile is not None and bucket.num_steps is not None and len(profile.sigmas) == bucket.num_steps + 1
    return profile.sigmas if profile is not None and known else None


def _end(window: SkipWindow, planned: Bucket | None, choice: Choice) -> int | None:
    """The last step that may be reused: a schedule says nothing about steps beyond its own end."""
    if window.last is not None or choice.schedule is None or planned is None:
        return window.last
    return (planned.num_steps or choice.schedule[-1] + 1) - 1
