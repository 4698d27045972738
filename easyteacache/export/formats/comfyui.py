"""ComfyUI-TeaCache: an entry of ``SUPPORTED_MODELS_COEFFICIENTS`` in its nodes.py, and the node's inputs.

The entry's name selects signal and treatment of p(x); Wan's retention mode has names of its own that end in ``_ret_mode``
(welltop-cn/ComfyUI-TeaCache, nodes.py at 91dff8e31684; the table's form was read at 1a11412deac8). Threshold and window
are inputs of the node: ``rel_l1_thresh``, ``start_percent``, ``end_percent``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export import parsed as files
from easyteacache.export.engine import Model
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import header, python_literal

TABLE = "SUPPORTED_MODELS_COEFFICIENTS"
NODE = "TEACACHE_NODE"
_RETENTION = "_ret_mode"


def write(numbers: Numbers, model: Model | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """The entry, and the node's inputs that belong to it."""
    name = numbers.record.model_key if model is None or model.name is None else model.name
    if numbers.record.signal == "timestep_projection":
        name += _RETENTION
    inputs: dict[str, Any] = {"model_type": name, "rel_l1_thresh": numbers.threshold}
    if numbers.num_steps:
        last = numbers.num_steps - 1 if numbers.last is None else numbers.last
        shares = (round(numbers.first / numbers.num_steps, 6), round((last + 1) / numbers.num_steps, 6))
        inputs |= {"start_percent": shares[0], "end_percent": shares[1]}
    elif numbers.fraction is not None:
        inputs |= {"start_percent": numbers.fraction[0], "end_percent": numbers.fraction[1]}
    table = python_literal({name: list(numbers.coefficients or ())})
    return f"{header(numbers, remarks)}{TABLE} = {table}\n{NODE} = {python_literal(inputs)}\n"


def read(text: str, where: str) -> Iterator[Parsed]:
    """Every entry of the table."""
    content = files.python_values(text, where)
    table = content.get(TABLE)
    if not isinstance(table, dict):
        raise files.refuse(where, f"no dictionary {TABLE}")
    node = content.get(NODE, {})
    for name, listed in table.items():
        inputs = node if isinstance(node, dict) and node.get("model_type") == name else {}
        wan = str(name).startswith("wan")
        signal = "timestep_projection" if str(name).endswith(_RETENTION) else "timestep_embedding" if wan else None
        yield Parsed(
            label=str(name) if len(table) > 1 else None,
            coefficients=files.numbers(listed, str(name), where),
            threshold=files.number(inputs, "rel_l1_thresh", where),
            post="abs" if str(name).startswith("flux") else "none",
            signal=signal,
            model_key=files.key_in(text),
        )
