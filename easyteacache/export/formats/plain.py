"""The fields of the two plain formats: everything that was resolved, under this project's own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from easyteacache.export import parsed as files
from easyteacache.export.numbers import Numbers, nearest_ratios
from easyteacache.export.parsed import Parsed
from easyteacache.records.calibration import Signal
from easyteacache.records.plan import AppliedTo


def fields_of(numbers: Numbers) -> dict[str, Any]:
    """Name → value, in a fixed order, without what is not known."""
    bucket, curve = numbers.bucket, numbers.coefficients is not None
    content: dict[str, Any] = {
        "method": numbers.record.method,
        "signal": numbers.record.signal if curve else None,
        "rescale_post": numbers.post if curve else None,
        "coefficients": None if numbers.coefficients is None else list(numbers.coefficients),
        "domain": None if numbers.domain is None else list(numbers.domain),
        "threshold": numbers.threshold,
        "schedule": None if numbers.schedule is None else list(numbers.schedule),
        "forecaster": numbers.forecaster,
        "applied_to": None if numbers.applied_to == "residual" else numbers.applied_to,
        "first_skip_step": None if numbers.record.method == "plan" else numbers.first,
        "last_skip_step": numbers.last,
        "skip_window_fraction": None if numbers.fraction is None or numbers.ratios else list(numbers.fraction),
        "max_consecutive_skips": numbers.limit,
        "retention_ratio": numbers.retention,
        "num_steps": numbers.num_steps,
        "sequence_length": numbers.sequence_length,
        "frames": bucket.frames,
        "height": bucket.height,
        "width": bucket.width,
        "shift": bucket.shift,
    }
    if numbers.ratios:
        steps = numbers.num_steps
        content["magnitude_ratios"] = {
            branch: list(nearest_ratios(ratios, steps or len(ratios))) for branch, ratios in numbers.ratios.items()
        }
    return {name: value for name, value in content.items() if value is not None}


def parse(content: Mapping[str, Any], where: str, model_key: str | None) -> Parsed:
    """The inverse of ``fields_of``."""
    signal, domain, fraction = (content.get(name) for name in ("signal", "domain", "skip_window_fraction"))
    if signal is not None and signal not in get_args(Signal):
        raise files.refuse(where, f"signal is {signal!r}, expected one of {', '.join(get_args(Signal))}")
    schedule = content.get("schedule")
    ratios = content.get("magnitude_ratios", {})
    listed = content.get("coefficients")
    if not isinstance(ratios, dict) or not (ratios or listed or schedule):
        raise files.refuse(where, "holds neither coefficients nor magnitude_ratios nor a schedule")
    applied_to = content.get("applied_to", "residual")
    if applied_to not in get_args(AppliedTo):
        raise files.refuse(where, f"applied_to is {applied_to!r}, expected one of {', '.join(get_args(AppliedTo))}")
    return Parsed(
        coefficients=None if ratios or not listed else files.numbers(listed, "coefficients", where),
        ratios={str(name): files.numbers(each, "magnitude_ratios", where) for name, each in ratios.items()},
        threshold=files.number(content, "threshold", where),
        schedule=None if schedule is None else tuple(map(int, files.numbers(schedule, "schedule", where))),
        forecaster=str(content.get("forecaster", "hold")),
        applied_to=applied_to,
        first=files.whole(content, "first_skip_step", where),
        last=files.whole(content, "last_skip_step", where),
        fraction=None if fraction is None else files.pair(fraction, "skip_window_fraction", where),
        limit=files.whole(content, "max_consecutive_skips", where),
        retention=files.number(content, "retention_ratio", where),
        num_steps=files.whole(content, "num_steps", where),
        sequence_length=files.whole(content, "sequence_length", where),
        frames=files.whole(content, "frames", where),
        height=files.whole(content, "height", where),
        width=files.whole(content, "width", where),
        shift=files.number(content, "shift", where),
        domain=None if domain is None else files.pair(domain, "domain", where),
        post=content.get("rescale_post"),
        signal=signal,
        model_key=model_key,
    )
