"""vLLM-Omni: ``cache_config``, a JSON object that becomes ``DiffusionCacheConfig``.

``rel_l1_thresh`` and exactly five ``coefficients``; unknown keys are kept aside, so the origin travels along
(vllm-project/vllm-omni, vllm_omni/diffusion/cache/teacache: config.py at 011a7ac670f9, the decision in hook.py at 03ab3893502e, the
keys in backend.py at 0131cb556045). MagCache's keys begin with ``mag_``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export import parsed as files
from easyteacache.export.engine import Model
from easyteacache.export.numbers import Numbers, nearest_ratios, pad
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import ORIGIN, origin
from easyteacache.files import strict_json

COUNT = 5


def write(numbers: Numbers, model: Model | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """The object to pass as ``cache_config``."""
    content: dict[str, Any] = {ORIGIN: origin(numbers, remarks)}
    if numbers.ratios:
        ratios = next(iter(numbers.ratios.values()))
        content["mag_threshold"] = numbers.threshold
        content |= {} if numbers.limit is None else {"mag_max_skip_steps": numbers.limit}
        content |= {} if numbers.retention is None else {"mag_retention_ratio": numbers.retention}
        content["mag_ratios"] = list(nearest_ratios(ratios, numbers.num_steps or len(ratios)))
    else:
        assert numbers.coefficients is not None
        content["rel_l1_thresh"] = numbers.threshold
        content["coefficients"] = list(pad(numbers.coefficients, COUNT))
    return strict_json.spell(content)


def read(text: str, where: str) -> Iterator[Parsed]:
    """The one set of a ``cache_config``."""
    content = files.json_object(text, where)
    key = files.origin_in(content).get("model_key")
    if "mag_ratios" in content:
        yield Parsed(
            ratios={"cond": files.numbers(content["mag_ratios"], "mag_ratios", where)},
            threshold=files.number(content, "mag_threshold", where),
            limit=files.whole(content, "mag_max_skip_steps", where),
            retention=files.number(content, "mag_retention_ratio", where),
            model_key=key,
        )
        return
    yield Parsed(
        coefficients=files.numbers(content.get("coefficients"), "coefficients", where),
        threshold=files.number(content, "rel_l1_thresh", where),
        post="abs",
        model_key=key,
    )
