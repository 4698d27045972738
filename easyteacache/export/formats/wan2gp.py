"""Wan2GP: ``teacache_coefficients`` in the ``model`` object of a file in its defaults or finetunes folder.

It overrides the coefficients that Wan2GP would choose from model type and resolution. The threshold is searched there for the
speed-up that the user picks, and the first step is a setting of the user (deepbeepmeep/Wan2GP, defaults/multitalk.json at
8681e9f777f9; the built-in lists are in models/wan/wan_handler.py at 4d9972134a9f, the decision in
models/wan/modules/model.py at 1a4ba715a8d4: the last step is always computed).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from easyteacache.export import parsed as files
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import ORIGIN, origin
from easyteacache.files import strict_json

KEY = "teacache_coefficients"


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """The override, to be merged into a model's file."""
    # Beside the model object stand settings; inside it unknown keys are carried along.
    return strict_json.spell({"model": {KEY: list(numbers.coefficients or ()), ORIGIN: origin(numbers, remarks)}})


def read(text: str, where: str) -> Iterator[Parsed]:
    """The override of a model's file."""
    content = files.json_object(text, where)
    model = content.get("model")
    if not isinstance(model, dict) or KEY not in model:
        raise files.refuse(where, f"no {KEY} in its model object")
    name = str(model.get("architecture", ""))
    yield Parsed(
        coefficients=files.numbers(model[KEY], KEY, where),
        post="none" if "hunyuan" in name else None,
        model_key=files.key_of_origin(model),
    )
