"""A plan, or a preset, as settings of cache-dit's DBCache: what its own files and those of the engines that build on it have in common.

With a mask and the static policy nothing else decides: a step marked 0 is reused before thresholds and limits are looked at, and warm-up
is cut to the steps that the mask computes first. The first block runs in every step, and what the others add to it is reused
(vipshop/cache-dit 1.5.3, src/cache_dit/caching/cache_contexts/cache_manager.py and cache_context.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from easyteacache.export import presets, step_masks
from easyteacache.export.deviations import Deviation
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed, refuse

# caching/cache_contexts/calibrators/foca.py of 1.5.3.
_WHY = (
    "Its own FoCa takes the difference of two computed steps for a slope however far apart they are. Choose an operating point "
    "with hold or taylor-N, or let it repeat the residual."
)
_TAYLOR = re.compile(r"taylor-(\d)")
#: Settings that leave the decision to the mask alone.
BY_MASK: Mapping[str, Any] = {
    "Fn_compute_blocks": 1,
    "Bn_compute_blocks": 0,
    "max_warmup_steps": 1,
    "max_continuous_cached_steps": -1,
}


def mask_of(numbers: Numbers) -> tuple[int, ...]:
    """The mask of a plan."""
    assert numbers.schedule is not None
    return step_masks.mask_of(numbers.schedule, numbers.num_steps or numbers.schedule[-1] + 1)


def filling(numbers: Numbers) -> dict[str, Any]:
    """The settings of TaylorSeer where the plan extrapolates; none where it repeats."""
    order = taylor_order(numbers.forecaster)
    return {"enable_taylorseer": True, "taylorseer_order": order} if order else {}


def deviations(numbers: Numbers, title: str, *, highest: int | None = None) -> Iterator[Deviation]:
    """The mask says when to compute; what fills a reused step is cache-dit's own.

    Args:
        numbers: a plan's.
        title: the engine that is told of.
        highest: the greatest order of TaylorSeer that it takes; None: any.
    """
    if numbers.schedule is None:
        return
    yield Deviation(
        "signal", False, "cache-dit computes the first block in every step and caches what the others add to it."
    )
    if numbers.forecaster == "hold":
        return
    order = taylor_order(numbers.forecaster)
    if order is None:
        yield Deviation(
            "forecast", True, f"cache-dit cannot fill a reused step with {numbers.forecaster} as it was judged. {_WHY}"
        )
    elif order and highest is not None and order > highest:
        yield Deviation(
            "forecast", True, f"{title} takes TaylorSeer of order {highest} at most, this plan's is {order}."
        )
    elif order:
        yield Deviation(
            "forecast",
            False,
            f"cache-dit's TaylorSeer of order {order} divides by its own step distances; it was not judged here.",
        )


def taylor_order(forecaster: str) -> int | None:
    """Order of the TaylorSeer that comes nearest, 0 for repeating the residual, None where there is none."""
    if forecaster == "hold":
        return 0
    found = _TAYLOR.fullmatch(forecaster)
    return int(found[1]) if found else {"linear": 1, "quadratic": 2}.get(forecaster)


def read(given: Mapping[str, Any], engine: str, where: str, **known: Any) -> Parsed:
    """What a file's settings mean, under cache-dit's names: a plan where a static mask decides, else a preset.

    Args:
        given: the settings; ``steps_computation_mask`` a list of 0 and 1.
        engine: whose preset it is, as records name it.
        where: the file, for messages.
        known: further fields of what was read.

    Raises:
        InvalidCalibration: a setting has a wrong value.
    """
    mask = given.get("steps_computation_mask")
    if mask is None:
        preset = presets.read_dbcache(engine, given, lambda reason: refuse(where, reason))
        return Parsed(preset=preset, **known)
    computed = step_masks.computed_of(mask, "steps_computation_mask", where)
    policy = given.get("steps_computation_policy", "dynamic")
    if policy not in ("static", "dynamic"):
        raise refuse(where, f"steps_computation_policy is {policy!r}, expected 'static' or 'dynamic'")
    steps = len(mask)
    stated = known.pop("num_steps", None)
    if stated not in (None, steps):
        raise refuse(where, f"the mask has {steps} entries for {stated} steps; expected one a step")
    if policy == "dynamic":
        names = ("Fn_compute_blocks", "Bn_compute_blocks", "max_warmup_steps", "residual_diff_threshold")
        kept = {name: given[name] for name in names if given.get(name) is not None}
        parameters = {**kept, "steps_computation_mask": list(mask), "steps_computation_policy": policy}
        preset = {"engine": engine, "method": "DBCache with a step mask", "parameters": parameters}
        return Parsed(preset=preset, num_steps=steps, **known)
    taylor = given.get("enable_taylorseer", False)
    order = given.get("taylorseer_order", 1) if taylor else 0
    if not isinstance(taylor, bool) or isinstance(order, bool) or order not in (0, 1, 2, 3, 4):
        raise refuse(where, f"enable_taylorseer is {taylor!r} with order {order!r}, expected true or false and 1 to 4")
    fill = {0: "hold", 1: "linear"}.get(order, f"taylor-{order}")
    return Parsed(schedule=computed, forecaster=fill, num_steps=steps, **known)
