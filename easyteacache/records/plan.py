"""The normal form of a step cache: which steps are computed, and what the others are made of.

Step j of a plan gives the model's output as a weighted sum of what was computed so far, Σ a_jk v_k over the computed steps
k ≤ j: its *row*. Every linear cache is such rows, whatever its recurrence looks like. A plan either lists them or names the
predictor that they follow from.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from easyteacache.records.fields import (
    MAX_STEPS,
    NotNegative,
    PredictorName,
    Record,
    StepIndex,
    anything_of,
    given,
    told_by_schema,
)

#: How callers name a plan whose rows are numbers of the record instead of following from the steps computed.
FITTED = "fitted"
MAX_ROW = 100
MAX_WEIGHT = 1000

Coordinate = Literal["step", "timestep", "sigma"]
AppliedTo = Literal["residual", "feature", "output"]
Row = Annotated[
    tuple[Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)], ...], Field(min_length=1, max_length=MAX_ROW)
]
Rows = Annotated[tuple[Row, ...], Field(min_length=1, max_length=MAX_STEPS)]
Computed = Annotated[tuple[StepIndex, ...], Field(min_length=1, max_length=MAX_STEPS)]

_TRUE = {"const": True}


class Plan(Record):
    """Which steps of a run are computed, and what the reused ones are made of."""

    model_config = told_by_schema(
        anything_of("predictor", "rows"),
        {"properties": {"computed": {"prefixItems": [{"const": 0}]}, "predictor": {"not": {"const": FITTED}}}},
        {"properties": {"rows": {"anyOf": [{"type": "null"}, {"prefixItems": [{"const": [1]}], "type": "array"}]}}},
        {"if": given("levels"), "then": given("rows")},
        {"if": {"properties": {"corrected": _TRUE}, "required": ["corrected"]}, "then": given("rows")},
        {
            "if": {"allOf": [given("predictor"), given("rows")]},
            "then": {"properties": {"corrected": _TRUE}, "required": ["corrected"]},
        },
        {
            "if": {"not": given("predictor")},
            "then": {
                "properties": {"coordinate": {"const": "step"}},
                "if": {"properties": {"corrected": _TRUE}, "required": ["corrected"]},
                "then": {"properties": {"applied_to": {"const": "output"}}, "required": ["applied_to"]},
            },
        },
        {
            "if": {"properties": {"combined": _TRUE}, "required": ["combined"]},
            "then": {"properties": {"applied_to": {"const": "output"}}, "required": ["applied_to"]},
        },
    )

    computed: Computed = Field(
        description="The computed steps, zero-based indices, ascending, beginning with 0; the last step may be reused.",
        examples=[[0, 1, 2, 4, 6, 8, 9]],
    )
    applied_to: AppliedTo = Field(
        default="residual",
        description="What reused steps are made of: the block stack's `residual`, its output before the head (`feature`), "
        "or the model's `output`.",
    )
    combined: bool = Field(
        default=False,
        description="Whether that is the output after guidance, one for all branches; only of an `output`.",
    )
    predictor: PredictorName | None = Field(
        default=None,
        description="What fills a reused step: `hold`, `linear`, `quadratic`, `taylor-N`, `foca` …; absent where `rows` do.",
        examples=["linear"],
    )
    coordinate: Coordinate = Field(default="step", description="The axis the predictor extrapolates along.")
    corrected: bool = Field(
        default=False,
        description="Whether rows of computed steps correct the sampler's state: the sampler is handed what brings the sample "
        "to where the row says.",
    )
    levels: Annotated[tuple[NotNegative, ...], Field(min_length=2, max_length=MAX_STEPS + 1)] | None = Field(
        default=None,
        description="Noise levels, strictly descending, 0 or more, one before each step and one after the last, where the rows "
        "hold for these alone; absent: they hold for any.",
    )
    rows: Rows | None = Field(
        default=None,
        description="Per step the weights of the latest computed steps up to and including this one, oldest first. One row a "
        "step, 1 to 100 weights a row, dimensionless, −1000 to 1000; the row of step 0, and of every computed step of a plan "
        "that does not correct, is [1].",
        examples=[[[1.0], [1.0], [-1.0, 2.0]]],
    )

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        if any(b <= a for a, b in pairwise(self.computed)):
            raise ValueError("computed must be strictly ascending")
        if self.computed[0] != 0:
            raise ValueError(
                f"computed begins with step {self.computed[0]}; expected 0, nothing can be reused before it"
            )
        if self.predictor == FITTED:
            raise ValueError(f"predictor is {FITTED!r}, which is no predictor: give rows alone")
        if self.combined and self.applied_to != "output":
            raise ValueError(f"combined is true; guidance combines outputs, applied_to is {self.applied_to!r}")
        if self.rows is None:
            self._check_without_rows()
        else:
            self._check_rows(self.rows)
        return self

    def _check_without_rows(self) -> None:
        if self.predictor is None:
            raise ValueError("neither a predictor nor rows: nothing says what a reused step is made of")
        if self.corrected:
            raise ValueError("corrected is true without rows; they say what a computed step corrects")
        if self.levels is not None:
            raise ValueError("levels without rows; they are the noise levels that rows hold for")

    def _check_rows(self, rows: tuple[tuple[float, ...], ...]) -> None:
        if self.predictor is not None and not self.corrected:
            raise ValueError(
                f"predictor {self.predictor!r} and rows both fill reused steps; give one, or corrected = true"
            )
        if self.predictor is None and self.coordinate != "step":
            raise ValueError(
                f"coordinate is {self.coordinate!r} without a predictor; rows are given per step, expected 'step'"
            )
        if self.predictor is None and self.corrected and self.applied_to != "output":
            raise ValueError(
                f"applied_to is {self.applied_to!r}; rows that correct are of model outputs, expected 'output'"
            )
        if self.levels is not None:
            if len(self.levels) != len(rows) + 1:
                raise ValueError(f"{len(self.levels)} levels for {len(rows)} rows; expected one more than rows")
            if any(b >= a for a, b in pairwise(self.levels)):
                raise ValueError("levels must be strictly descending, from noise to sample")
        if self.computed[-1] >= len(rows):
            raise ValueError(
                f"computed names step {self.computed[-1]}; the last of {len(rows)} rows is {len(rows) - 1}"
            )
        computed, done = set(self.computed), 0
        for step, row in enumerate(rows):
            done += step in computed
            if row != (1.0,) and (step == 0 or (step in computed and not self.corrected)):
                why = "nothing is known before it" if step == 0 else "it is computed, and nothing is corrected"
                raise ValueError(f"the row of step {step} is {list(row[:4])}; expected [1], {why}")
            if len(row) > done:
                raise ValueError(f"step {step} has {len(row)} weights; up to it {done} of the steps are computed")

    @property
    def num_weights(self) -> int:
        """Numbers in its rows."""
        return sum(map(len, self.rows or ()))
