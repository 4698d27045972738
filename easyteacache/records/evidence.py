"""Evidence for an operating point: whose figure it is, how it was found, and how good the samples were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field, model_validator

from easyteacache.records.fields import (
    Count,
    IsoDate,
    LongText,
    Positive,
    Record,
    Sha256,
    ShortText,
    anything_of,
    given,
    told_by_schema,
)

#: The weakest first.
EvidenceKind = Literal["published", "reported", "submitted", "verified"]
How = Literal["replayed", "measured", "reported"]
#: The metric of this project's own evidence: ‖sample − uncached‖ / ‖uncached‖.
RELATIVE_L2 = "relative-l2"

_STRENGTH: dict[str, int] = {kind: rank for rank, kind in enumerate(get_args(EvidenceKind))}
_OF_A_SOURCE = ("published", "reported")
_FIGURES = ("value", "p50", "p90", "worst")
_FOR_VERIFIED = ("prompts_sha256", "by", "date")
_OF_VERIFIED = ("prompts_sha256", "by", "signature")
# 64 bytes in base64.
_SIGNATURE = r"^[A-Za-z0-9+/]{86}==$"

#: How many of ten further runs a promise is to hold for, as a share.
COVERAGE = 0.9


def conformal_rank(runs: int, coverage: float = COVERAGE) -> int:
    """Which of ``runs`` ascending values one more run stays within with a chance of at least ``coverage``: ⌈(runs + 1) · coverage⌉.

    Split conformal prediction (Papadopoulos et al. 2002): where runs are exchangeable, one more is as likely to come at any place
    among them. A rank above ``runs`` says that they are too few for such a promise.
    """
    return math.ceil((runs + 1) * coverage - 1e-9)


class Bound(NamedTuple):
    """What the error of one more run stays within.

    Attributes:
        value: relative L2.
        coverage: chance that it does, 0 to 1; None where nobody says on how many runs it was found, or only their mean is known.
    """

    value: float
    coverage: float | None


@dataclass(frozen=True, slots=True)
class ErrorStatistics:
    """Error of the final sample over runs, relative L2 (dimensionless, 0 = identical).

    Attributes:
        mean: over runs.
        p50, p90, worst: median, 90th percentile and largest of the runs; None where nobody says. Where there are runs enough for it,
            the solver's 90th percentile is the value of ``conformal_rank``.
        runs: how many it was measured on.
    """

    mean: float
    p90: float | None = None
    runs: int | None = None
    p50: float | None = None
    worst: float | None = None

    @property
    def bound(self) -> Bound:
        """What one more run stays within in nine of ten cases; of few runs their largest error, and how far that carries.

        Where only the mean is stated it is that, without any coverage.
        """
        if self.runs is not None and self.p90 is not None and conformal_rank(self.runs) < self.runs:
            return Bound(self.p90, conformal_rank(self.runs) / (self.runs + 1))
        if self.worst is not None:
            return Bound(self.worst, None if self.runs is None else self.runs / (self.runs + 1))
        return Bound(self.mean if self.p90 is None else self.p90, None)


class Evidence(Record):
    """What one operating point gave, and how that is known."""

    model_config = told_by_schema(
        {
            "if": {"properties": {"kind": {"enum": list(_OF_A_SOURCE)}}},
            "then": {"properties": {"how": {"const": "reported"}}},
            "else": {"properties": {"how": {"enum": ["replayed", "measured"]}}},
        },
        {
            "if": {"properties": {"kind": {"const": "published"}}},
            "then": {"properties": {"metric": {"type": "null"}}},
        },
        {
            "if": {"properties": {"kind": {"const": "verified"}}},
            "then": {"allOf": [given(name) for name in _FOR_VERIFIED]},
            "else": {"properties": {name: {"type": "null"} for name in _OF_VERIFIED}},
        },
        {
            "if": {"properties": {"metric": {"const": RELATIVE_L2}}, "required": ["metric"]},
            "then": {"properties": {name: {"minimum": 0} for name in _FIGURES}},
        },
        {"if": {"properties": {"kind": {"const": "reported"}}}, "then": given("metric")},
        {"if": given("metric"), "then": anything_of(*_FIGURES)},
        *({"if": given(name), "then": given("metric")} for name in _FIGURES),
    )

    kind: EvidenceKind = Field(
        description="Whose figure it is: `published`, a source's number without quality; `reported`, a source's own quality "
        "figure; `submitted`, validated from the submitter's traces; `verified`, repeated on prompts the submitter never saw."
    )
    how: How = Field(
        description="`replayed` on recorded traces, `measured` end to end, or `reported` by the source without traces."
    )
    metric: ShortText | None = Field(
        default=None,
        description="What the figures are of: `relative-l2`, `psnr`, `ssim`, `lpips`, `vbench` … as the source names it.",
        examples=["relative-l2", "psnr"],
    )
    value: float | None = Field(
        default=None, description="Mean over runs, any finite number in the metric's unit (dimensionless, dB …)."
    )
    p50: float | None = Field(
        default=None, description="Median over runs, any finite number in the metric's unit (dimensionless, dB …)."
    )
    p90: float | None = Field(
        default=None,
        description="What nine of ten runs are at least as good as, any finite number in the metric's unit (dimensionless, dB …).",
    )
    worst: float | None = Field(
        default=None, description="The worst run's, any finite number in the metric's unit (dimensionless, dB …)."
    )
    runs: Count | None = Field(default=None, description="Runs it was found on, at least 1.")
    compared_with: LongText | None = Field(
        default=None, description="What the samples were compared with; absent: the uncached sample of the same seed."
    )
    speedup: Positive | None = Field(
        default=None,
        description="Steps divided by computed steps where it was replayed or measured here; the source's own wall-clock figure "
        "where it is reported. A factor, above 0.",
        examples=[1.75],
    )
    latency_seconds: Positive | None = Field(default=None, description="Wall time of one run, seconds, above 0.")
    hardware: ShortText | None = Field(
        default=None, description="Device that the times are of.", examples=["one NVIDIA H100"]
    )
    source: ShortText | None = Field(
        default=None,
        description="Where the figures stand: an address, or repository and path.",
        examples=["ali-vilab/TeaCache, TeaCache4Wan2.1/README.md"],
    )
    note: LongText | None = Field(default=None, description="What else the source says.")
    prompts_sha256: Sha256 | None = Field(
        default=None, description="Verified evidence: SHA-256 of the list of prompts it was repeated on."
    )
    by: ShortText | None = Field(default=None, description="Verified evidence: who repeated it.")
    date: IsoDate | None = Field(
        default=None, description="Date of the measurement, YYYY-MM-DD; verified evidence has one."
    )
    signature: Annotated[str, Field(pattern=_SIGNATURE, max_length=88)] | None = Field(
        default=None,
        description="Verified evidence: Ed25519 signature, in base64, of this block and of the numbers it was found with, by whom `by` names.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Evidence:
        of_a_source = self.kind in _OF_A_SOURCE
        if of_a_source != (self.how == "reported"):
            expected = "'reported'" if of_a_source else "'replayed' or 'measured'"
            raise ValueError(f"how is {self.how!r} of {self.kind} evidence; expected {expected}")
        self._check_figures()
        if self.kind == "verified":
            missing = [name for name in _FOR_VERIFIED if getattr(self, name) is None]
            if missing:
                raise ValueError(
                    f"{', '.join(missing)} missing; verified evidence says on what it was repeated, by whom and when"
                )
        elif any(getattr(self, name) is not None for name in _OF_VERIFIED):
            raise ValueError(f"{', '.join(_OF_VERIFIED)} belong to verified evidence; this is {self.kind}")
        return self

    def _check_figures(self) -> None:
        figures = [name for name in _FIGURES if getattr(self, name) is not None]
        if figures and self.metric is None:
            raise ValueError(f"{', '.join(figures)} without a metric; expected what it is of")
        if self.metric is not None and not figures:
            raise ValueError(f"metric is {self.metric!r} without a figure; expected value, p50, p90 or worst")
        if self.kind == "published" and self.metric is not None:
            raise ValueError(
                f"published evidence has no quality figure, found {self.metric}; such a figure is 'reported'"
            )
        if self.kind == "reported" and self.metric is None:
            raise ValueError("reported evidence is a source's own quality figure; without one it is 'published'")
        if self.metric == RELATIVE_L2:
            if any(getattr(self, name) < 0 for name in figures):
                raise ValueError("a relative-l2 error is 0 or more")
            known = [getattr(self, name) for name in _FIGURES[1:] if getattr(self, name) is not None]
            if any(b < a for a, b in pairwise(known)):
                raise ValueError("p50, p90 and worst of an error must not fall")

    @property
    def strength(self) -> int:
        """Rank of its kind, 0 for published to 3 for verified."""
        return _STRENGTH[self.kind]

    @property
    def error(self) -> ErrorStatistics | None:
        """Its error statistics; None where its figures are of another metric, or it states no mean."""
        if self.metric != RELATIVE_L2 or self.value is None:
            return None
        return ErrorStatistics(mean=self.value, p90=self.p90, runs=self.runs, p50=self.p50, worst=self.worst)


def strongest(evidence: Sequence[Evidence]) -> EvidenceKind | None:
    """The strongest kind there is: verified, submitted, reported or published; None where there is none."""
    return max(evidence, key=lambda one: one.strength).kind if evidence else None


def strongest_first(evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """By kind, verified first; within a kind as they stand."""
    return tuple(sorted(evidence, key=lambda one: -one.strength))


Evidences = Annotated[tuple[Evidence, ...], Field(max_length=100)]
