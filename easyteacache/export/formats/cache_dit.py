"""cache-dit: the ``cache_config`` section of a YAML file that ``cache_dit.load_configs`` reads.

``steps_computation_mask`` marks each step, 1 computed and 0 reused; with ``steps_computation_policy: static`` nothing else
decides. The first block is computed in every step and its output is what the reused residual is added to; warm-up steps come
before the mask and are therefore set to 1, the step that a schedule computes anyway (vipshop/cache-dit release 1.5.3,
src/cache_dit/caching/load_configs.py and cache_contexts/cache_config.py). A mask may be the name of a policy there, which stands for
lists inside cache-dit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export import dbcache, presets
from easyteacache.export import parsed as files
from easyteacache.export.deviations import Deviation
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import header, yaml_mapping


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """A YAML document with the section ``cache_config``."""
    steps = {} if numbers.num_steps is None else {"num_inference_steps": numbers.num_steps}
    if numbers.preset is not None:
        section = {**steps, **presets.settings("cache-dit", numbers.preset)}
        return f"{header(numbers, remarks)}{yaml_mapping({'cache_config': section})}"
    mask = dbcache.mask_of(numbers)
    section = {
        "num_inference_steps": len(mask),
        "Fn_compute_blocks": 1,
        "Bn_compute_blocks": 0,
        "max_warmup_steps": 1,
        "max_cached_steps": -1,
        "max_continuous_cached_steps": -1,
        "steps_computation_mask": list(mask),
        "steps_computation_policy": "static",
        **dbcache.filling(numbers),
    }
    return f"{header(numbers, remarks)}{yaml_mapping({'cache_config': section})}"


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """What DBCache does otherwise."""
    yield from dbcache.deviations(numbers, "cache-dit")


def read(text: str, where: str) -> Iterator[Parsed]:
    """The section's mask, or its settings where it has none."""
    section: Any = files.yaml_object(text, where).get("cache_config")
    if not isinstance(section, dict):
        raise files.refuse(where, "no section cache_config")
    if isinstance(section.get("steps_computation_mask"), str):
        raise files.refuse(
            where,
            "steps_computation_mask names a policy, which stands for lists inside cache-dit; write the list that "
            "cache_dit.steps_mask(mask_policy=…, total_steps=…) gives",
        )
    steps = files.whole(section, "num_inference_steps", where)
    yield dbcache.read(section, "cache-dit", where, num_steps=steps, model_key=files.key_in(text))
