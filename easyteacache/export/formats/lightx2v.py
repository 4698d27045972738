"""LightX2V: the caching keys of a run's JSON file, as in its configs/caching.

Wan's ``coefficients`` are a pair, [retention, default]; ``use_ret_steps`` chooses the list, the signal (projected embedding or
embedding) and the window (5 first steps, or the first and last). HunyuanVideo-1.5 has one list. MagCache's ratios are one list
a branch, [cond, uncond], of one value a step (ModelTC/LightX2V, configs/caching/teacache/wan_i2v_tea_480p.json and
configs/caching/magcache/wan_t2v_mag_1_3b.json at 29c8504c1487; the decision, on p(x) as it is, in
lightx2v/models/networks/wan/infer/feature_caching/transformer_infer.py at c001d0a9f7e5 and hunyuan_video/infer/feature_caching at
e91f97639b0e). ``Custom`` in place of ``Tea`` has the same gate and continues the residual linearly over the step index from the two latest
computed steps (configs/caching/custom, WanTransformerInferCustomCaching in the file above). MagCache needs ``magcache_K`` and ``magcache_retention_ratio``: it has no default for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export import parsed as files
from easyteacache.export import presets
from easyteacache.export.deviations import Deviation
from easyteacache.export.engine import CachedModels
from easyteacache.export.magcache_rule import retained_steps
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import ORIGIN, origin
from easyteacache.files import strict_json
from easyteacache.policy.methods.magcache import nearest_ratios

LINEAR = "Custom"
_SETTING = {
    "frames": "target_video_length",
    "height": "target_height",
    "width": "target_width",
    "shift": "sample_shift",
}


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """The keys to put into a run's file."""
    content: dict[str, Any] = {ORIGIN: origin(numbers, remarks)}
    content |= {} if numbers.num_steps is None else {"infer_steps": numbers.num_steps}
    bucket = numbers.bucket
    content |= {theirs: getattr(bucket, ours) for ours, theirs in _SETTING.items() if getattr(bucket, ours) is not None}
    if numbers.preset is not None:
        rule = presets.rule_for("lightx2v", numbers.preset)
        assert rule is not None
        content["feature_caching"] = rule.call
        if rule.sets:
            content["coefficients"] = [list(others[name].coefficients or ()) for name in ("retention", "no-retention")]
        return strict_json.spell(content | presets.settings("lightx2v", numbers.preset))
    if numbers.ratios:
        return strict_json.spell(content | _magcache(numbers))
    wan = numbers.record.model_key.startswith("wan")
    content["feature_caching"] = LINEAR if wan and numbers.forecaster == "linear" else "Tea"
    if wan:
        retention = numbers.record.signal == "timestep_projection"
        own, other = list(numbers.coefficients or ()), list(others["set"].coefficients or ()) if "set" in others else []
        content["coefficients"] = [own, other] if retention else [other, own]
        content["use_ret_steps"] = retention
    else:
        content["coefficients"] = list(numbers.coefficients or ())
    content["teacache_thresh"] = numbers.threshold
    return strict_json.spell(content)


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """MagCache's parameters are looked up without a default."""
    if numbers.ratios and (numbers.limit is None or numbers.retention is None):
        yield Deviation(
            "threshold", True, "LightX2V needs MagCache's run length and retention, and the record does not state both."
        )


def _magcache(numbers: Numbers) -> dict[str, Any]:
    content: dict[str, Any] = {"feature_caching": "Mag", "magcache_calibration": False}
    content |= {} if numbers.limit is None else {"magcache_K": numbers.limit}
    content["magcache_thresh"] = numbers.threshold
    lists = numbers.ratios.values()
    steps = numbers.num_steps or min(map(len, lists))
    if numbers.retention is not None:
        # It rounds down, and would reuse step 0, before which there is nothing.
        kept = retained_steps(numbers, steps)
        content["magcache_retention_ratio"] = numbers.retention if kept else 1.5 / steps
    content["magcache_ratios"] = [list(nearest_ratios(each, steps)) for each in lists]
    return content


def read(text: str, where: str) -> Iterator[Parsed]:
    """The set that ``use_ret_steps`` chooses, then the other; or the ratios."""
    content = files.json_object(text, where)
    common: dict[str, Any] = {
        "num_steps": files.whole(content, "infer_steps", where),
        "frames": files.whole(content, "target_video_length", where),
        "height": files.whole(content, "target_height", where),
        "width": files.whole(content, "target_width", where),
        "shift": files.number(content, "sample_shift", where),
        "model_key": files.key_of_origin(content),
    }
    if "magcache_ratios" in content:
        yield _read_magcache(content, common, where)
        return
    blocks = presets.rule_called("lightx2v", content.get("feature_caching"))
    if blocks is not None and not blocks.sets:
        yield Parsed(preset=presets.read_by(blocks, content, lambda reason: files.refuse(where, reason)), **common)
        return
    common["forecaster"] = "linear" if content.get("feature_caching") == LINEAR else "hold"
    threshold = files.number(content, "teacache_thresh", where)
    listed = content.get("coefficients")
    if not isinstance(listed, list) or not listed:
        raise files.refuse(where, "holds no coefficients and no magcache_ratios")
    if not isinstance(listed[0], list):
        numbers = files.numbers(listed, "coefficients", where)
        yield Parsed(coefficients=numbers, threshold=threshold, first=1, last=-2, post="none", **common)
        return
    if len(listed) != 2:
        raise files.refuse(
            where, f"coefficients holds {len(listed)} lists, expected two: with retention steps and without"
        )
    chosen = 0 if content.get("use_ret_steps", False) else 1
    for position in (chosen, 1 - chosen):
        if listed[position]:
            yield _read_set(listed[position], position == 0, threshold if position == chosen else None, common, where)


def _read_set(listed: Any, retention: bool, threshold: float | None, common: Mapping[str, Any], where: str) -> Parsed:
    return Parsed(
        label="retention" if retention else "no-retention",
        coefficients=files.numbers(listed, "coefficients", where),
        threshold=threshold,
        first=5 if retention else 1,
        last=-1 if retention else -2,
        signal="timestep_projection" if retention else "timestep_embedding",
        post="none",
        **common,
    )


def _read_magcache(content: Mapping[str, Any], common: Mapping[str, Any], where: str) -> Parsed:
    listed = content["magcache_ratios"]
    if not isinstance(listed, list) or not 1 <= len(listed) <= 2:
        raise files.refuse(where, "magcache_ratios is expected to hold one list a branch")
    names = ("cond", "uncond")
    return Parsed(
        ratios={name: files.numbers(each, "magcache_ratios", where) for name, each in zip(names, listed, strict=False)},
        threshold=files.number(content, "magcache_thresh", where),
        limit=files.whole(content, "magcache_K", where),
        retention=files.number(content, "magcache_retention_ratio", where),
        **common,
    )
