"""The fields of the two plain formats: everything that was resolved, under this project's own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from easyteacache.export import parsed as files
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.files import strict_json
from easyteacache.policy.methods.magcache import nearest_ratios
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
        "forecaster": None if numbers.preset is not None else numbers.forecaster,
        "coordinate": None if numbers.coordinate == "step" else numbers.coordinate,
        "applied_to": None if numbers.applied_to == "residual" else numbers.applied_to,
        "rows": None if numbers.rows is None else [list(row) for row in numbers.rows],
        "row_levels": None if numbers.rows is None or numbers.levels is None else list(numbers.levels),
        "corrected": numbers.corrected or None,
        "combined": numbers.combined or None,
        "branch_schedules": {name: list(steps) for name, steps in numbers.of_branches} or None,
        "preset": _preset(numbers),
        "first_skip_step": None if numbers.record.method in ("plan", "preset") else numbers.first,
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


def _steps(schedule: Any, where: str) -> tuple[int, ...]:
    found = files.numbers(schedule, "schedule", where)
    if any(step != int(step) for step in found):
        raise files.refuse(where, "schedule is expected to hold whole numbers, the computed steps")
    return tuple(map(int, found))


def _preset(numbers: Numbers) -> dict[str, Any] | None:
    if numbers.preset is None:
        return None
    parameters = {n: list(v) if isinstance(v, tuple) else v for n, v in numbers.preset.parameters.items()}
    return {"engine": numbers.preset.engine, "method": numbers.preset.method, "parameters": parameters}


def parse(content: Mapping[str, Any], where: str, model_key: str | None) -> Parsed:
    """The inverse of ``fields_of``."""
    signal, domain, fraction = (content.get(name) for name in ("signal", "domain", "skip_window_fraction"))
    if signal is not None and signal not in get_args(Signal):
        raise files.refuse(where, f"signal is {signal!r}, expected one of {', '.join(get_args(Signal))}")
    schedule = content.get("schedule")
    ratios = content.get("magnitude_ratios", {})
    listed = content.get("coefficients")
    preset, rows, levels = (content.get(name) for name in ("preset", "rows", "row_levels"))
    if not isinstance(ratios, dict) or not (ratios or listed or schedule or preset):
        raise files.refuse(where, "holds neither coefficients nor magnitude_ratios nor a schedule nor a preset")
    if preset is not None and not isinstance(preset, dict):
        raise files.refuse(where, f"preset is {strict_json.shown(preset)}, expected an object")
    if rows is not None and not isinstance(rows, list):
        raise files.refuse(where, f"rows is {strict_json.shown(rows)}, expected a list of rows")
    if not isinstance(content.get("coordinate", "step"), str):
        raise files.refuse(where, f"coordinate is {strict_json.shown(content['coordinate'])}, expected text")
    applied_to = content.get("applied_to", "residual")
    if applied_to not in get_args(AppliedTo):
        raise files.refuse(where, f"applied_to is {applied_to!r}, expected one of {', '.join(get_args(AppliedTo))}")
    return Parsed(
        coefficients=None if ratios or not listed else files.numbers(listed, "coefficients", where),
        ratios={str(name): files.numbers(each, "magnitude_ratios", where) for name, each in ratios.items()},
        threshold=files.number(content, "threshold", where),
        schedule=None if schedule is None else _steps(schedule, where),
        forecaster=str(content.get("forecaster", "hold")),
        coordinate=content.get("coordinate", "step"),
        rows=None if rows is None else tuple(files.numbers(row, "rows", where) for row in rows),
        plan_levels=None if levels is None else files.numbers(levels, "row_levels", where),
        corrected=content.get("corrected") is True,
        combined=content.get("combined") is True,
        preset=preset,
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
