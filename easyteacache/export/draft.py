"""From another engine's file to a draft record that says what it does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from easyteacache._version import __version__
from easyteacache.export.engine import Engine
from easyteacache.export.numbers import strip
from easyteacache.export.parsed import Parsed
from easyteacache.records.calibration import SCHEMA_VERSION, Calibration
from easyteacache.records.plan import FITTED


@dataclass(frozen=True)
class Draft:
    """An imported record.

    Attributes:
        record: status ``draft``.
        missing: what the file does not say, one sentence each; the record's notes carry them, too.
        label: which of the file's sets it is, None where there is one.
    """

    record: Calibration
    missing: tuple[str, ...]
    label: str | None = None


def build(parsed: Parsed, engine: Engine, *, model_key: str, title: str | None, modality: str, file: str) -> Draft:
    """Make a draft of what a file says.

    Args:
        parsed: what its format module read.
        engine: the format.
        model_key: key of the record.
        title: the model's name as people write it; None: the key.
        modality: what the model generates.
        file: name of the file, for the record's notes.

    Raises:
        InvalidCalibration: the numbers break a rule of the format.
    """
    method = _method(parsed)
    signal = parsed.signal or _signal_of(engine, model_key) if method == "teacache" else "none"
    missing = tuple(_missing(parsed, signal or "unknown", method))
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model_key": model_key,
        "revision": 1,
        "status": "draft",
        "title": title or model_key,
        "modality": modality,
        "method": method,
        "signal": signal or "unknown",
        "rescale_post": parsed.post or "none",
        "branches": list(parsed.ratios or parsed.branches) or ["cond", "uncond"],
        "buckets": [_bucket(parsed)],
        "provenance": {"tool": "easyteacache import", "tool_version": __version__},
        "notes": [f"Imported from {file}, in the format of {engine.title}.", *missing],
    }
    model = {"checkpoint_commit": parsed.checkpoint_commit, "dtype": parsed.dtype}
    if any(model.values()):
        content["model"] = {name: value for name, value in model.items() if value is not None}
    if parsed.guidance_scale is not None:
        content["conditions"] = {"guidance_scale": parsed.guidance_scale}
    return Draft(Calibration.from_mapping(content, where=file), missing, parsed.label)


def _method(parsed: Parsed) -> str:
    if parsed.preset is not None:
        return "preset"
    return "magcache" if parsed.ratios else "teacache" if parsed.coefficients else "plan"


def _signal_of(engine: Engine, model_key: str) -> str | None:
    """What the engine measures for this model, where it can only be one thing."""
    model = engine.model_for(model_key)
    return next(iter(model.signals)) if model is not None and len(model.signals) == 1 else None


def _bucket(parsed: Parsed) -> dict[str, Any]:
    setting = ("sequence_length", "frames", "height", "width", "num_steps", "shift")
    bucket: dict[str, Any] = {name: getattr(parsed, name) for name in setting if getattr(parsed, name) is not None}
    bucket["min_skip_step"] = 1 if parsed.first is None else parsed.first
    bucket["max_skip_step"] = -1 if parsed.last is None else parsed.last
    if parsed.retention is not None:
        bucket["skip_window_fraction"] = [parsed.retention, 1.0]
    elif parsed.fraction is not None:
        bucket["skip_window_fraction"] = list(parsed.fraction)
    if parsed.limit is not None:
        bucket["max_consecutive_skips"] = parsed.limit
    if parsed.coefficients is not None:
        bucket["coefficients"] = list(strip(parsed.coefficients))
    if parsed.domain is not None:
        bucket["domain"] = list(parsed.domain)
    if parsed.ratios:
        bucket["magnitude_ratios"] = [
            {"branch": name, "ratios": list(ratios)} for name, ratios in parsed.ratios.items()
        ]
        # An export for another step count holds that many ratios, whatever the run it is used for.
        bucket["num_steps"] = len(next(iter(parsed.ratios.values())))
    if parsed.sampler is not None and parsed.levels is not None:
        sampler = {"name": parsed.sampler, "calls": len(parsed.levels) - 1, "levels": list(parsed.levels)}
        bucket["sampler"] = sampler
    point: dict[str, Any] = {"evidence": [{"kind": "published", "how": "reported"}]}
    if parsed.preset is not None:
        bucket["operating_points"] = [point | {"preset": dict(parsed.preset)}]
    elif parsed.schedule is not None:
        bucket["operating_points"] = [point | {"plan": _plan(parsed)}]
    elif parsed.threshold is not None:
        bucket["operating_points"] = [point | {"threshold": parsed.threshold, "predictor": parsed.forecaster}]
    return bucket


def _plan(parsed: Parsed) -> dict[str, Any]:
    plan: dict[str, Any] = {"computed": list(parsed.schedule or ()), "applied_to": parsed.applied_to}
    if parsed.forecaster != FITTED:
        plan |= {"predictor": parsed.forecaster, "coordinate": parsed.coordinate}
    if parsed.rows is not None:
        plan["rows"] = [list(row) for row in parsed.rows]
    if parsed.plan_levels is not None:
        plan["levels"] = list(parsed.plan_levels)
    return plan | {name: True for name in ("corrected", "combined") if getattr(parsed, name)}


def _missing(parsed: Parsed, signal: str, method: str) -> list[str]:
    said = []
    if method == "teacache":
        if signal == "unknown":
            said.append("Missing: the signal. Without it the record cannot be applied.")
        if parsed.domain is None:
            said.append("Missing: the domain, so that the polynomial is evaluated wherever it is asked.")
        said.append("Missing: what y is (fitted_output) and how good the fit is (quality).")
    if parsed.threshold is None and parsed.schedule is None and parsed.preset is None:
        said.append("Missing: a threshold (operating_points).")
    if parsed.num_steps is None and method != "magcache":
        said.append("Missing: the step count the numbers hold for.")
    if parsed.sequence_length is None:
        said.append("Missing: the sequence length the numbers hold for.")
    if parsed.first is None and parsed.retention is None and method not in ("plan", "preset"):
        said.append("Missing: the skip window; reuse is allowed from step 1 to the end.")
    said.append("Missing: licence, author, prompts and sources (provenance).")
    return said
