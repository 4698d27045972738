"""Presets: methods that decide in the run, or module by module, with the settings that their engines are run with."""

from __future__ import annotations

import dataclasses
from typing import Any

from easyteacache.records.preset import Preset
from published.plans.method import Fact, Method

#: Method as the facts name it → (last part of the key, title).
METHODS = {
    "AdaCache": ("adacache", "AdaCache"),
    "Custom (TeaCache gate + Taylor fill)": ("teacache-taylor", "TeaCache with Taylor fill"),
    "DBCache": ("dbcache", "DBCache"),
    "DBCache (Cache-DiT in SGLang)": ("dbcache", "DBCache"),
    "DBCache (Cache-DiT in vLLM-Omni)": ("dbcache", "DBCache"),
    "DBCache + TaylorSeer": ("dbcache-taylorseer", "DBCache with TaylorSeer"),
    "DBCache + TaylorSeer (Cache-DiT in vLLM-Omni)": ("dbcache-taylorseer", "DBCache with TaylorSeer"),
    "DiCache": ("dicache", "DiCache"),
    "Double FirstBlockCache": ("firstblockcache-double", "Double FirstBlockCache"),
    "DualBlockCache": ("dualblockcache", "DualBlockCache"),
    "DynamicBlockCache": ("dynamicblockcache", "DynamicBlockCache"),
    "EasyCache": ("easycache", "EasyCache"),
    "FasterCache": ("fastercache", "FasterCache"),
    "FirstBlockCache": ("firstblockcache", "FirstBlockCache"),
    "MeanCache (community, adaptive)": ("meancache-adaptive", "MeanCache, adaptive"),
    "PAB": ("pab", "PAB"),
    "SeaCache": ("seacache", "SeaCache"),
    "Spectrum": ("spectrum", "Spectrum"),
    "Spectrum (offline replay)": ("spectrum-replay", "Spectrum, replayed"),
    "StepCache (velocity cosine)": ("stepcache", "StepCache"),
    "TaylorSeer (diffusers)": ("taylorseer-modules", "TaylorSeer, module by module"),
}
#: Repository that a setting was read in → the program that runs it.
ENGINES = {
    "Bujiazi/DiCache": "DiCache",
    "H-EmbodVis/EasyCache": "EasyCache",
    "ModelTC/LightX2V": "LightX2V",
    "NUS-HPC-AI-Lab/VideoSys": "VideoSys",
    "Vchitect/FasterCache": "FasterCache",
    "chengzeyi/ParaAttention": "ParaAttention",
    "deepbeepmeep/Wan2GP": "Wan2GP",
    "facok/comfyui-meancache-z": "ComfyUI",
    "fractalyze/frontier-benchmark": "SGLang",
    "huggingface/diffusers": "diffusers",
    "jiwoogit/SeaCache": "SeaCache",
    "nunchaku-tech/nunchaku": "nunchaku",
    "sgl-project/sglang": "SGLang",
    "sglang 0.5.23 (PyPI wheel)": "SGLang",
    "vipshop/cache-dit": "cache-dit",
    "vllm-omni 0.30.0 (PyPI wheel)": "vLLM-Omni",
    "vllm-project/vllm-omni": "vLLM-Omni",
    "vllm-project/vllm-project.github.io": "vLLM-Omni",
    "xdit-project/xDiT": "xDiT",
}
#: Facts beside the settings: where the method is published, what a source did not say.
_BESIDE = ("arxiv", "note", "help_text", "recommended", "full_block_equivalents", "default")


def setting(fact: Fact) -> Preset | None:
    """The preset of one fact; None for what is no model's own."""
    if fact["model_key_suggestion"] == "-":
        return None
    name = fact["method"].split(" (")[0]
    parameters = flattened({name: value for name, value in fact["extra"].items() if name not in _BESIDE})
    return Preset(engine=ENGINES[fact["source"]["repository"]], method=name, parameters=parameters)


def flattened(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings of settings under dotted names; lists as tuples, nothing that is None."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            found[f"{prefix}{name}"] = tuple(value)
        elif value is not None:
            found[f"{prefix}{name}"] = value
    return found


METHOD = Method(
    takes=tuple(METHODS),
    part=lambda fact: METHODS[fact["method"]][0],
    title=lambda part: next(title for name, title in METHODS.values() if name == part),
    setting=setting,
    left_out=lambda fact: "an engine's default for every model alike, no model's own",
)


def renamed(part: str) -> Method:
    """The same importer under another last part of the key."""
    return dataclasses.replace(
        METHOD, part=lambda fact: part, title=lambda _: METHOD.title(part.removeprefix("preset-"))
    )
