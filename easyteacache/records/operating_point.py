"""One setting that may be chosen: a threshold, a plan or another engine's preset, and what it gave."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from easyteacache.records.evidence import ErrorStatistics, Evidence, EvidenceKind, Evidences, strongest, strongest_first
from easyteacache.records.fields import Positive, PredictorName, Record, StepCount, given, told_by_schema
from easyteacache.records.plan import FITTED, AppliedTo, Coordinate, Plan
from easyteacache.records.preset import Preset

#: Fields that stand beside a threshold; a plan says the same itself, and a preset has no use for them.
BESIDE_A_THRESHOLD = ("predictor", "coordinate", "applied_to")
_KINDS = ("threshold", "plan", "preset")


class OperatingPoint(Record):
    """One setting that may be chosen, a threshold, a plan or a preset, and what it gave."""

    model_config = told_by_schema(
        {"oneOf": [given(name) for name in _KINDS]},
        {"properties": {"predictor": {"not": {"const": FITTED}}}},
        {
            "if": {"not": given("threshold")},
            "then": {"not": {"anyOf": [{"required": [n]} for n in BESIDE_A_THRESHOLD]}},
        },
    )

    threshold: Positive | None = Field(
        default=None,
        description="Accumulated predicted distance at which a step must be computed, dimensionless, above 0.",
        examples=[0.14],
    )
    predictor: PredictorName = Field(
        default="hold",
        description="Beside a threshold: what fills a reused step: `hold`, `linear`, `quadratic`, `taylor-N`, `foca` …",
    )
    coordinate: Coordinate = Field(
        default="step", description="Beside a threshold: the axis the predictor extrapolates along."
    )
    applied_to: AppliedTo = Field(
        default="residual",
        description="Beside a threshold: what is predicted: the block stack's `residual`, its output before the head "
        "(`feature`), or the model's `output`.",
    )
    plan: Plan | None = Field(
        default=None, description="Instead of a threshold: which steps are computed, and what the others are made of."
    )
    preset: Preset | None = Field(
        default=None,
        description="Instead of either: settings of another engine's method; never applied by this project.",
    )
    computed_steps: StepCount | None = Field(
        default=None, description="Steps computed in one run (rounded mean over runs for a threshold), at least 1."
    )
    evidence: Evidences = Field(default=(), description="What it gave, and how that is known.")

    @model_validator(mode="after")
    def _one_kind(self) -> OperatingPoint:
        kinds = [name for name in _KINDS if getattr(self, name) is not None]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "none"
            raise ValueError(
                f"an operating point has a threshold, a plan or a preset, exactly one of them; found {found}"
            )
        beside = [name for name in BESIDE_A_THRESHOLD if name in self.model_fields_set]
        if self.threshold is None and beside:
            raise ValueError(
                f"{', '.join(beside)} beside a {kinds[0]}; they belong to a threshold, a plan says the same inside"
            )
        if self.threshold is not None and self.predictor == FITTED:
            raise ValueError(f"predictor is {FITTED!r} beside a threshold; only a plan has rows of its own")
        if self.plan is not None:
            if self.computed_steps not in (None, len(self.plan.computed)):
                raise ValueError(
                    f"computed_steps is {self.computed_steps}, the plan computes {len(self.plan.computed)}"
                )
            # A plan's can be read here, too, so that callers need not ask which kind of point it is.
            told = (self.plan.predictor or FITTED, self.plan.coordinate, self.plan.applied_to)
            self.__dict__.update(zip(BESIDE_A_THRESHOLD, told, strict=True))
        return self

    @model_serializer(mode="wrap")
    def _spelled(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        if self.threshold is None:
            # The plan says them.
            content = {name: value for name, value in content.items() if name not in BESIDE_A_THRESHOLD}
        return content

    @property
    def schedule(self) -> tuple[int, ...] | None:
        """The computed steps of a plan."""
        return None if self.plan is None else self.plan.computed

    @property
    def weights(self) -> tuple[tuple[float, ...], ...] | None:
        """The rows of a plan."""
        return None if self.plan is None else self.plan.rows

    @property
    def forecaster(self) -> str:
        """The predictor's name; ``fitted`` for a plan of rows alone."""
        return self.predictor

    @property
    def strongest(self) -> EvidenceKind | None:
        """The strongest kind of evidence there is: verified, submitted, reported or published."""
        return strongest(self.evidence)

    @property
    def speedup(self) -> float | None:
        """The speed-up of the strongest evidence that states one, a factor."""
        return next((one.speedup for one in self.by_strength if one.speedup is not None), None)

    @property
    def error(self) -> ErrorStatistics | None:
        """The relative L2 error of the strongest evidence that states one."""
        return next((one.error for one in self.by_strength if one.error is not None), None)

    @property
    def by_strength(self) -> tuple[Evidence, ...]:
        """The evidence, strongest kind first."""
        return strongest_first(self.evidence)
