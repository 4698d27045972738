"""SGLang diffusion: keyword arguments of ``TeaCacheParams``.

``start_skipping`` counts the first steps that are computed; ``end_skipping`` is the first step that is computed again, an integer
(negative from the end) or a share of the run; ``use_ret_steps`` chooses Wan's signal (sgl-project/sglang release 0.5.23,
python/sglang/multimodal_gen/configs/sample/teacache.py; the decision, on p(x) as it is, in
python/sglang/multimodal_gen/runtime/cache/teacache.py and runtime/models/dits/wanvideo.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export import parsed as files
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import header, python_call

TO_THE_END = 1.0


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """An expression that makes the parameters."""
    assert numbers.coefficients is not None
    arguments: dict[str, Any] = {
        "teacache_thresh": numbers.threshold,
        "start_skipping": numbers.first,
        "end_skipping": _end(numbers),
        "coefficients": list(numbers.coefficients),
    }
    if numbers.record.model_key.startswith("wan"):
        arguments["use_ret_steps"] = numbers.record.signal == "timestep_projection"
    return f"{header(numbers, remarks)}{python_call('TeaCacheParams', arguments)}\n"


def _end(numbers: Numbers) -> int | float:
    if numbers.last is None:
        return TO_THE_END
    if numbers.num_steps is None or numbers.last < 0:
        return numbers.last + 1
    return numbers.last + 1 - numbers.num_steps or TO_THE_END


def read(text: str, where: str) -> Iterator[Parsed]:
    """The numbers of one ``TeaCacheParams``."""
    content = files.python_values(text, where).get("TeaCacheParams")
    if content is None:
        raise files.refuse(where, "no call of TeaCacheParams")
    uses = content.get("use_ret_steps")
    common = Parsed(
        coefficients=files.numbers(content.get("coefficients"), "coefficients", where),
        threshold=files.number(content, "teacache_thresh", where),
        first=files.whole(content, "start_skipping", where),
        last=_last(content.get("end_skipping")),
        signal=None if uses is None else "timestep_projection" if uses else "timestep_embedding",
        post="none",
        model_key=files.key_in(text),
    )
    yield common


def _last(end: Any) -> int | None:
    # A share of the run other than all of it is no step index.
    if isinstance(end, bool) or not isinstance(end, int):
        return None
    return end - 1
