"""Settings of another engine's method: listed, compared and exported, never applied by this project."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from easyteacache.records.fields import Record, ShortText

ParameterName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,79}$", max_length=80)]
Scalar = bool | int | float | ShortText
Parameter = Scalar | Annotated[tuple[Scalar, ...], Field(max_length=1000)]


class Preset(Record):
    """One engine's method with the settings that it is run with."""

    engine: ShortText = Field(description="Program that runs the method.", examples=["cache-dit"])
    method: ShortText = Field(description="What that program calls the method.", examples=["DBCache"])
    parameters: Annotated[dict[ParameterName, Parameter], Field(max_length=100)] = Field(
        default={},
        description="Its settings under that program's own names: text, true or false, any finite number (dimensionless where "
        "the program does not say otherwise), or a list of these.",
        examples=[{"Fn_compute_blocks": 8, "residual_diff_threshold": 0.12}],
    )

    def __hash__(self) -> int:
        return hash((self.engine, self.method, frozenset(self.parameters.items())))
