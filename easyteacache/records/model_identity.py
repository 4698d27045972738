"""Which model numbers were made with, as exactly as anybody can say."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from easyteacache.records.fields import Branch, ClassName, Record, Sha256, ShortText, given, told_by_schema

_TEXTS = ("class_name", "configuration_sha256", "checkpoint", "checkpoint_commit", "part", "dtype", "quantization")


class ActiveAdapter(Record):
    """An adapter (LoRA and its kin) that was active in the model."""

    name: ShortText = Field(description="What the adapter is called, where it can be a Hub repository id.")
    scale: float | None = Field(
        default=None, description="Weight it was active with, dimensionless, any finite number."
    )


class ModelIdentity(Record):
    """The model that numbers were made with; absent where nobody says."""

    model_config = told_by_schema(
        {
            "anyOf": [
                *(given(name) for name in _TEXTS),
                given("adapters", several=True),
            ]
        }
    )

    class_name: ClassName | None = Field(
        default=None, description="Class of the transformer.", examples=["WanTransformer3DModel"]
    )
    configuration_sha256: Sha256 | None = Field(
        default=None,
        description="SHA-256 of the transformer's configuration, as in an alias of kind `transformer_class`.",
    )
    checkpoint: ShortText | None = Field(
        default=None,
        description="Checkpoint, as Hub repository id or hash of its weights.",
        examples=["Wan-AI/Wan2.1-T2V-14B-Diffusers"],
    )
    checkpoint_commit: ShortText | None = Field(default=None, description="Commit or hash of the checkpoint.")
    part: Branch | None = Field(
        default=None, description="Expert of the model, for example `high-noise`.", examples=["high-noise"]
    )
    adapters: Annotated[tuple[ActiveAdapter, ...], Field(max_length=100)] = Field(
        default=(), description="Adapters that were active, in order."
    )
    dtype: ShortText | None = Field(
        default=None, description="Number type of the transformer, for example `bfloat16`.", examples=["bfloat16"]
    )
    quantization: ShortText | None = Field(default=None, description="Quantisation of the weights, if any.")

    @model_validator(mode="after")
    def _says_something(self) -> ModelIdentity:
        # Absent fields are not written, so that an empty one would not survive a round trip.
        if all(value in (None, ()) for value in self.__dict__.values()):
            raise ValueError("model says nothing: leave it out")
        return self
