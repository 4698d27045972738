"""What this project's runtime drives: EasyTeaCache itself, the official TeaCache rule, and evenly spaced steps."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyteacache.bench.contender import Bed, Calibrated, Contender, Kind, Knob, Settings, most_steps
from easyteacache.errors import BenchError
from easyteacache.integrations.diffusers import model_identity, scheduler_facts
from easyteacache.policy.curves import Polynomial
from easyteacache.policy.policy import Policy
from easyteacache.teacache import TeaCache

if TYPE_CHECKING:
    from easyteacache.records.sampler import SamplerRecord
    from easyteacache.records.trace import Trace
    from easyteacache.registry.registry import Found

#: Signal of the official script of a class (ali-vilab/TeaCache 7c10efc), where it has one.
OFFICIAL_SIGNALS = {"WanTransformer3DModel": "timestep_projection", "FluxTransformer2DModel": "modulated_input"}
#: Runs the official fit records itself where it is given none.
OWN_RUNS = 4


class EasyTeaCache(Contender):
    """The calibration in the registry at ``speedup=``, nothing else tuned."""

    name = "EasyTeaCache"
    family = "easyteacache"
    kind: Kind = "own"
    #: How the command line is told of a record.
    option = "--record"

    def record(self, bed: Bed) -> str | Path | None:
        """Model key or file of the calibration."""
        return bed.record

    def inapplicable(self, bed: Bed) -> str | None:
        """Not without a record."""
        return f"no calibration of this model: name one with {self.option}" if self.record(bed) is None else None

    def calibrate(self, bed: Bed) -> Calibrated:
        """Which record it is, so that results of another one are not mixed with these."""
        from easyteacache.files import strict_json

        record = named_record(self.record(bed)).calibration
        text = strict_json.spell(record.model_dump(mode="json"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        return {"model_key": record.model_key, "revision": record.revision, "sha256": digest}

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """One point a target."""
        return tuple({"speedup": float(target)} for target in bed.targets)

    def piloted(self) -> bool:
        """Its points were chosen when the record was made."""
        return False

    @contextlib.contextmanager
    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Iterator[None]:
        """Attached inside the block."""
        record = self.record(bed)
        found: Callable[..., TeaCache] = TeaCache.from_file if isinstance(record, Path) else TeaCache.from_registry
        tokens = bed.subject.tokens(bed.case)
        cache = found(record, sequence_length=tokens, num_steps=bed.case.steps, speedup=settings["speedup"])
        with cache.attached(bed.subject.pipe):
            yield


class MeasuredEasyTeaCache(EasyTeaCache):
    """The same by a record whose plans ``easyteacache solve --measure`` chose: candidates are sampled before one is taken."""

    name = "EasyTeaCache, measured"
    kind = "own, measured"
    option = "--measured-record"

    def record(self, bed: Bed) -> str | Path | None:
        """Model key or file of that calibration."""
        return bed.measured


class OfficialTeaCache(Contender):
    """The official rule: a quartic by ``numpy.polyfit``, accumulated as it is, first and last step computed, plain reuse."""

    name = "TeaCache (official rule)"
    family = "TeaCache"
    kind = "hold"
    knob = Knob("threshold", 1e-4, 20.0)
    packages = ()
    note = "fitted natively to traces of the same step count"

    def inapplicable(self, bed: Bed) -> str | None:
        """Only classes with a known signal."""
        kind = type(bed.transformer).__name__
        if len(bed.subject.transformers) > 1:
            return "the pipeline has two transformers"
        return None if kind in OFFICIAL_SIGNALS else f"no official signal is known for {kind}"

    def calibrate(self, bed: Bed) -> Calibrated:
        """Fit the quartic."""
        from easyteacache.solver.fit import curves
        from easyteacache.solver.fit.points import gather

        signal = OFFICIAL_SIGNALS[type(bed.transformer).__name__]
        traces = recorded_runs(bed)
        fitted = curves.teacache(gather(traces, signal))
        return {"signal": signal, "coefficients": list(fitted.coefficients or ()), "runs": len(traces)}

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """The threshold is all there is."""
        return ({},)

    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> contextlib.AbstractContextManager[Any]:
        """Attached inside the block."""
        policy = plain_policy(
            bed,
            signal=calibrated["signal"],
            curve=Polynomial(tuple(calibrated["coefficients"])),
            threshold=settings["threshold"],
            first_skip_step=1,
            last_skip_step=bed.case.steps - 2,
        )
        return TeaCache.from_policy(policy).attached(bed.subject.pipe)


class Uniform(Contender):
    """Evenly spaced computed steps, filled by one forecaster: what needs no calibration at all.

    Args:
        forecaster: ``hold`` or ``linear``.
    """

    family = "easyteacache runtime"
    packages = ()

    def __init__(self, forecaster: str) -> None:
        self.forecaster = forecaster
        self.name = f"uniform, {forecaster}"
        self.kind = "hold" if forecaster == "hold" else "forecast"

    def inapplicable(self, bed: Bed) -> str | None:
        """One transformer alone."""
        return "the pipeline has two transformers" if len(bed.subject.transformers) > 1 else None

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """As many steps as a target allows."""
        counts = dict.fromkeys(most_steps(bed.case, target) for target in bed.targets)
        return tuple({"computed": count} for count in counts)

    def piloted(self) -> bool:
        """There is nothing to choose."""
        return False

    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> contextlib.AbstractContextManager[Any]:
        """Attached inside the block."""
        from easyteacache.solver.search.schedules import uniform

        policy = plain_policy(
            bed, schedule=uniform(bed.case.steps, settings["computed"]), forecaster=self.forecaster, threshold=0.0
        )
        return TeaCache.from_policy(policy).attached(bed.subject.pipe)


class RecordFree(Contender):
    """A plan of this project that needs no record: ``TeaCache.uncalibrated`` or ``TeaCache.even``.

    Args:
        name: ``uncalibrated`` or ``even``.
    """

    family = "easyteacache runtime"
    kind = "forecast"
    packages = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self._made: Callable[..., TeaCache] = {"uncalibrated": TeaCache.uncalibrated, "even": TeaCache.even}[name]

    def inapplicable(self, bed: Bed) -> str | None:
        """One transformer alone."""
        return "the pipeline has two transformers" if len(bed.subject.transformers) > 1 else None

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """One point a target."""
        return tuple({"speedup": float(target)} for target in bed.targets)

    def piloted(self) -> bool:
        """There is nothing to choose."""
        return False

    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> contextlib.AbstractContextManager[Any]:
        """Attached inside the block."""
        return self._made(settings["speedup"]).attached(bed.subject.pipe)


class PublishedPlan(Contender):
    """A plan that was published for another, large model, step by step as it is.

    Args:
        name: of the contender.
        key: the record that holds the plans.
        forecaster: fills reused steps; ``hold`` is what was published.
    """

    family = "published plan"
    packages = ()

    def __init__(self, name: str, key: str, forecaster: str) -> None:
        self.name, self._key, self._forecaster = name, key, forecaster
        self.kind = "hold" if forecaster == "hold" else "forecast"
        self.note = f"the steps of {key}" + (
            "" if forecaster == "hold" else f", filled by this project's {forecaster} forecast"
        )

    def _plans(self, steps: int) -> dict[int, tuple[int, ...]]:
        from easyteacache.registry.registry import Registry

        found = {}
        for bucket in Registry.default().find(self._key).calibration.buckets:
            plans = [point.plan for point in bucket.operating_points if bucket.num_steps == steps and point.plan]
            found.update({len(plan.computed): plan.computed for plan in plans})
        return found

    def inapplicable(self, bed: Bed) -> str | None:
        """Only at the step count it was published for."""
        if len(bed.subject.transformers) > 1:
            return "the pipeline has two transformers"
        return None if self._plans(bed.case.steps) else f"nothing is published for {bed.case.steps} steps"

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """Every published one."""
        return tuple({"computed": count} for count in sorted(self._plans(bed.case.steps), reverse=True))

    def piloted(self) -> bool:
        """There is nothing to choose."""
        return False

    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> contextlib.AbstractContextManager[Any]:
        """Attached inside the block."""
        schedule = self._plans(bed.case.steps)[settings["computed"]]
        policy = plain_policy(bed, schedule=schedule, forecaster=self._forecaster, threshold=0.0)
        return TeaCache.from_policy(policy).attached(bed.subject.pipe)


def plain_policy(bed: Bed, **changes: Any) -> Policy:
    """A policy for this model that no record made, with ``changes`` of its fields."""
    plain: dict[str, Any] = {
        "model_key": "bench/contender",
        "revision": 1,
        "status": "draft",
        "layer": "bench",
        "signal": "hidden_states",
        "curve": Polynomial((1.0, 0.0)),
        "first_skip_step": 0,
        "last_skip_step": None,
        "max_consecutive_skips": None,
        "buckets": (),
        "num_steps": bed.case.steps,
        # Whatever it was made for: that it runs here is the point.
        "model": model_identity.of_run(bed.transformer),
    }
    return Policy(**{**plain, **changes})


def named_record(record: str | Path | None) -> Found:
    """The calibration that ``--record`` names, by key or as a file.

    Raises:
        BenchError: none is named.
        InvalidCalibration: the file is none.
        UnknownModelKey: no layer has the key.
    """
    from easyteacache.registry.registry import Found, Registry

    if record is None:
        raise BenchError("no calibration is named")
    return Found.in_file(record) if isinstance(record, Path) else Registry.default().find(record)


def _may_be_of(run: Trace, sampler: SamplerRecord | None) -> bool:
    """Was it recorded with this sampler, as far as both say which?"""
    recorded = run.header.sampler
    return sampler is None or recorded is None or recorded.agrees(sampler) is not False


def recorded_runs(bed: Bed, holds: Callable[[Trace], bool] = lambda run: True) -> Any:
    """The given traces of this step count and sampler, of images or videos as the case is, or a few runs recorded now.

    Args:
        bed: of the case.
        holds: whether a given run has what is wanted of it.
    """
    from easyteacache.records.trace_set import TraceSet

    if bed.traces is not None:
        facts = scheduler_facts.facts_for(bed.subject.pipe.scheduler, bed.case.steps)
        sampler = None if facts is None else facts.record()
        alike = TraceSet.load(bed.traces).group(num_steps=bed.case.steps)
        moves = (bed.case.frames or 1) > 1
        given = TraceSet(run for run in alike if run.header.moves == moves and _may_be_of(run, sampler) and holds(run))
        if len(given):
            return given
    from easyteacache.integrations.diffusers.recording import RecordingSettings, record_pipeline

    jobs = [bed.subject.job(bed.case, pair) for pair in bed.calibration_pairs[:OWN_RUNS]]
    with tempfile.TemporaryDirectory() as folder:
        record_pipeline(bed.subject.pipe, jobs, folder, RecordingSettings(model_key="bench/contender"), progress=False)
        return TraceSet.load(folder)
