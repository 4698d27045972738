"""xDiT: the buffer of ``CacheContext`` that holds a model's coefficients, and the arguments of its cached blocks.

Coefficients are registered by name (``flux_coef``) and the blocks' ``name`` selects them. Its counter starts with the second call of
a run: steps 0 and 1 are computed, and what was meant to force the last one falls on the next run's first (xdit-project/xDiT,
xfuser/model_executor/cache/utils.py in release 0.7.0). Its FirstBlockCache takes a threshold, which is a preset
(xfuser/model_executor/cache/diffusers_adapters there).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export import parsed as files
from easyteacache.export import presets
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import header, python_literal

BLOCKS = "TEACACHED_BLOCKS"
_SUFFIX = "_coef"


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """The coefficients under the buffer's name, and keyword arguments for ``TeaCachedTransformerBlocks``."""
    if numbers.preset is not None:
        given = "".join(f"    {name}={value!r},\n" for name, value in presets.settings("xdit", numbers.preset).items())
        return (
            f"{header(numbers, remarks)}from xfuser.model_executor.cache.diffusers_adapters import apply_cache_on_transformer\n\n"
            f"apply_cache_on_transformer(\n    transformer,\n{given})\n"
        )
    name = "default" if model is None or model.name is None else model.name
    arguments: dict[str, Any] = {"name": name, "rel_l1_thresh": numbers.threshold}
    arguments |= {} if numbers.num_steps is None else {"num_steps": numbers.num_steps}
    listed = python_literal(list(numbers.coefficients or ()))
    return f"{header(numbers, remarks)}{name}{_SUFFIX} = {listed}\n{BLOCKS} = {python_literal(arguments)}\n"


def read(text: str, where: str) -> Iterator[Parsed]:
    """The one list of a file."""
    content = files.python_values(text, where)
    rule = presets.rule_called("xdit", "apply_cache_on_transformer")
    if rule is not None and rule.call in content:
        preset = presets.read_by(rule, content[rule.call], lambda reason: files.refuse(where, reason))
        yield Parsed(preset=preset, model_key=files.key_in(text))
        return
    names = [name for name in content if name.endswith(_SUFFIX)]
    if len(names) != 1:
        raise files.refuse(where, f"expected one list named like flux{_SUFFIX}, found {len(names)}")
    arguments = content.get(BLOCKS, {})
    arguments = arguments if isinstance(arguments, dict) else {}
    yield Parsed(
        coefficients=files.numbers(content[names[0]], names[0], where),
        threshold=files.number(arguments, "rel_l1_thresh", where),
        num_steps=files.whole(arguments, "num_steps", where),
        first=2,
        last=-1,
        post="none",
        model_key=files.key_in(text),
    )
