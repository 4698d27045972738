"""Versions 1 and 2 of the record format, as they were released, and the way from them to version 3.

Files of these versions are judged by their own rules: the models below are what the released schema files say, and never
change. Version 1 is version 2 without the weights of an operating point.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from easyteacache.errors import InvalidCalibration
from easyteacache.files import strict_json
from easyteacache.records import parsing
from easyteacache.records.bucket import BucketFields, SigmaProfileRecord
from easyteacache.records.evidence import RELATIVE_L2
from easyteacache.records.fields import (
    MAX_STEPS,
    Branch,
    Count,
    IsoDate,
    LongText,
    ModelKey,
    NotNegative,
    Positive,
    PredictorName,
    Record,
    Sha256,
    ShortText,
    Status,
    StepCount,
)
from easyteacache.records.plan import FITTED, Computed
from easyteacache.records.provenance import Alias, Retirement, Source, TraceReference, check_traces
from easyteacache.records.sampler import EULER, SamplerRecord
from easyteacache.records.whole_record import (
    check_aliases,
    check_branches,
    check_buckets,
    check_key,
    check_status,
    spelled,
)

WeightRow = Annotated[tuple[Annotated[float, Field(ge=-1000, le=1000)], ...], Field(min_length=1, max_length=16)]
WeightTable = Annotated[tuple[WeightRow, ...], Field(min_length=1, max_length=MAX_STEPS)]
Signal2 = Literal[
    "timestep_embedding",
    "timestep_projection",
    "modulated_input",
    "hidden_states",
    "first_block_residual",
    "unknown",
]


class ErrorStatistics2(Record):
    """Error of the final sample over runs, relative L2 (dimensionless, 0 = identical)."""

    mean: NotNegative = Field(description="Mean over runs, relative L2, dimensionless, 0 or more.")
    p90: NotNegative | None = Field(
        default=None, description="90th percentile over runs, relative L2, dimensionless, 0 or more."
    )
    runs: Count | None = Field(default=None, description="Runs it was measured on, at least 1.")


class OperatingPoint2(Record):
    """One setting that may be chosen, a threshold or a schedule, and what it gave."""

    threshold: Positive | None = Field(
        default=None,
        description="Accumulated predicted distance at which a step must be computed, dimensionless, above 0.",
    )
    schedule: Computed | None = Field(
        default=None,
        description="Instead of a threshold: the computed steps, zero-based indices, ascending, beginning with 0.",
    )
    forecaster: PredictorName = Field(
        default="hold",
        description="What fills a reused step: `hold`, `linear`, `quadratic`, `taylor-N`, `foca`, `fitted` …",
    )
    coordinate: Literal["step", "timestep", "sigma"] = Field(
        default="step", description="The axis the forecaster extrapolates along."
    )
    applied_to: Literal["residual", "output"] = Field(
        default="residual", description="What is forecast: the block-stack residual or the model's output."
    )
    weights: WeightTable | None = Field(
        default=None,
        description="Per step the weights of the model outputs at the last computed steps up to and including this one, "
        "oldest first; their weighted sum is what would move the sample to where it should be. A computed step corrects "
        "an Euler sampler's sample by them, and the forecaster `fitted` fills reused steps with them. "
        "One row a step, 1 to 16 weights a row, dimensionless, −1000 to 1000; the row of step 0 is [1].",
    )
    computed_steps: StepCount | None = Field(
        default=None, description="Steps computed in one run (rounded mean over runs for a threshold), at least 1."
    )
    speedup: Annotated[float, Field(ge=1)] | None = Field(
        default=None,
        description="Steps divided by computed steps where evidence is replayed or measured; the source's own "
        "wall-clock figure where it is reported. A factor, 1 or more.",
    )
    error: ErrorStatistics2 | None = Field(default=None, description="Error on held-out runs.")
    evidence: Literal["replayed", "measured", "reported"] = Field(
        description="`replayed` on recorded traces, `measured` end to end, or `reported` by the source without traces."
    )
    latency_seconds: Positive | None = Field(
        default=None, description="Wall time the source reports, seconds, above 0."
    )
    hardware: ShortText | None = Field(default=None, description="Device the source reports it for.")
    note: LongText | None = Field(default=None, description="What else the source says.")

    @model_validator(mode="after")
    def _one_kind_of_gate(self) -> OperatingPoint2:
        if (self.threshold is None) == (self.schedule is None):
            raise ValueError("an operating point has either a threshold or a schedule, exactly one of them")
        if self.schedule is not None:
            if any(b <= a for a, b in pairwise(self.schedule)):
                raise ValueError("schedule must be strictly ascending")
            if self.schedule[0] != 0:
                raise ValueError("a schedule begins with step 0, because nothing can be reused before it")
            if self.computed_steps not in (None, len(self.schedule)):
                raise ValueError(f"computed_steps is {self.computed_steps}, the schedule lists {len(self.schedule)}")
        return self

    @model_validator(mode="after")
    def _weights_of_what_was_computed(self) -> OperatingPoint2:
        if self.forecaster == FITTED and self.weights is None:
            raise ValueError(f"forecaster is {FITTED!r}: weights must be given, they are what was fitted")
        if self.weights is None:
            return self
        if self.schedule is None:
            raise ValueError("weights without a schedule: they hold for the steps that one schedule computes")
        if self.coordinate != "step":
            raise ValueError(f"coordinate is {self.coordinate!r}; weights are given per step, expected 'step'")
        if self.forecaster == FITTED and self.applied_to != "output":
            raise ValueError(f"applied_to is {self.applied_to!r}; weights are of model outputs, expected 'output'")
        if self.weights[0] != (1.0,):
            raise ValueError(
                f"the weights of step 0 are {list(self.weights[0])}; expected [1], nothing is forecast there"
            )
        computed, done = set(self.schedule), 0
        for step, row in enumerate(self.weights):
            done += step in computed
            if len(row) > done:
                raise ValueError(
                    f"step {step} has {len(row)} weights; up to it the schedule computes {done} of the steps"
                )
        return self


class Bucket2(BucketFields):
    """Fitted parameters at one sequence length and sampler setting."""

    operating_points: Annotated[tuple[OperatingPoint2, ...], Field(max_length=1000)] = Field(
        default=(), description="Settings to choose from, the most cautious first."
    )
    sigma_profile: SigmaProfileRecord | None = Field(
        default=None,
        description="Accumulated output distance over sigma; carries over to other step counts and shifts.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Bucket2:
        self.check_fields()
        for point in self.operating_points:
            if point.schedule is not None:
                self.check_schedule(point.schedule)
            if point.weights is not None:
                self.check_rows(len(point.weights), of="weights")
            if point.computed_steps and self.num_steps is not None and point.computed_steps > self.num_steps:
                raise ValueError(f"computed_steps is {point.computed_steps}, more than num_steps = {self.num_steps}")
        return self


class Conditions2(Record):
    """What held while the calibration was made; absent where a source does not say."""

    sampler: ShortText | None = Field(default=None, description="Sampler or scheduler class.")
    guidance_scale: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Guidance scale, dimensionless, 0 or more."
    )
    dtype: ShortText | None = Field(default=None, description="Number type of the transformer, for example `bfloat16`.")
    quantization: ShortText | None = Field(default=None, description="Quantisation of the weights, if any.")
    note: LongText | None = Field(default=None, description="Anything else that the numbers depend on.")


class Provenance2(Record):
    """Who made the calibration, from what, with what, under which licence."""

    license: ShortText | None = Field(default=None, description="Licence of these numbers, SPDX id where it has one.")
    author: ShortText | None = Field(default=None, description="Who fitted them.")
    date: IsoDate | None = Field(default=None, description="Date of the fit, YYYY-MM-DD.")
    tool: ShortText | None = Field(default=None, description="Program that fitted them.")
    tool_version: ShortText | None = Field(default=None, description="Its version.")
    tool_options: ShortText | None = Field(
        default=None, description="Options the numbers depend on, as its command line takes them; absent: its defaults."
    )
    checkpoint: ShortText | None = Field(default=None, description="Checkpoint, as Hub repository id.")
    checkpoint_commit: ShortText | None = Field(default=None, description="Commit or hash of the checkpoint.")
    prompt_set: LongText | None = Field(default=None, description="Prompts the runs were recorded on.")
    prompt_set_sha256: Sha256 | None = Field(default=None, description="SHA-256 of the list of prompts.")
    traces: Annotated[tuple[TraceReference, ...], Field(max_length=10_000)] = Field(
        default=(), description="Trace files the fit used, by content hash; required once the status is `validated`."
    )
    sources: Annotated[tuple[Source, ...], Field(max_length=1000)] = Field(
        default=(),
        description="Public places that print these numbers, first the original; required where the status is `published`.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Provenance2:
        check_traces(self.traces)
        return self


class Calibration2(Record):
    """All buckets of one model key for one signal, with its provenance: one file of the registry."""

    schema_version: Literal[2] = Field(description="Version of this format.")
    model_key: ModelKey = Field(
        description="Hierarchical name of what was calibrated; equals the file's path without `.json`."
    )
    revision: Count = Field(description="Raised by one with every change of the file, from 1.")
    status: Status = Field(
        description="`draft` (not judged), `validated` (passed on held-out traces), `published` (taken from public "
        "sources without traces), `deprecated` (use the replacement) or `yanked` (must not be used)."
    )
    title: ShortText = Field(description="The model's name as people write it.")
    modality: Literal["image", "video", "audio", "video-audio", "multimodal"] = Field(
        description="What the model generates."
    )
    method: Literal["teacache", "magcache"] = Field(description="The caching method these numbers belong to.")
    signal: Signal2 = Field(
        description="The tensor whose change the polynomial takes: timestep embedding before or after its projection, "
        "block 0's modulated input, the bare block input, or the first block's residual. "
        "`unknown` where the source does not say: such a record can be read but not applied."
    )
    signal_source: LongText | None = Field(default=None, description="What exactly the source measures.")
    fitted_output: Literal["block_output", "block_residual", "model_output", "none", "unknown"] = Field(
        default="unknown",
        description="Whose relative change y the polynomial predicts; `none` when it was searched or set by hand instead of fitted.",
    )
    fitted_output_source: LongText | None = Field(default=None, description="What the source says about it.")
    rescale_post: Literal["none", "abs", "clip"] = Field(
        default="none",
        description="What the source does to p(x) before accumulating it: nothing, |p(x)|, or max(p(x), 0).",
    )
    branches: Annotated[tuple[Branch, ...], Field(min_length=1, max_length=16)] = Field(
        default=("cond", "uncond"), description="Branches the numbers hold for."
    )
    aliases: Annotated[tuple[Alias, ...], Field(max_length=1000)] = Field(
        default=(), description="Other exact names of this record."
    )
    buckets: Annotated[tuple[Bucket2, ...], Field(min_length=1, max_length=1000)] = Field(
        description="Ascending by sequence length, then step count, then shift."
    )
    conditions: Conditions2 = Field(default=Conditions2(), description="What held while the numbers were made.")
    provenance: Provenance2 = Field(description="Where the numbers come from.")
    retirement: Retirement | None = Field(default=None, description="Only for deprecated and yanked records.")
    notes: Annotated[tuple[LongText, ...], Field(max_length=100)] = Field(
        default=(), description="What a user of these numbers should know."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Calibration2:
        check_key(self)
        check_buckets(self)
        needed, foreign = "coefficients", "magnitude_ratios"
        if self.method == "magcache":
            needed, foreign = foreign, needed
        for position, bucket in enumerate(self.buckets):
            if not getattr(bucket, needed):
                raise ValueError(f"buckets[{position}] has no {needed}; method {self.method} needs them")
            if getattr(bucket, foreign):
                raise ValueError(f"buckets[{position}] has {foreign}; method {self.method} has no use for them")
        check_branches(self)
        check_aliases(self)
        check_status(self)
        return self


def from_1(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Version 2 adds the optional ``weights`` of an operating point and changes nothing else.

    Raises:
        InvalidCalibration: rule ``record.schema``, for weights in a file of version 1.
    """
    for i, bucket in enumerate(_objects(content.get("buckets"))):
        for j, point in enumerate(_objects(bucket.get("operating_points"))):
            if "weights" in point:
                field = f"buckets[{i}].operating_points[{j}].weights"
                raise InvalidCalibration(
                    where, f"{field}: not a field of version 1 of this format", rule="record.schema"
                )
    return content


def _objects(value: Any) -> list[dict[str, Any]]:
    # Places are kept, so that an error names the right one.
    return [item if isinstance(item, dict) else {} for item in value] if isinstance(value, list) else []


def from_2(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Version 3: the model by itself, the sampler of a bucket, plans in the normal form, evidence as a list.

    Raises:
        InvalidCalibration: the file breaks a rule of version 2.
    """
    record = parsing.validate(Calibration2, content, where=where, rules="record")
    upgraded: dict[str, Any] = strict_json.parse(spelled(record))
    provenance, conditions = upgraded["provenance"], upgraded.get("conditions", {})
    model = {"class_name": _class_name(record)}
    model |= {name: provenance.pop(name, None) for name in ("checkpoint", "checkpoint_commit")}
    model |= {name: conditions.pop(name, None) for name in ("dtype", "quantization")}
    model = {name: value for name, value in model.items() if value is not None}
    if model:
        upgraded["model"] = model
    if record.method == "magcache" and record.signal == "unknown":
        # Version 2 had no other word for a method that takes none.
        upgraded["signal"] = "none"
    for bucket, old in zip(upgraded["buckets"], record.buckets, strict=True):
        sampler = _sampler(record, old)
        if sampler is not None:
            bucket["sampler"] = sampler.model_dump(mode="json")
        points = zip(bucket.get("operating_points", ()), old.operating_points, strict=True)
        bucket["operating_points"] = [_point(spelling, point) for spelling, point in points]
    return upgraded


def _class_name(record: Calibration2) -> str | None:
    """The transformer's class, where aliases name exactly one that the numbers were made for."""
    own = [alias for alias in record.aliases if alias.kind == "transformer_class" and not alias.borrowed]
    return own[0].value.partition("@")[0] if len(own) == 1 else None


def _sampler(record: Calibration2, bucket: Bucket2) -> SamplerRecord | None:
    """Euler's flow-matching sampler over the levels of the profile, where it has one at each step; else nobody knows."""
    profile = bucket.sigma_profile
    if record.conditions.sampler != EULER or profile is None or bucket.num_steps is None:
        return None
    return SamplerRecord.euler(profile.sigmas) if len(profile.sigmas) == bucket.num_steps + 1 else None


def _point(spelling: dict[str, Any], point: OperatingPoint2) -> dict[str, Any]:
    filling = {"predictor": point.forecaster, "coordinate": point.coordinate, "applied_to": point.applied_to}
    content: dict[str, Any] = {"evidence": [_evidence(spelling, point)]}
    if point.computed_steps is not None:
        content["computed_steps"] = point.computed_steps
    if point.schedule is None:
        return content | {"threshold": spelling["threshold"]} | filling
    if point.forecaster == FITTED:
        del filling["predictor"]
    plan = {"computed": spelling["schedule"], **filling}
    if point.weights is not None:
        plan |= {"corrected": True, "rows": spelling["weights"]}
    return content | {"plan": plan}


def _evidence(spelling: dict[str, Any], point: OperatingPoint2) -> dict[str, Any]:
    kept = ("speedup", "latency_seconds", "hardware", "note")
    figures = {name: spelling[name] for name in kept if name in spelling}
    kind = "submitted"
    if point.evidence == "reported":
        kind = "published" if point.error is None else "reported"
    if point.error is not None:
        error = spelling["error"]
        figures |= {"metric": RELATIVE_L2, "value": error["mean"]}
        figures |= {name: error[name] for name in ("p90", "runs") if name in error}
    return {"kind": kind, "how": point.evidence, **figures}


def canonical(content: Mapping[str, Any], version: int, *, where: str) -> str:
    """The canonical spelling of a valid file of version 1 or 2.

    Raises:
        InvalidCalibration: the file breaks a rule of version 2.
    """
    record = parsing.validate(Calibration2, dict(content) | {"schema_version": 2}, where=where, rules="record")
    return spelled(record).replace('"schema_version": 2', f'"schema_version": {version}', 1)
