"""Resolve a calibration for one request and one run: all that the runtime needs, and why.

Between two buckets *curves* are blended, (1−w)·p_lo(x) + w·p_hi(x) with w linear in log(sequence length), each clamped to its own
domain; the skip window is the cautious intersection, but for a schedule, which keeps to its own bucket's. Outside the outermost buckets the nearest one is used, and says so.

For another step count or shift a polynomial says little (measured in docs/transfer.md). What was fitted and judged here is then
carried over by its sigma profile or computes every step; published numbers scale their window, as their users do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from easyteacache.errors import EasyTeaCacheError, InvalidCalibration, InvalidPlan, UnreachableTarget
from easyteacache.policy.bucket_choice import Selection, select
from easyteacache.policy.carry_limits import why_not
from easyteacache.policy.curves import Blend, Curve, Polynomial, SigmaProfile, blend_profiles
from easyteacache.policy.figures import UNKNOWN, Standing
from easyteacache.policy.methods import of_steps, rule_for
from easyteacache.policy.model_match import differences, other_guidance
from easyteacache.policy.operating_point import Choice, Offer, choose
from easyteacache.policy.planned import PlannedSteps, carryable, levels_in, levels_of, other_length, plan_in
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.skip_window import NEEDS_STEPS, SkipWindow, skip_window
from easyteacache.records.bucket import Bucket
from easyteacache.records.calibration import Calibration
from easyteacache.records.model_identity import ModelIdentity
from easyteacache.records.plan import Plan
from easyteacache.records.sampler import SamplerRecord
from easyteacache.registry.registry import Found

__all__ = ["BucketShare", "DecidedBy", "Policy", "RetiredCalibration", "resolve"]

DecidedBy = Literal["schedule", "sigma", "signal", "nothing"]
_PER_BRANCH = (
    "Its plan was made for the output after guidance. Here the output of each branch is predicted, which comes to the same where "
    "guidance is a weighted sum of them, and does not where it rescales that sum."
)
_INSTEAD = "It was made for the {}: here the {} is predicted in its place, and what is known of its error may not hold."
_UNSEEN = "It is decided by the signal {}, which lies inside the model and is not seen here: every step is computed."
_WHERE = {"residual": "residual inside the model", "feature": "feature before the head", "output": "output"}
EXACT = "quality='exact': nothing is reused, every step is computed."
#: Most steps reused in a row by published numbers that state no limit: no published plan of up to 4 times the speed reuses more.
LONGEST_RUN = 7


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
        branch_schedules: (branch, its computed steps), where a plan has several; ``schedule`` then has those that any of them computes.
        weights: per step those of the last computed outputs, when the predictor is ``fitted`` to that schedule.
        corrected: the weights of computed steps correct the sampler's state; False: they only fill reused steps.
        combined: what is predicted is the output after guidance, one for all branches.
        noise_levels: those of every step and of the sample, (S + 1,), that the weights were fitted at; None where nobody says.
        fitted_for: the sampler that weights were fitted for; None where nobody says, and for weights that correct it was Euler's.
        run_levels: those of the run, for predictors whose weights follow from them; None where they are not known.
        forecaster: name of what fills a reused step; ``coordinate`` its axis, ``applied_to`` what it extrapolates.
        first_skip_step, last_skip_step: inclusive window in which reuse is allowed; last is None when the end is not known.
        max_consecutive_skips: most steps reused in a row, None for no limit.
        wished_limit: the caller's own ``max_consecutive_skips``, which holds beside a plan, too; None: there is none.
        longest_run: most steps reused in a row where nobody states a limit: this project's own caution, which no engine is told of.
        buckets: the buckets used, with their weights.
        sequence_length, num_steps, shift: what it was resolved for; None where the caller did not say.
        expected_speedup, expected_error: what the operating point gave on held-out runs, where the record knows.
        standing: what is known of it; the evidence is ``carried`` where it is used for another run than it was made for.
        carried: why and how it was carried over, a sentence; None where it was not.
        warnings: what a user must notice, one sentence each; they are among the notes, too.
        model: the model the record was made with, as far as it says.
        refusal: why no step may be reused in this run; None when steps may be.
        foreign: it is used under another sampler, step count or shift than it was made for.
        recording: that this run is recorded in full, and why, a sentence; None where it is not.
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
    wished_limit: int | None = None
    longest_run: int | None = None
    profile: SigmaProfile | None = None
    schedule: tuple[int, ...] | None = None
    branch_schedules: tuple[tuple[str, tuple[int, ...]], ...] = ()
    weights: tuple[tuple[float, ...], ...] | None = None
    corrected: bool = True
    combined: bool = False
    noise_levels: tuple[float, ...] | None = None
    fitted_for: SamplerRecord | None = None
    run_levels: tuple[float, ...] | None = None
    forecaster: str = "hold"
    coordinate: str = "step"
    applied_to: str = "residual"
    sequence_length: int | None = None
    num_steps: int | None = None
    shift: float | None = None
    expected_speedup: float | None = None
    expected_error: float | None = None
    standing: Standing = UNKNOWN
    carried: str | None = None
    warnings: tuple[str, ...] = ()
    model: ModelIdentity | None = None
    refusal: str | None = None
    foreign: bool = False
    needs_sigma: bool = False
    recording: str | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def evidence(self) -> str | None:
        """The strongest kind of evidence, ``carried`` where it is used for another run than it was made for; None: there is none."""
        return "carried" if self.carried is not None else self.standing.evidence

    @property
    def doubtful(self) -> bool:
        """Must a user notice that it was carried over?"""
        return self.carried is not None and self.carried in self.warnings

    def noting(self, note: str) -> Policy:
        """The same policy with one more note."""
        return dataclasses.replace(self, notes=(*self.notes, note))

    def schedule_of(self, branch: str) -> tuple[int, ...] | None:
        """The computed steps of one branch; None where no plan decides."""
        return dict(self.branch_schedules).get(branch, self.schedule)

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
        InvalidCalibration: the record holds presets, which are another engine's.
        UnreachableTarget: no operating point reaches the speed-up or error asked for.

    What the record cannot do at another step count or shift than its own is no error: the policy then says so in ``refusal``.
    """
    if isinstance(found, Calibration):
        found = Found(found, "given", found.model_key)
    request, run = request or Request(), run or RunContext()
    record = found.calibration
    notes = [*found.notes, *_status_notes(record, allow_yanked)]
    if request.exact:
        notes.append(EXACT)
        request = dataclasses.replace(request, quality=None, threshold=0.0)
    _refuse_presets(record)
    # Where nobody asked for any reuse the sample is the uncached one, whatever the record was made with.
    idle = request.threshold == 0
    selection = select(record.buckets, run, notes)
    profile = _profile(selection)
    refusal = None if idle else _refusal(record, selection, profile, request, run)
    choice, unreachable = _choice(record, selection, request, run, notes, refused=refusal is not None)
    refusal = refusal or unreachable
    planned = _bucket_of(selection, choice)
    steps: PlannedSteps | None = None
    if refusal is None:
        steps, refusal = _steps(record, selection, planned, choice, request, run)
    if steps is not None:
        planned = planned or selection.main
        notes.extend([steps.carried] if steps.carried is not None and not steps.doubtful else [])
        combined = choice.plan is not None and choice.plan.combined
        notes.extend([_PER_BRANCH] if combined and not run.can.guided else [])
    window = _window(record, selection, planned, request, run, notes)
    plan = choice.plan if request.predictor is None else None
    instead = _in_place_of(choice, run)
    carried = None if refusal is not None or idle else _joined(_carried(record, selection, run, steps), instead)
    others = [] if run.model is None else differences(record.model, run.model)
    if choice.error is not None and carried is None:
        others += other_guidance(record.conditions.guidance_scale, run)
    warned = () if idle else _warnings(refusal, carried, steps if instead is None else None, others, notes)
    notes.extend(text for text in warned if text not in notes)
    promised = carried is None and not others and request.predictor in (None, choice.forecaster)
    schedule = None if steps is None else steps.schedule
    weights = None if plan is None else plan.rows
    return Policy(
        model_key=record.model_key,
        revision=record.revision,
        status=record.status,
        layer=found.layer,
        signal=record.signal,
        curve=_curve(record, selection),
        profile=profile,
        refusal=refusal,
        foreign=bool(selection.foreign),
        needs_sigma=bool(selection.foreign) and schedule is None and _states_where_it_holds(record),
        first_skip_step=window.first,
        last_skip_step=_end(window, planned, schedule),
        max_consecutive_skips=window.max_consecutive_skips,
        wished_limit=request.max_consecutive_skips,
        longest_run=None if schedule is not None or _states_where_it_holds(record) else LONGEST_RUN,
        buckets=tuple(BucketShare(b.sequence_length, b.num_steps, b.shift, w) for b, w in selection.shares),
        sequence_length=run.sequence_length,
        num_steps=run.num_steps,
        shift=run.shift,
        threshold=choice.threshold if refusal is None else 0.0,
        schedule=schedule,
        branch_schedules=() if steps is None else steps.of_branches,
        weights=weights,
        corrected=plan is None or plan.corrected or plan.rows is None,
        combined=choice.plan is not None and choice.plan.combined,
        noise_levels=None if weights is None or planned is None else _levels(planned, plan),
        fitted_for=planned.sampler if planned is not None and plan is not None and plan.corrected else None,
        run_levels=None if run.sampler is None else run.sampler.levels,
        forecaster=request.predictor or choice.forecaster,
        coordinate=choice.coordinate,
        applied_to=run.can.alone or choice.applied_to,
        # What was measured holds for the setting, the model and the predictor it was measured with.
        expected_speedup=_expected(selection, choice, schedule, run),
        expected_error=choice.error if promised and not selection.foreign else None,
        standing=_standing(selection, choice, schedule, run),
        carried=carried,
        warnings=warned,
        model=record.model,
        notes=tuple(notes),
    )


def _refuse_presets(record: Calibration) -> None:
    if record.method != "preset":
        return
    engines = sorted({p.preset.engine for b in record.buckets for p in b.operating_points if p.preset is not None})
    raise InvalidCalibration(
        record.model_key,
        f"it holds presets of {', '.join(engines)}, which this project never applies; use `easyteacache export` to hand them to "
        "the engine that runs them",
        rule="record.method",
    )


def _in_place_of(choice: Choice, run: RunContext) -> str | None:
    """What is predicted in place of what a point was made for, a sentence; None where it is that."""
    if run.can.alone is None or choice.applied_to == run.can.alone:
        return None
    return _INSTEAD.format(_WHERE[choice.applied_to], _WHERE[run.can.alone])


def _joined(*sentences: str | None) -> str | None:
    return " ".join(one for one in sentences if one is not None) or None


def _warnings(
    refusal: str | None, carried: str | None, steps: PlannedSteps | None, others: Sequence[str], notes: Sequence[str]
) -> tuple[str, ...]:
    """What a user must notice: that nothing is reused and why, or that the evidence is of something else."""
    if refusal is not None:
        return (refusal,)
    found = list(others)
    if carried is not None and (steps is None or steps.carried is None or steps.doubtful):
        found.append(carried)
    found.extend(note for note in notes if note == NEEDS_STEPS)
    return tuple(found)


def _carried(record: Calibration, selection: Selection, run: RunContext, steps: PlannedSteps | None) -> str | None:
    """Why what is used is not what the record has evidence of, a sentence; None where it is."""
    if steps is not None and steps.carried is not None:
        return steps.carried
    if selection.unsure is not None:
        return selection.unsure
    if selection.foreign and _states_where_it_holds(record):
        made = " and ".join(selection.foreign)
        return (
            f"It was made for {made}: the sigma profile carries it over, its evidence does not hold, and a step whose noise level is "
            "not known is computed (pass sigma=)."
        )
    if len(selection.shares) > 1 or not _states_where_it_holds(record):
        # Between two lengths what was found at both holds (docs/transfer.md); published numbers state one length and no error.
        return None
    length = other_length(selection.main.sequence_length, run.sequence_length)
    return None if length is None else f"It was made for {length}: what is known of its error may not hold."


def _steps(
    record: Calibration,
    selection: Selection,
    planned: Bucket | None,
    choice: Choice,
    request: Request,
    run: RunContext,
) -> tuple[PlannedSteps | None, str | None]:
    """The computed steps where a plan or a method's rule decides, and why nothing can be reused where they cannot be known."""
    if choice.plan is not None and planned is not None:
        judged = not of_steps(record.method)
        if judged and not selection.foreign:
            return PlannedSteps(choice.plan.computed), None
        # Published plans are carried over as their authors' engines do; what was judged here must do no more harm.
        profile = profile_of(planned) if judged else None
        try:
            return plan_in(choice.plan, planned, run, selection.foreign, profile), None
        except InvalidPlan as error:
            return (
                None,
                f"It was made for {' and '.join(selection.foreign)}, and cannot be carried over: {error}; every step is computed.",
            )
    rule = rule_for(record.method)
    if rule is None or choice.threshold <= 0:
        unseen = choice.threshold > 0 and run.can.alone is not None and _profile(selection) is None
        return None, _UNSEEN.format(record.signal) if unseen else None
    try:
        return rule(record.model_key, selection.main, choice.threshold, request, run), None
    except InvalidPlan as error:
        return None, f"The steps of {record.method} cannot be known: {error}; every step is computed."


def _window(
    record: Calibration,
    selection: Selection,
    planned: Bucket | None,
    request: Request,
    run: RunContext,
    notes: list[str],
) -> SkipWindow:
    """Where reuse is allowed; what a plan or a rule computes already keeps to the record's own window."""
    if of_steps(record.method):
        free = {"skip_window_fraction": None, "max_consecutive_skips": None, "num_steps": run.num_steps}
        return skip_window([(planned or selection.main).model_copy(update=free)], request, run, notes)
    return skip_window(selection.buckets if planned is None else (planned,), request, run, notes)


def _standing(selection: Selection, choice: Choice, schedule: tuple[int, ...] | None, run: RunContext) -> Standing:
    """What is known of the point, with the speed-up that is to be expected in this run."""
    standing = dataclasses.replace(choice.standing, fixed=schedule is not None)
    if not selection.foreign:
        return standing
    return dataclasses.replace(standing, speedup=_expected(selection, choice, schedule, run))


def _expected(selection: Selection, choice: Choice, schedule: tuple[int, ...] | None, run: RunContext) -> float | None:
    """The speed-up to expect: the point's own, and of steps that were carried over or counted here theirs."""
    if not selection.foreign:
        return choice.speedup
    return None if schedule is None or run.num_steps is None else run.num_steps / len(schedule)


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


def _refusal(
    record: Calibration, selection: Selection, profile: SigmaProfile | None, request: Request, run: RunContext
) -> str | None:
    """Why nothing may be reused under this sampler, step count or shift; None when something may."""
    if not selection.foreign or not _states_where_it_holds(record):
        return None
    made = f"It was made for {' and '.join(selection.foreign)}"
    why = why_not(selection.buckets, request, run)
    if why is not None:
        return f"{made}, and {why}: every step is computed."
    if profile is None:
        return f"{made}, and has no sigma profile that would carry it over: every step is computed."
    return None


def _carries_plans(record: Calibration, selection: Selection, request: Request, run: RunContext) -> bool:
    """Can a plan of what was fitted here be carried over, step by step by their noise levels?

    Measured to do half the harm of its thresholds over the sigma profile (docs/runtime.md): a plan was searched for, a threshold is
    one number.
    """
    if not selection.foreign or not _states_where_it_holds(record) or request.threshold is not None:
        return False
    bucket = selection.main
    steps = run.num_steps or bucket.num_steps
    if steps is None or bucket.num_steps is None or bucket.sigma_profile is None or levels_in(run, steps) is None:
        return False
    return levels_of(bucket, bucket.num_steps) is not None and any(
        point.plan is not None and carryable(point.plan) for point in bucket.operating_points
    )


def _choice(
    record: Calibration, selection: Selection, request: Request, run: RunContext, notes: list[str], *, refused: bool
) -> tuple[Choice, str | None]:
    """The operating point, and why there is none where the record has none for this sampler setting."""
    if refused:
        return Choice(threshold=0.0), None
    rule = rule_for(record.method)
    offers = [
        Offer(b.operating_points, weight, _levels(b), b.num_steps, _unseen(record, b, run), b.sampler)
        for b, weight in selection.shares
    ]
    # Where a rule makes steps of thresholds in any run, nothing has to be carried over.
    ruled = rule is not None and any(p.plan is None for offer in offers for p in offer.points)
    carry = (of_steps(record.method) and not ruled) or _carries_plans(record, selection, request, run)
    try:
        return choose(offers, request, run, notes, foreign=bool(selection.foreign), carry=carry), None
    except UnreachableTarget as error:
        if not selection.foreign:
            raise
        # The step count may become known in the middle of a program, so this must not end it.
        return Choice(threshold=0.0), f"At this step count and shift {error}; every step is computed."


def _unseen(record: Calibration, bucket: Bucket, run: RunContext) -> str | None:
    """The signal that a bucket's thresholds need and the run's driver does not see; None where there is none."""
    if run.can.alone is None or rule_for(record.method) is not None or bucket.sigma_profile is not None:
        return None
    return f"the signal {record.signal}"


def _curve(record: Calibration, selection: Selection) -> Curve:
    # What was fitted here rises over its own domain and is never asked beyond it; of other lists nobody knows.
    made = Polynomial if _states_where_it_holds(record) else Polynomial.trusted
    curves = [made(b.coefficients or (), domain=b.domain, post=record.rescale_post) for b in selection.buckets]
    return curves[0] if len(curves) == 1 else Blend(curves[0], curves[1], selection.shares[1][1])


def _profile(selection: Selection) -> SigmaProfile | None:
    profiles = [profile_of(bucket) for bucket in selection.buckets]
    if len(profiles) == 1:
        return profiles[0]
    lower, upper = profiles
    if lower is None or upper is None:
        return None
    return blend_profiles(lower, upper, selection.shares[1][1])


def profile_of(bucket: Bucket) -> SigmaProfile | None:
    """A bucket's sigma profile."""
    entry = bucket.sigma_profile
    return None if entry is None else SigmaProfile(entry.sigmas, entry.distances)


def _bucket_of(selection: Selection, choice: Choice) -> Bucket | None:
    """The bucket whose schedule was chosen: another one's window would cut it short. None for a threshold."""
    if choice.schedule is None:
        return None
    nearest_first = sorted(selection.shares, key=lambda share: -share[1])
    return next(b for b, _ in nearest_first if any(p.plan == choice.plan for p in b.operating_points))


def _levels(bucket: Bucket, plan: Plan | None = None) -> tuple[float, ...] | None:
    """The noise levels that rows hold over: the plan's, the bucket's sampler's, or the knots of its profile, one at each and the sample's."""
    if plan is not None and plan.levels is not None:
        return plan.levels
    if bucket.sampler is not None and bucket.sampler.levels is not None:
        return bucket.sampler.levels
    profile = bucket.sigma_profile
    known = profile is not None and bucket.num_steps is not None and len(profile.sigmas) == bucket.num_steps + 1
    return profile.sigmas if profile is not None and known else None


def _end(window: SkipWindow, planned: Bucket | None, schedule: tuple[int, ...] | None) -> int | None:
    """The last step that may be reused: a schedule says nothing about steps beyond its own end."""
    if window.last is not None or schedule is None or planned is None:
        return window.last
    return (planned.num_steps or schedule[-1] + 1) - 1
