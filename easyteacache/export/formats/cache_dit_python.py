"""cache-dit in Python: a ``DBCacheConfig`` whose mask is spelled in bins.

``steps_mask(compute_bins=[6, 2], cache_bins=[3, 1])`` is six computed steps, three reused, two computed, one reused; the policy
``static`` leaves nothing else to decide (vipshop/cache-dit release 1.5.3, src/cache_dit/caching/cache_interface.py and
cache_contexts/cache_config.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export import dbcache, step_masks
from easyteacache.export import parsed as files
from easyteacache.export.deviations import Deviation
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import header, python_call


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """Imports, the mask, and the two configurations that ``cache_dit.enable_cache`` takes."""
    mask = dbcache.mask_of(numbers)
    compute, cache = step_masks.bins_of(mask)
    bins = {"compute_bins": list(compute), "cache_bins": list(cache), "total_steps": len(mask)}
    arguments = {"num_inference_steps": len(mask), **dbcache.BY_MASK, "steps_computation_policy": "static"}
    order = dbcache.taylor_order(numbers.forecaster)
    names = ["DBCacheConfig", *(["TaylorSeerCalibratorConfig"] if order else []), "steps_mask"]
    config = python_call("DBCacheConfig", arguments).replace("\n)", "\n    steps_computation_mask=mask,\n)")
    calibrator = f"calibrator_config = TaylorSeerCalibratorConfig(taylorseer_order={order})\n" if order else ""
    return (
        f"{header(numbers, remarks)}from cache_dit import {', '.join(names)}\n\n"
        f"mask = {python_call('steps_mask', bins)}\ncache_config = {config}\n{calibrator}"
    )


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """What DBCache does otherwise."""
    yield from dbcache.deviations(numbers, "cache-dit")


def read(text: str, where: str) -> Iterator[Parsed]:
    """The bins of ``steps_mask``, or a list of 0 and 1, and the settings beside it."""
    content = files.python_values(text, where)
    config: dict[str, Any] = dict(content.get("DBCacheConfig") or {})
    bins = config.pop("steps_mask", None) or content.get("steps_mask")
    if bins is not None:
        compute = step_masks.bin_list(bins.get("compute_bins"), "compute_bins", where)
        cache = step_masks.bin_list(bins.get("cache_bins"), "cache_bins", where, empty=True)
        total = files.whole(bins, "total_steps", where)
        config["steps_computation_mask"] = step_masks.mask_of_bins(compute, cache, where, total)
    elif "mask" in content and "steps_computation_mask" not in config:
        config["steps_computation_mask"] = content["mask"]
    taylor = content.get("TaylorSeerCalibratorConfig")
    if taylor is not None:
        config |= {"enable_taylorseer": True, "taylorseer_order": taylor.get("taylorseer_order", 1)}
    if not config:
        raise files.refuse(where, "no call of DBCacheConfig or steps_mask with literal numbers")
    steps = files.whole(config, "num_inference_steps", where)
    yield dbcache.read(config, "cache-dit", where, num_steps=steps, model_key=files.key_in(text))
