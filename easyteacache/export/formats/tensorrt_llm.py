"""TensorRT-LLM VisualGen: the ``cache_config`` section of its arguments, ``TeaCacheConfig``.

``coefficients`` replace the built-in table, ``coefficients_2`` is the low-noise transformer's list of Wan2.2, and
``use_ret_steps`` chooses the window (5 first steps, or the first and last) and, for Wan, the projected timestep embedding as
signal (NVIDIA/TensorRT-LLM, tensorrt_llm/visual_gen/args.py at 01dc259f130c; the decision, on |p(x)| capped at twice the
threshold, in tensorrt_llm/_torch/visual_gen/cache/teacache.py at aaedbf926586). Unknown keys are an error there, so the origin
is a comment. Files that earlier versions of this exporter wrote call the section ``cache``; they are read, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export import parsed as files
from easyteacache.export import partners
from easyteacache.export.deviations import Deviation
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import header, yaml_mapping

SECTION = "cache_config"


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """A YAML document with the section ``cache_config``."""
    assert numbers.coefficients is not None
    first, second = numbers, others.get("expert")
    if second is not None and partners.expert(numbers.record.model_key) == "low-noise":
        first, second = second, numbers
    section: dict[str, Any] = {
        "cache_backend": "teacache",
        "teacache_thresh": min(each.threshold or 0.0 for each in (first, second) if each is not None),
        "use_ret_steps": numbers.record.signal == "timestep_projection",
        "coefficients": first.coefficients,
    }
    if second is not None:
        section["coefficients_2"] = second.coefficients
    return f"{header(numbers, remarks)}{yaml_mapping({SECTION: section})}"


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """Wan2.2 has two transformers and one threshold, and each counts its own steps."""
    if partners.expert(numbers.record.model_key) is not None:
        yield Deviation(
            "threshold", False, "One threshold for both transformers: the more cautious of the two is written."
        )
        yield Deviation(
            "window",
            False,
            "Each transformer counts its own calls: its first ones are computed, the run's last step may be reused.",
        )


def read(text: str, where: str) -> Iterator[Parsed]:
    """One set, or one for each transformer."""
    content = files.yaml_object(text, where)
    name = next((name for name in (SECTION, "cache") if name in content), None)
    section = content if name is None else content[name]
    if not isinstance(section, dict):
        raise files.refuse(where, f"the section {name} is no mapping")
    uses = bool(section.get("use_ret_steps", False))
    for name, label in (("coefficients", None), ("coefficients_2", "low-noise")):
        if section.get(name) is None:
            continue
        yield Parsed(
            label=label,
            coefficients=files.numbers(section[name], name, where),
            threshold=files.number(section, "teacache_thresh", where),
            first=5 if uses else 1,
            last=-1 if uses else -2,
            # For models other than Wan the retention mode changes only the window.
            signal=None if uses else "timestep_embedding",
            post="abs",
            model_key=files.key_in(text),
        )
