"""diffusers: ``MagCacheConfig`` or ``FirstBlockCacheConfig``, as an expression.

``MagCacheConfig`` takes one list of ratios for every branch, and would interpolate it to ``num_inference_steps`` itself, in single
precision; it skips while the accumulated error is at most ``threshold``, at most ``max_skip_steps`` in a row, never in the first
``retention_ratio`` of the run, which it rounds to the nearest step where MagCache's authors round in four ways. Both raise on a model whose blocks are not registered in _helpers.py.
``FirstBlockCacheConfig`` compares the first block's residual with that of the last *computed* step and applies no polynomial
(huggingface/diffusers, src/diffusers/hooks/mag_cache.py and first_block_cache.py, release 0.42.1): a threshold for it is a preset. So are
the settings of ``TaylorSeerCacheConfig``, which forecasts the modules' outputs, not the blocks' (taylorseer_cache.py there).
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
from easyteacache.export.spelling import header, python_call
from easyteacache.policy.methods.magcache import nearest_ratios

IDENTITY = (1.0, 0.0)


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """An import and the expression that makes the configuration."""
    if numbers.preset is not None:
        rule = presets.rule_for("diffusers", numbers.preset)
        assert rule is not None
        made = python_call(rule.call, presets.settings("diffusers", numbers.preset))
        return f"{header(numbers, remarks)}from diffusers import {rule.call}\n\nconfig = {made}\n"
    name, arguments = (
        ("MagCacheConfig", _magcache(numbers)) if numbers.ratios else ("FirstBlockCacheConfig", _first(numbers))
    )
    return f"{header(numbers, remarks)}from diffusers import {name}\n\nconfig = {python_call(name, arguments)}\n"


def _magcache(numbers: Numbers) -> dict[str, Any]:
    ratios = next(iter(numbers.ratios.values()))
    steps = numbers.num_steps or len(ratios)
    arguments: dict[str, Any] = {"threshold": numbers.threshold}
    arguments |= {} if numbers.limit is None else {"max_skip_steps": numbers.limit}
    if numbers.retention is not None:
        arguments["retention_ratio"] = retained_steps(numbers, steps) / steps
    return arguments | {"num_inference_steps": steps, "mag_ratios": list(nearest_ratios(ratios, steps))}


def _first(numbers: Numbers) -> dict[str, Any]:
    return {"threshold": numbers.threshold}


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """TeaCache's numbers fit only where they are FirstBlockCache's: its signal and no polynomial."""
    if numbers.ratios:
        return
    if numbers.record.signal != "first_block_residual" or numbers.coefficients not in (IDENTITY, None):
        yield Deviation(
            "method",
            True,
            "diffusers has no TeaCache; its FirstBlockCache takes only a threshold on the first block's residual, without a "
            f"polynomial, and this record holds a polynomial of {numbers.record.signal}.",
        )
        return
    yield Deviation(
        "signal",
        True,
        "FirstBlockCache measures against the last computed step and adds nothing up; this record adds up distances from the step "
        "before.",
    )


def read(text: str, where: str) -> Iterator[Parsed]:
    """The numbers of one configuration."""
    content = files.python_values(text, where)
    key = files.key_in(text)
    if "MagCacheConfig" in content:
        arguments = content["MagCacheConfig"]
        yield Parsed(
            ratios={"cond": files.numbers(arguments.get("mag_ratios"), "mag_ratios", where)},
            threshold=files.number(arguments, "threshold", where),
            limit=files.whole(arguments, "max_skip_steps", where),
            retention=files.number(arguments, "retention_ratio", where),
            num_steps=files.whole(arguments, "num_inference_steps", where),
            model_key=key,
        )
        return
    for name, arguments in content.items():
        rule = presets.rule_called("diffusers", name)
        if rule is not None:
            preset = presets.read_by(rule, arguments, lambda reason: files.refuse(where, reason))
            yield Parsed(preset=preset, model_key=key)
            return
    raise files.refuse(
        where, "no call of MagCacheConfig, FirstBlockCacheConfig or TaylorSeerCacheConfig with literal numbers"
    )
