"""cache-dit: the ``cache_config`` section of a YAML file that ``cache_dit.load_configs`` reads.

``steps_computation_mask`` marks each step, 1 computed and 0 reused; with ``steps_computation_policy: static`` nothing else
decides. The first block is computed in every step and its output is what the reused residual is added to; warm-up steps come
before the mask and are therefore set to 1, the step that a schedule computes anyway (vipshop/cache-dit 1.5.3,
src/cache_dit/caching/load_configs.py and cache_contexts/cache_config.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export.deviations import Deviation
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.spelling import header, yaml_mapping

# caching/cache_contexts/calibrators/foca.py of 1.5.3.
_WHY = (
    "Its own FoCa takes the difference of two computed steps for a slope however far apart they are. Choose an operating point "
    "with hold or taylor-N, or let it repeat the residual."
)
_TAYLOR = re.compile(r"taylor-(\d)")


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """A YAML document with the section ``cache_config``."""
    assert numbers.schedule is not None
    steps = numbers.num_steps or numbers.schedule[-1] + 1
    computed = set(numbers.schedule)
    section: dict[str, Any] = {
        "num_inference_steps": steps,
        "Fn_compute_blocks": 1,
        "Bn_compute_blocks": 0,
        "max_warmup_steps": 1,
        "max_cached_steps": -1,
        "max_continuous_cached_steps": -1,
        "steps_computation_mask": [int(step in computed) for step in range(steps)],
        "steps_computation_policy": "static",
    }
    order = _taylor_order(numbers.forecaster)
    if order:
        section |= {"enable_taylorseer": True, "taylorseer_order": order}
    return f"{header(numbers, remarks)}{yaml_mapping({'cache_config': section})}"


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """The mask says when to compute; what fills a reused step is cache-dit's own."""
    if numbers.schedule is None:
        return
    yield Deviation(
        "signal", False, "cache-dit computes the first block in every step and caches what the others add to it."
    )
    if numbers.applied_to != "residual":
        yield Deviation(
            "forecast",
            True,
            f"The plan was judged on the {numbers.applied_to}; what cache-dit repeats or continues is the residual of the blocks.",
        )
    if numbers.forecaster == "hold":
        return
    order = _taylor_order(numbers.forecaster)
    if order is None:
        yield Deviation(
            "forecast", True, f"cache-dit cannot fill a reused step with {numbers.forecaster} as it was judged. {_WHY}"
        )
    elif order:
        yield Deviation(
            "forecast",
            False,
            f"cache-dit's TaylorSeer of order {order} divides by its own step distances; it was not judged here.",
        )


def _taylor_order(forecaster: str) -> int | None:
    """Order of the TaylorSeer that comes nearest, 0 for repeating the residual, None where there is none."""
    if forecaster == "hold":
        return 0
    found = _TAYLOR.fullmatch(forecaster)
    return int(found[1]) if found else {"linear": 1, "quadratic": 2}.get(forecaster)
