"""The published record: every bucket of one model key for one signal, as one JSON file.

A calibration that exists as an object is consistent: each invariant below is checked when it is made, so nothing after
this layer tests for it again. `docs/registry-format.md` is the same text for people who write such files by hand.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from easyteacache import atomic, json_text
from easyteacache import model_key as model_keys
from easyteacache.errors import InvalidCalibration, InvalidModelKey, UnsupportedSchemaVersion
from easyteacache.provenance import (
    Alias,
    Conditions,
    LongText,
    Provenance,
    Record,
    ReportedFit,
    Retirement,
    ShortText,
)

SCHEMA_VERSION = 1
SUPPORTED_VERSIONS = (1,)

Signal = Literal[
    "timestep_embedding",
    "timestep_projection",
    "modulated_input",
    "hidden_states",
    "first_block_residual",
    "unknown",
]
TIMESTEP_SIGNALS: frozenset[str] = frozenset({"timestep_embedding", "timestep_projection"})
Status = Literal["draft", "validated", "published", "deprecated", "yanked"]
ForecasterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
Branch = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
StepIndex = Annotated[int, Field(ge=0, lt=100_000)]
Coefficients = Annotated[tuple[float, ...], Field(min_length=1, max_length=33)]


class ErrorStatistics(Record):
    """Error of the final sample over runs, relative L2 (dimensionless, 0 = identical)."""

    mean: Annotated[float, Field(ge=0)] = Field(description="Mean over runs, 0 or more.")
    p90: Annotated[float, Field(ge=0)] | None = Field(default=None, description="90th percentile over runs, 0 or more.")
    runs: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Runs it was measured on, at least 1.")


class OperatingPoint(Record):
    """One setting that may be chosen, a threshold or a schedule, and what it gave."""

    threshold: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Accumulated predicted distance at which a step must be computed; above 0."
    )
    schedule: tuple[StepIndex, ...] | None = Field(
        default=None, description="Instead of a threshold: the computed steps, ascending, zero-based, beginning with 0."
    )
    forecaster: ForecasterName = Field(
        default="hold", description="What fills a reused step: `hold`, `linear`, `quadratic`, `taylor-N`, `foca` …"
    )
    coordinate: Literal["step", "timestep", "sigma"] = Field(
        default="step", description="The axis the forecaster extrapolates along."
    )
    applied_to: Literal["residual", "output"] = Field(
        default="residual", description="What is forecast: the block-stack residual or the model's output."
    )
    computed_steps: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Steps computed in one run (rounded mean over runs for a threshold), at least 1."
    )
    speedup: Annotated[float, Field(ge=1)] | None = Field(
        default=None,
        description="Steps divided by computed steps where evidence is replayed or measured; the source's own "
        "wall-clock figure where it is reported. 1 or more.",
    )
    error: ErrorStatistics | None = Field(default=None, description="Error on held-out runs.")
    evidence: Literal["replayed", "measured", "reported"] = Field(
        description="`replayed` on recorded traces, `measured` end to end, or `reported` by the source without traces."
    )
    latency_seconds: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Wall time the source reports, seconds."
    )
    hardware: ShortText | None = Field(default=None, description="Device the source reports it for.")
    note: LongText | None = Field(default=None, description="What else the source says.")

    @model_validator(mode="after")
    def _one_kind_of_gate(self) -> OperatingPoint:
        if (self.threshold is None) == (self.schedule is None):
            raise ValueError("an operating point has either a threshold or a schedule, exactly one of them")
        if self.schedule is not None:
            _require_ascending(self.schedule, "schedule")
            if not self.schedule or self.schedule[0] != 0:
                raise ValueError("a schedule begins with step 0, because nothing can be reused before it")
            if self.computed_steps not in (None, len(self.schedule)):
                raise ValueError(f"computed_steps is {self.computed_steps}, the schedule lists {len(self.schedule)}")
        return self


class FitQuality(Record):
    """How well the coefficients explain the output distance, on what evidence."""

    runs: Annotated[int, Field(ge=1)] = Field(description="Runs the fit saw, at least 1.")
    points: Annotated[int, Field(ge=1)] = Field(description="Pairs of distances the fit saw, at least 1.")
    distinct_distances: Annotated[int, Field(ge=1)] = Field(
        description="Distinct signal distances among them; for a timestep-only signal one per step, however many runs."
    )
    r2: Annotated[float, Field(le=1)] = Field(description="R² on the points of the fit, at most 1.")
    heldout_r2: Annotated[float, Field(le=1)] | None = Field(
        default=None, description="R² with each run left out in turn, at most 1."
    )
    heldout_relative_error: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Mean absolute error divided by mean output distance, run left out; 0 or more."
    )
    rank_correlation: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None, description="Spearman correlation of predicted with observed output distance, −1 to 1."
    )


class SigmaProfileRecord(Record):
    """D(σ): accumulated output distance as a monotone function of sigma."""

    sigmas: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=2, max_length=2000)] = Field(
        description="Strictly descending noise levels; 1 is pure noise in flow matching."
    )
    distances: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=2, max_length=2000)] = Field(
        description="Accumulated output distance at each, non-decreasing, from 0."
    )
    spread: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=2, max_length=2000)] | None = Field(
        default=None, description="Standard deviation of the accumulated distance over runs at each sigma."
    )

    @model_validator(mode="after")
    def _monotone(self) -> SigmaProfileRecord:
        if len(self.sigmas) != len(self.distances):
            raise ValueError(
                f"{len(self.sigmas)} sigmas but {len(self.distances)} distances; expected one distance a sigma"
            )
        if self.spread is not None and len(self.spread) != len(self.sigmas):
            raise ValueError(f"{len(self.sigmas)} sigmas but {len(self.spread)} spreads; expected one spread a sigma")
        if any(b >= a for a, b in zip(self.sigmas, self.sigmas[1:], strict=False)):
            raise ValueError("sigmas must be strictly descending, from noise to image")
        if any(b < a for a, b in zip(self.distances, self.distances[1:], strict=False)):
            raise ValueError("accumulated distances must never decrease")
        return self


class BranchRatios(Record):
    """MagCache's magnitude ratios of one branch (arXiv 2506.09045)."""

    branch: Branch = Field(description="Branch these ratios belong to, for example `cond`.")
    ratios: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1, max_length=2000)] = Field(
        description="‖r_t‖ / ‖r_{t−1}‖ per step, mean over tokens; the first is 1 by convention."
    )


class Bucket(Record):
    """Fitted parameters at one sequence length and sampler setting."""

    sequence_length: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        default=None,
        description="Tokens of the generated stream entering the blocks; null where the source does not say.",
    )
    sequence_length_source: LongText | None = Field(
        default=None,
        description="How the length follows from resolution, frames, VAE and patch factors, with its source.",
    )
    frames: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Generated frames, 1 for images.")
    height: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Generated height, pixels.")
    width: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Generated width, pixels.")
    num_steps: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        default=None, description="Sampler steps the numbers hold for; null where the source does not say."
    )
    shift: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Flow-matching time shift they hold for; null where the source does not say."
    )
    min_skip_step: Annotated[int, Field(ge=0)] = Field(
        default=1, description="First step (zero-based) that may be reused."
    )
    max_skip_step: Annotated[int, Field(ge=-100_000, lt=100_000)] = Field(
        default=-1,
        description="Last step that may be reused, inclusive; negative counts from the end (−1 is the last step).",
    )
    skip_window_fraction: tuple[float, float] | None = Field(
        default=None,
        description="[first, last] as fractions of the run, for sources that give the window so: step i of N may be "
        "reused only when first ≤ i/N ≤ last. It narrows the window above, for whatever step count is asked for.",
    )
    max_consecutive_skips: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Most steps reused in a row; null: no limit of its own."
    )
    coefficients: Coefficients | None = Field(
        default=None, description="Rescale polynomial, highest degree first; any order from 0 up."
    )
    domain: tuple[float, float] | None = Field(
        default=None,
        description="[x_min, x_max] of the signal distances the fit saw; null for published numbers without one.",
    )
    magnitude_ratios: tuple[BranchRatios, ...] = Field(
        default=(), description="MagCache only: one list of ratios per branch."
    )
    quality: FitQuality | None = Field(default=None, description="Evidence for the coefficients.")
    reported_fit: ReportedFit | None = Field(
        default=None, description="Published numbers only: what their source says about the fit, unchecked."
    )
    operating_points: tuple[OperatingPoint, ...] = Field(
        default=(), description="Settings to choose from, the most cautious first."
    )
    sigma_profile: SigmaProfileRecord | None = Field(
        default=None,
        description="Accumulated output distance over sigma; carries over to other step counts and shifts.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Bucket:
        if self.domain is not None and not 0 <= self.domain[0] < self.domain[1]:
            raise ValueError(f"domain is {list(self.domain)}; expected 0 ≤ x_min < x_max")
        self._check_window()
        fraction = self.skip_window_fraction
        if fraction is not None and not 0 <= fraction[0] <= fraction[1] <= 1:
            raise ValueError(f"skip_window_fraction is {list(fraction)}; expected 0 ≤ first ≤ last ≤ 1")
        if len({entry.branch for entry in self.magnitude_ratios}) < len(self.magnitude_ratios):
            raise ValueError("magnitude_ratios names a branch twice")
        for entry in self.magnitude_ratios:
            if self.num_steps is not None and len(entry.ratios) != self.num_steps:
                raise ValueError(
                    f"{len(entry.ratios)} ratios for {entry.branch!r}; expected num_steps = {self.num_steps}"
                )
        for point in self.operating_points:
            if point.schedule and self.num_steps is not None and point.schedule[-1] >= self.num_steps:
                raise ValueError(
                    f"schedule computes step {point.schedule[-1]}; the last of {self.num_steps} steps is {self.num_steps - 1}"
                )
            if point.computed_steps and self.num_steps is not None and point.computed_steps > self.num_steps:
                raise ValueError(f"computed_steps is {point.computed_steps}, more than num_steps = {self.num_steps}")
        return self

    def _check_window(self) -> None:
        last = self.max_skip_step
        if last < 0:
            if self.num_steps is None:
                return
            last += self.num_steps
        if last < self.min_skip_step:
            raise ValueError(
                f"the skip window is empty: min_skip_step {self.min_skip_step} is after max_skip_step {self.max_skip_step}"
            )
        if self.num_steps is not None and last >= self.num_steps:
            raise ValueError(f"max_skip_step is {last}; the last of {self.num_steps} steps is {self.num_steps - 1}")

    @property
    def setting(self) -> tuple[int, int, float]:
        """Sort key: sequence length, step count, shift; unknown values first."""
        return (self.sequence_length or 0, self.num_steps or 0, self.shift or 0.0)


class Calibration(Record):
    """All buckets of one model key for one signal, with its provenance: one file of the registry."""

    schema_version: Literal[1] = Field(description="Version of this format.")
    model_key: Annotated[str, Field(pattern=model_keys.PATTERN, max_length=model_keys.MAX_LENGTH)] = Field(
        description="Hierarchical name of what was calibrated; equals the file's path without `.json`."
    )
    revision: Annotated[int, Field(ge=1)] = Field(description="Raised by one with every change of the file, from 1.")
    status: Status = Field(
        description="`draft` (not judged), `validated` (passed on held-out traces), `published` (taken from public "
        "sources without traces), `deprecated` (use the replacement) or `yanked` (must not be used)."
    )
    title: ShortText = Field(description="The model's name as people write it.")
    modality: Literal["image", "video", "audio", "video-audio", "multimodal"] = Field(
        description="What the model generates."
    )
    method: Literal["teacache", "magcache"] = Field(description="The caching method these numbers belong to.")
    signal: Signal = Field(
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
    branches: Annotated[tuple[Branch, ...], Field(min_length=1)] = Field(
        default=("cond", "uncond"), description="Branches the numbers hold for."
    )
    aliases: tuple[Alias, ...] = Field(default=(), description="Other exact names of this record.")
    buckets: Annotated[tuple[Bucket, ...], Field(min_length=1, max_length=1000)] = Field(
        description="Ascending by sequence length, then step count, then shift."
    )
    conditions: Conditions = Field(default=Conditions(), description="What held while the numbers were made.")
    provenance: Provenance = Field(description="Where the numbers come from.")
    retirement: Retirement | None = Field(default=None, description="Only for deprecated and yanked records.")
    notes: tuple[LongText, ...] = Field(default=(), description="What a user of these numbers should know.")

    @model_validator(mode="after")
    def _consistent(self) -> Calibration:
        try:
            model_keys.parse(self.model_key)
        except InvalidModelKey as error:
            raise ValueError(str(error)) from error
        settings = [bucket.setting for bucket in self.buckets]
        if settings != sorted(settings):
            raise ValueError("buckets must ascend by sequence length, then step count, then shift")
        if len(set(settings)) < len(settings):
            raise ValueError("two buckets hold for the same sequence length, step count and shift")
        for position, bucket in enumerate(self.buckets):
            if self.method == "teacache" and bucket.coefficients is None:
                raise ValueError(f"buckets[{position}] has no coefficients; method teacache needs them")
            if self.method == "teacache" and bucket.magnitude_ratios:
                raise ValueError(f"buckets[{position}] has magnitude_ratios; only method magcache uses them")
            if self.method == "magcache" and not bucket.magnitude_ratios:
                raise ValueError(f"buckets[{position}] has no magnitude_ratios; method magcache needs them")
        if len({(alias.kind, alias.value) for alias in self.aliases}) < len(self.aliases):
            raise ValueError("the same alias is listed twice")
        retired = self.status in ("deprecated", "yanked")
        if retired != (self.retirement is not None):
            raise ValueError(f"status is {self.status!r}: retirement must {'say why' if retired else 'be absent'}")
        return self

    @classmethod
    def from_json(cls, data: bytes | str, *, where: str = "calibration") -> Calibration:
        """Read a record from JSON text.

        Args:
            data: the file's bytes or text.
            where: named in errors, usually the path.

        Raises:
            UnsupportedSchemaVersion: written for another version of the format.
            InvalidCalibration: anything else that is wrong, with the field and the reason.
        """
        try:
            content = json_text.parse(data)
        except json_text.JSONTextError as error:
            raise InvalidCalibration(where, str(error), rule="record.json") from error
        return cls.from_mapping(content, where=where)

    @classmethod
    def from_mapping(cls, content: Any, *, where: str = "calibration") -> Calibration:
        """Read a record from parsed JSON; raises as ``from_json`` does."""
        if not isinstance(content, dict):
            raise InvalidCalibration(
                where, f"expected a JSON object, found {type(content).__name__}", rule="record.json"
            )
        version = content.get("schema_version")
        if isinstance(version, bool) or version not in SUPPORTED_VERSIONS:
            raise UnsupportedSchemaVersion(where, found=version, supported=SUPPORTED_VERSIONS)
        try:
            return cls.model_validate_json(json_text.spell(content))
        except ValidationError as error:
            raise InvalidCalibration(where, _first_problem(error), rule="record.schema") from error

    def to_json(self) -> str:
        """The canonical spelling: fields in the format's order, absent and empty values left out, final newline."""
        return json_text.spell(_without_empty(self.model_dump(mode="json")))


def load(path: str | os.PathLike[str]) -> Calibration:
    """Read one calibration file.

    Raises:
        InvalidCalibration: the file is missing, unreadable, half-written or breaks a rule of the format.
    """
    where = os.fspath(path)
    try:
        size = os.path.getsize(where)
        if size > json_text.MAX_BYTES:
            raise InvalidCalibration(where, f"{size} bytes, at most {json_text.MAX_BYTES} are read", rule="record.size")
        data = Path(where).read_bytes()
    except OSError as error:
        raise InvalidCalibration(
            where, f"cannot be read: {error.strerror or error}", rule="record.unreadable"
        ) from error
    return Calibration.from_json(data, where=where)


def save(record: Calibration, path: str | os.PathLike[str]) -> None:
    """Write one calibration file in its canonical spelling, whole or not at all."""
    atomic.write_text(path, record.to_json())


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_empty(item) for key, item in value.items()}
        # An empty provenance is still a required field; every other empty value means the same as its absence.
        return {key: item for key, item in kept.items() if key == "provenance" or item not in (None, [], {})}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


def _require_ascending(values: tuple[int, ...], name: str) -> None:
    if any(b <= a for a, b in itertools.pairwise(values)):
        raise ValueError(f"{name} must be strictly ascending")


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    field = ".".join(str(part) for part in first["loc"]) or "record"
    found = first.get("input")
    shown = "" if isinstance(found, (dict, list)) or first["type"] == "missing" else f" (found {str(found)[:80]!r})"
    more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"{field}: {first['msg'].removeprefix('Value error, ')}{shown}{more}"
