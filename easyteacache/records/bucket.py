"""Buckets: the fitted parameters of a calibration at one sequence length and sampler setting, and their evidence."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from easyteacache.records.evidence import ErrorStatistics
from easyteacache.records.fields import (
    MAX_STEPS,
    Branch,
    BrokenRule,
    Count,
    LongText,
    NotNegative,
    Positive,
    Record,
    StepCount,
    StepIndex,
    given,
    told_by_schema,
)
from easyteacache.records.operating_point import OperatingPoint
from easyteacache.records.plan import FITTED
from easyteacache.records.provenance import ReportedFit
from easyteacache.records.sampler import SamplerRecord

__all__ = [
    "FITTED",
    "MAX_STEPS",
    "BranchRatios",
    "Bucket",
    "BucketFields",
    "ErrorStatistics",
    "FitQuality",
    "OperatingPoint",
    "SigmaProfileRecord",
]

#: Two lists of noise levels are one, where they differ by no more than this share of the largest.
SAME_LEVELS = 1e-3

Coefficients = Annotated[tuple[float, ...], Field(min_length=1, max_length=33)]
_NOT_ZERO = {"not": {"const": 0}}
SigmaSeries = Annotated[tuple[NotNegative, ...], Field(min_length=2, max_length=2000)]


class FitQuality(Record):
    """How well the coefficients explain the output distance, on what evidence."""

    runs: Count = Field(description="Runs the fit saw, at least 1.")
    points: Count = Field(description="Pairs of distances the fit saw, at least 1.")
    distinct_distances: Count = Field(
        description="Distinct signal distances among the points, at least 1 and at most `points`; for a timestep-only "
        "signal one per step, however many runs."
    )
    r2: Annotated[float, Field(le=1)] = Field(description="R² on the points of the fit, dimensionless, at most 1.")
    heldout_r2: Annotated[float, Field(le=1)] | None = Field(
        default=None, description="R² with each run left out in turn, dimensionless, at most 1."
    )
    heldout_relative_error: NotNegative | None = Field(
        default=None,
        description="Mean absolute error divided by mean output distance, run left out; dimensionless, 0 or more.",
    )
    rank_correlation: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None,
        description="Spearman correlation of predicted with observed output distance, dimensionless, −1 to 1.",
    )

    @model_validator(mode="after")
    def _no_more_distances_than_points(self) -> FitQuality:
        if self.distinct_distances > self.points:
            raise ValueError(f"distinct_distances is {self.distinct_distances}, more than points = {self.points}")
        return self


class SigmaProfileRecord(Record):
    """D(σ): accumulated output distance as a monotone function of sigma."""

    model_config = told_by_schema({"properties": {"distances": {"prefixItems": [{"const": 0}]}}})

    sigmas: SigmaSeries = Field(
        description="Noise levels, strictly descending, 0 or more; in flow matching 1 is pure noise."
    )
    distances: SigmaSeries = Field(
        description="Accumulated output distance (relative L1, dimensionless) at each sigma: from 0, never decreasing."
    )
    spread: SigmaSeries | None = Field(
        default=None,
        description="Standard deviation of the accumulated distance over runs at each sigma, dimensionless, 0 or more.",
    )

    @model_validator(mode="after")
    def _monotone(self) -> SigmaProfileRecord:
        count = len(self.sigmas)
        if len(self.distances) != count:
            raise ValueError(f"{count} sigmas but {len(self.distances)} distances; expected one distance a sigma")
        if self.spread is not None and len(self.spread) != count:
            raise ValueError(f"{count} sigmas but {len(self.spread)} spreads; expected one spread a sigma")
        if any(b >= a for a, b in pairwise(self.sigmas)):
            raise ValueError("sigmas must be strictly descending, from noise to image")
        if any(b < a for a, b in pairwise(self.distances)):
            raise ValueError("accumulated distances must never decrease")
        if self.distances[0] != 0:
            raise ValueError(f"accumulated distances begin with {self.distances[0]}; expected 0 at the first sigma")
        return self


class BranchRatios(Record):
    """MagCache's magnitude ratios of one branch (arXiv 2506.09045)."""

    branch: Branch = Field(description="Branch these ratios belong to, for example `cond`.")
    ratios: Annotated[tuple[NotNegative, ...], Field(min_length=1, max_length=2000)] = Field(
        description="‖r_t‖ / ‖r_{t−1}‖ per step, mean over tokens, dimensionless, 0 or more; the first is 1 by convention."
    )


class BucketFields(Record):
    """What buckets of every version of the format have: where they hold, the window, the curve."""

    sequence_length: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        default=None,
        description="Tokens of the generated stream entering the blocks, at least 1; absent where the source does not say.",
        examples=[32760],
    )
    sequence_length_source: LongText | None = Field(
        default=None,
        description="How the length follows from resolution, frames, VAE and patch factors, with its source.",
    )
    frames: Count | None = Field(default=None, description="Generated frames, at least 1; 1 for images.")
    height: Count | None = Field(default=None, description="Generated height, pixels, at least 1.")
    width: Count | None = Field(default=None, description="Generated width, pixels, at least 1.")
    num_steps: StepCount | None = Field(
        default=None,
        description="Sampler steps the numbers hold for, at least 1; absent where the source does not say.",
        examples=[50],
    )
    shift: Positive | None = Field(
        default=None,
        description="Flow-matching time shift they hold for, dimensionless, above 0; absent where the source does not say.",
        examples=[3.0],
    )
    min_skip_step: StepIndex = Field(
        default=1, description="First step that may be reused, zero-based index, 0 or more."
    )
    max_skip_step: Annotated[int, Field(ge=-MAX_STEPS, lt=MAX_STEPS)] = Field(
        default=-1,
        description="Last step that may be reused, inclusive, zero-based index; negative counts from the end "
        "(−1 is the last step), at least −100000.",
    )
    skip_window_fraction: tuple[float, float] | None = Field(
        default=None,
        description="[first, last] as fractions of the run, 0 ≤ first ≤ last ≤ 1, for sources that give the window so: "
        "step i of N may be reused only when first ≤ i/N ≤ last. It narrows the window above, for whatever step count "
        "is asked for.",
    )
    max_consecutive_skips: StepCount | None = Field(
        default=None, description="Most steps reused in a row, at least 1; absent: no limit of its own."
    )
    coefficients: Coefficients | None = Field(
        default=None,
        description="Rescale polynomial from signal distance to output distance (both relative L1, dimensionless), "
        "highest degree first; any finite numbers, any order from 0 up.",
        examples=[[-4.2, 2.1, 0.008]],
    )
    domain: tuple[float, float] | None = Field(
        default=None,
        description="[x_min, x_max] of the signal distances (relative L1, dimensionless) the fit saw, 0 ≤ x_min < x_max; "
        "absent for published numbers without one.",
        examples=[[0.004, 0.21]],
    )
    magnitude_ratios: Annotated[tuple[BranchRatios, ...], Field(max_length=16)] = Field(
        default=(), description="MagCache only: one list of ratios per branch."
    )
    quality: FitQuality | None = Field(default=None, description="Evidence for the coefficients.")
    reported_fit: ReportedFit | None = Field(
        default=None, description="Published numbers only: what their source says about the fit, unchecked."
    )

    def check_fields(self) -> None:
        """Refuse a curve, window or ratios that contradict themselves or each other; raises ``ValueError``."""
        self._check_curve()
        self._check_window()
        self._check_ratios()

    def _check_curve(self) -> None:
        if self.domain is not None and not 0 <= self.domain[0] < self.domain[1]:
            raise ValueError(f"domain is {list(self.domain)}; expected 0 ≤ x_min < x_max")
        if self.coefficients is None:
            if self.domain is not None:
                raise ValueError("a domain without coefficients means nothing; give both or neither")
            return
        if not any(self.coefficients):
            raise ValueError("every coefficient is 0: no change would ever be predicted, so no step ever computed")
        # Bounds every partial sum of Horner's rule, so that no x of the domain gives infinity or NaN.
        largest = 0.0
        for coefficient in self.coefficients:
            largest = largest * (self.domain[1] if self.domain else 1.0) + abs(coefficient)
        if not math.isfinite(largest):
            raise ValueError("the coefficients are so large that the polynomial overflows")

    def _check_window(self) -> None:
        fraction = self.skip_window_fraction
        if fraction is not None and not 0 <= fraction[0] <= fraction[1] <= 1:
            raise ValueError(f"skip_window_fraction is {list(fraction)}; expected 0 ≤ first ≤ last ≤ 1")
        last = self._last_skip_step()
        if last is None:
            return
        if last < self.min_skip_step:
            raise ValueError(
                f"the skip window is empty: min_skip_step {self.min_skip_step} is after max_skip_step {self.max_skip_step}"
            )
        if self.num_steps is not None and last >= self.num_steps:
            raise ValueError(f"max_skip_step is {last}; the last of {self.num_steps} steps is {self.num_steps - 1}")

    def _last_skip_step(self) -> int | None:
        if self.max_skip_step >= 0:
            return self.max_skip_step
        return None if self.num_steps is None else self.num_steps + self.max_skip_step

    def _check_ratios(self) -> None:
        if len({entry.branch for entry in self.magnitude_ratios}) < len(self.magnitude_ratios):
            raise ValueError("magnitude_ratios names a branch twice")
        for entry in self.magnitude_ratios:
            if self.num_steps is not None and len(entry.ratios) != self.num_steps:
                raise ValueError(
                    f"{len(entry.ratios)} ratios for {entry.branch!r}; expected num_steps = {self.num_steps}"
                )

    def check_schedule(self, computed: tuple[int, ...]) -> None:
        """Refuse computed steps that the window or the step count does not allow; raises ``ValueError``."""
        end = computed[-1] + 1 if self.num_steps is None else self.num_steps
        if computed[-1] >= end:
            raise ValueError(f"schedule computes step {computed[-1]}; the last of {end} steps is {end - 1}")
        last = self._last_skip_step()
        for before, after in pairwise((*computed, end)):
            if after - before == 1:
                continue
            if before + 1 < self.min_skip_step or (last is not None and after - 1 > last):
                raise ValueError(
                    f"schedule reuses steps {before + 1} to {after - 1}; the skip window allows "
                    f"{self.min_skip_step} to {'the end' if last is None else last}"
                )
            if self.max_consecutive_skips is not None and after - before - 1 > self.max_consecutive_skips:
                raise ValueError(
                    f"schedule reuses {after - before - 1} steps in a row after step {before}; "
                    f"max_consecutive_skips is {self.max_consecutive_skips}"
                )

    def check_rows(self, rows: int, *, of: str = "rows") -> None:
        """Refuse a number of rows that is not one a step; raises ``ValueError``."""
        if self.num_steps is None:
            raise ValueError(
                f"{of} in a bucket without num_steps: they hold for one number of steps, which it must say"
            )
        if rows != self.num_steps:
            raise ValueError(
                f"{rows} {of if of == 'rows' else f'rows of {of}'}; expected one a step, num_steps = {self.num_steps}"
            )

    @property
    def setting(self) -> tuple[int, int, float]:
        """Sort key: sequence length, step count, shift; unknown values first."""
        return (self.sequence_length or 0, self.num_steps or 0, self.shift or 0.0)


class Bucket(BucketFields):
    """Fitted parameters at one sequence length and sampler setting."""

    model_config = told_by_schema(
        {"if": given("domain"), "then": given("coefficients")},
        {"if": given("coefficients"), "then": {"properties": {"coefficients": {"contains": _NOT_ZERO}}}},
        {"properties": {"domain": {"items": {"minimum": 0}}}},
        {"properties": {"skip_window_fraction": {"items": {"minimum": 0, "maximum": 1}}}},
    )

    sampler: SamplerRecord | None = Field(
        default=None, description="The sampler they hold for; absent where the source does not say which."
    )
    operating_points: Annotated[tuple[OperatingPoint, ...], Field(max_length=1000)] = Field(
        default=(), description="Settings to choose from, the most cautious first."
    )
    sigma_profile: SigmaProfileRecord | None = Field(
        default=None,
        description="Accumulated output distance over sigma; carries over to other step counts and shifts.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Bucket:
        self.check_fields()
        self._check_sampler()
        for position, point in enumerate(self.operating_points):
            if point.computed_steps and self.num_steps is not None and point.computed_steps > self.num_steps:
                raise ValueError(f"computed_steps is {point.computed_steps}, more than num_steps = {self.num_steps}")
            if point.plan is not None:
                self._check_plan(position, point)
        return self

    def _check_sampler(self) -> None:
        if self.sampler is not None and self.num_steps is not None and self.sampler.calls < self.num_steps:
            raise ValueError(
                f"the sampler calls the model {self.sampler.calls} times; expected at least num_steps = {self.num_steps}"
            )

    def _check_plan(self, position: int, point: OperatingPoint) -> None:
        plan = point.plan
        assert plan is not None
        steps = self.num_steps or (None if plan.rows is None else len(plan.rows))
        if plan.computed == (0,) and steps != 1:
            raise BrokenRule(
                "plan-never-computes",
                ("operating_points", position, "plan", "computed"),
                f"computed is [0]; expected more than the first of {steps or 'many'} steps, or every other one repeats it",
            )
        self.check_schedule(plan.computed)
        if plan.rows is not None:
            self.check_rows(len(plan.rows))
        levels = None if self.sampler is None else self.sampler.levels
        if plan.levels is not None and levels is not None and not _same_levels(plan.levels, levels):
            raise ValueError("levels of a plan are not those of the bucket's sampler; its rows hold for them alone")


def _same_levels(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return len(a) == len(b) and max(abs(x - y) for x, y in zip(a, b, strict=True)) <= SAME_LEVELS * max(a)
