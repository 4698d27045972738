"""ComfyUI-TeaCache: an entry of ``SUPPORTED_MODELS_COEFFICIENTS`` in its nodes.py, and the node's inputs.

The entry's name selects signal and treatment of p(x); Wan's retention mode has names of its own that end in ``_ret_mode``
(welltop-cn/ComfyUI-TeaCache, nodes.py at 91dff8e31684). Threshold and window are inputs of the node: ``rel_l1_thresh``,
``start_percent``, ``end_percent``. Step k of N may be reused where ``start_percent <= k / N <= end_percent``; shares half a step
outside the window mean the same steps however they are rounded, up to 50 steps also by the node's own two decimals. The distance
accumulates in every step, so that a window which forces more than step 0 leaves a sum behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export import parsed as files
from easyteacache.export.deviations import Deviation
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import header, python_literal

TABLE = "SUPPORTED_MODELS_COEFFICIENTS"
NODE = "TEACACHE_NODE"
_RETENTION = "_ret_mode"


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """The entry, and the node's inputs that belong to it."""
    name = numbers.record.model_key if model is None or model.name is None else model.name
    if numbers.record.signal == "timestep_projection":
        name += _RETENTION
    inputs: dict[str, Any] = {"model_type": name, "rel_l1_thresh": numbers.threshold}
    if numbers.num_steps:
        last = numbers.num_steps - 1 if numbers.last is None else numbers.last
        shares = (round((place + half) / numbers.num_steps, 6) for place, half in ((numbers.first, -0.5), (last, 0.5)))
        inputs |= dict(zip(("start_percent", "end_percent"), shares, strict=True))
    elif numbers.fraction is not None:
        inputs |= {"start_percent": numbers.fraction[0], "end_percent": numbers.fraction[1]}
    table = python_literal({name: list(numbers.coefficients or ())})
    return f"{header(numbers, remarks)}{TABLE} = {table}\n{NODE} = {python_literal(inputs)}\n"


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """A forced step does not reset the sum, and the node's inputs have two decimals."""
    share = numbers.fraction is not None and numbers.num_steps is None and numbers.fraction[0] > 0
    if numbers.first > 1 or share:
        yield Deviation(
            "window",
            True,
            "ComfyUI-TeaCache accumulates in the steps before the window, too, and a step that the window forces does not reset "
            "the sum: it computes at other steps than the record's gate.",
        )
    if numbers.threshold is not None and round(numbers.threshold, 2) != numbers.threshold:
        yield Deviation(
            "threshold",
            False,
            f"The node's input has two decimals: {numbers.threshold:g} is only kept in a workflow file.",
        )


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
