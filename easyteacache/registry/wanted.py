"""``wanted.json``: the models that people ask a calibration for, and what would answer them.

It lies beside the index of a registry folder, and is no record: nothing looks it up, the catalogue shows it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from easyteacache.errors import InvalidModelKey
from easyteacache.files import strict_json
from easyteacache.records import model_key, parsing
from easyteacache.records.fields import ClassName, LongText, ModelKey, Record, ShortText, given, told_by_schema

FILE_NAME = "wanted.json"
#: First part of every rule identifier about this kind of file.
RULES = "wanted"
SUPPORTED_VERSIONS = (1,)
MAX_ITEMS = 50_000


class Asked(Record):
    """Where somebody asks."""

    model_config = told_by_schema({"anyOf": [given("address"), given("note")]})

    address: Annotated[str, Field(max_length=300, pattern=r"^https://[A-Za-z0-9.-]+/[!-~]*$")] | None = Field(
        default=None, description="Address of the request, beginning with `https://`."
    )
    note: ShortText | None = Field(default=None, description="What it says, in one line.")

    @model_validator(mode="after")
    def _says_something(self) -> Asked:
        if self.address is None and self.note is None:
            raise ValueError("a request has an address or a note")
        return self


class WantedModel(Record):
    """One model that somebody wants a calibration for."""

    model_key: ModelKey = Field(
        description="Key that its record will have, or has already with weaker evidence.", examples=["z-image/turbo"]
    )
    title: ShortText = Field(description="The model's name as people write it.", examples=["Z-Image-Turbo"])
    why: LongText = Field(description="Why it is wanted: what people use today, and what is wrong with it.")
    wanted: LongText | None = Field(
        default=None, description="What would answer it: step counts, sizes, samplers that people run."
    )
    checkpoint: ShortText | None = Field(
        default=None, description="Checkpoint to record with, as Hub repository id.", examples=["Tongyi-MAI/Z-Image-Turbo"]
    )
    class_name: ClassName | None = Field(default=None, description="Class of the transformer.")
    asked: Annotated[tuple[Asked, ...], Field(max_length=100)] = Field(default=(), description="Where people ask.")

    @model_validator(mode="after")
    def _key(self) -> WantedModel:
        try:
            model_key.parse(self.model_key)
        except InvalidModelKey as error:
            raise ValueError(str(error)) from error
        return self


class WantedList(Record):
    """The models that people ask a calibration for."""

    wanted_version: Literal[1] = Field(description="Version of this format.")
    models: Annotated[tuple[WantedModel, ...], Field(max_length=1000)] = Field(
        description="The models, those asked for most first; no key twice."
    )

    @model_validator(mode="after")
    def _each_once(self) -> WantedList:
        keys = [one.model_key for one in self.models]
        again = sorted({key for key in keys if keys.count(key) > 1})
        if again:
            raise ValueError(f"models: {', '.join(again[:3])} listed twice")
        return self


def read(folder: Path) -> WantedList | None:
    """The list of a registry folder, None where it has none.

    Raises:
        InvalidCalibration: the file is unreadable or breaks its format.
    """
    path = folder / FILE_NAME
    if not os.path.lexists(path):
        return None
    return from_json(parsing.read_file(path, rules=RULES, max_bytes=strict_json.MAX_BYTES), where=os.fspath(path))


def from_json(data: bytes | str, *, where: str = FILE_NAME) -> WantedList:
    """Read a list from JSON text; raises as ``read`` does. An editor's ``$schema`` may stand first."""
    content = parsing.read_object(data, where=where, rules=RULES, max_bytes=strict_json.MAX_BYTES, max_items=MAX_ITEMS)
    parsing.require_version(content, "wanted_version", supported=SUPPORTED_VERSIONS, where=where, rules=RULES)
    content = {name: value for name, value in content.items() if name != "$schema"}
    return parsing.validate(WantedList, content, where=where, rules=RULES)
