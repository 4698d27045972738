"""vLLM-Omni: ``cache_config``, a JSON object that becomes ``DiffusionCacheConfig``.

``rel_l1_thresh`` and exactly five ``coefficients``; unknown keys are kept aside, so the origin travels along
(vllm-project/vllm-omni release 0.30.0, vllm_omni/diffusion/cache/teacache: config.py, the decision in hook.py, the keys in
backend.py). MagCache's keys begin with ``mag_``; it takes ``num_inference_steps`` from this object, 28 where it is missing, reads
one ratio a step and no interpolation, and rounds ``mag_retention_ratio * num_inference_steps``, which may not be 0
(vllm_omni/diffusion/cache/magcache/backend.py and hook.py). cache-dit's DBCache takes its settings under cache-dit's own names, and of
masks of steps only the names of policies; SeaCache's keys begin with ``sea_`` (vllm_omni/diffusion/data.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export import dbcache, presets
from easyteacache.export import parsed as files
from easyteacache.export.engine import CachedModels
from easyteacache.export.magcache_rule import retained_steps
from easyteacache.export.numbers import Numbers, pad
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import ORIGIN, origin
from easyteacache.files import strict_json
from easyteacache.policy.methods.magcache import nearest_ratios
from easyteacache.records.preset import Preset

COUNT = 5


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """The object to pass as ``cache_config``."""
    content: dict[str, Any] = {ORIGIN: origin(numbers, remarks)}
    if numbers.preset is not None:
        content |= presets.settings("vllm-omni", numbers.preset)
    elif numbers.ratios:
        ratios = next(iter(numbers.ratios.values()))
        content["mag_threshold"] = numbers.threshold
        content |= {} if numbers.limit is None else {"mag_max_skip_steps": numbers.limit}
        steps = numbers.num_steps or len(ratios)
        if numbers.retention is not None:
            # Its share must lie above 0; a quarter of a step is rounded to none.
            content["mag_retention_ratio"] = (retained_steps(numbers, steps) or 0.25) / steps
        content["num_inference_steps"] = steps
        content["mag_ratios"] = list(nearest_ratios(ratios, steps))
    else:
        assert numbers.coefficients is not None
        content["rel_l1_thresh"] = numbers.threshold
        content["coefficients"] = list(pad(numbers.coefficients, COUNT))
    return strict_json.spell(content)


def read(text: str, where: str) -> Iterator[Parsed]:
    """The one set of a ``cache_config``."""
    content = files.json_object(text, where)
    key = files.key_of_origin(content)
    if "mag_ratios" in content:
        yield Parsed(
            ratios={"cond": files.numbers(content["mag_ratios"], "mag_ratios", where)},
            threshold=files.number(content, "mag_threshold", where),
            limit=files.whole(content, "mag_max_skip_steps", where),
            retention=files.number(content, "mag_retention_ratio", where),
            num_steps=files.whole(content, "num_inference_steps", where),
            model_key=key,
        )
        return
    if "sea_threshold" in content:
        rule = presets.rule_for("vllm-omni", Preset(engine="vLLM-Omni", method="SeaCache"))
        assert rule is not None
        yield Parsed(preset=presets.read_by(rule, content, lambda reason: files.refuse(where, reason)), model_key=key)
        return
    if "residual_diff_threshold" in content:
        if content.get("scm_steps_mask_policy") is not None:
            raise files.refuse(where, "scm_steps_mask_policy names a policy, which stands for lists inside cache-dit")
        yield dbcache.read(content, "vLLM-Omni", where, model_key=key)
        return
    yield Parsed(
        coefficients=files.numbers(content.get("coefficients"), "coefficients", where),
        threshold=files.number(content, "rel_l1_thresh", where),
        post="abs",
        model_key=key,
    )
