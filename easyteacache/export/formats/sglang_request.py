"""SGLang diffusion with cache-dit, per request: the fields of a request's body.

``enable_cache_dit`` and ``cache_dit_params`` stand beside the prompt; a request's bins go before the server's. Keys that SGLang does
not know fail the request, so the origin stands outside the parameters (sgl-project/sglang release 0.5.23,
python/sglang/multimodal_gen/configs/sample/sampling_params.py and runtime/cache/cache_dit_integration.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export import dbcache, presets, step_masks
from easyteacache.export import parsed as files
from easyteacache.export.deviations import Deviation
from easyteacache.export.engine import CachedModels
from easyteacache.export.formats import sglang_cache_dit
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import ORIGIN, origin
from easyteacache.files import strict_json

PARAMETERS = "cache_dit_params"
_STEPS = "num_inference_steps"


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """One JSON object to merge into a request."""
    content: dict[str, Any] = {ORIGIN: origin(numbers, remarks)}
    content |= {} if numbers.num_steps is None else {_STEPS: numbers.num_steps}
    if numbers.preset is not None:
        parameters = presets.settings("sglang-request", numbers.preset)
    else:
        mask = dbcache.mask_of(numbers)
        compute, cache = step_masks.bins_of(mask)
        content[_STEPS] = len(mask)
        parameters = {
            **dbcache.BY_MASK,
            **dbcache.filling(numbers),
            "scm_compute_bins": list(compute),
            "scm_cache_bins": list(cache),
            "scm_policy": "static",
        }
    return strict_json.spell({**content, "enable_cache_dit": True, PARAMETERS: parameters})


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """What DBCache does otherwise, and what bins cannot say."""
    yield from dbcache.deviations(numbers, "SGLang", highest=sglang_cache_dit.HIGHEST_ORDER)
    yield from sglang_cache_dit.of_bins(numbers)


def read(text: str, where: str) -> Iterator[Parsed]:
    """The parameters of a request, or the parameters alone."""
    content = files.json_object(text, where)
    parameters = content.get(PARAMETERS, content)
    if not isinstance(parameters, dict):
        raise files.refuse(where, f"{PARAMETERS} is {strict_json.shown(parameters)}, expected an object")
    given: dict[str, Any] = dict(parameters)
    given.pop("steps_computation_mask", None)
    steps = files.whole(content, _STEPS, where)
    bins = [given.get(f"scm_{which}_bins") for which in ("compute", "cache")]
    if (bins[0] is None) != (bins[1] is None):
        raise files.refuse(where, "scm_compute_bins and scm_cache_bins belong together; one of them is missing")
    if bins[0] is not None:
        compute, cache = (
            step_masks.bin_list(value, f"scm_{which}_bins", where)
            for which, value in zip(("compute", "cache"), bins, strict=True)
        )
        given["steps_computation_mask"] = step_masks.mask_of_bins(compute, cache, where, steps)
        given["steps_computation_policy"] = given.get("scm_policy", "dynamic")
    elif given.get("scm_preset", "none") != "none":
        raise files.refuse(
            where, "scm_preset names a policy, which stands for lists inside cache-dit; give bins instead"
        )
    key = files.key_of_origin(content)
    yield dbcache.read(given, "SGLang", where, num_steps=steps, model_key=key)
