"""One published fact → one record of the registry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from easyteacache.records.calibration import SCHEMA_VERSION, Bucket, Calibration, OperatingPoint
from easyteacache.records.evidence import Evidence
from easyteacache.records.provenance import Alias, Conditions, Provenance, ReportedFit, Source
from published import aliases, meaning, sets, shapes, traps

Fact = dict[str, Any]

_UNSTATED_LICENCES = {"not checked", "not known", "none stated", "none in snapshot", "see LICENSE", None}
_UPSTREAM_PROMPTS = (
    "70 prompts of T2V-CompBench, ten for each of its seven attributes, as the authors describe their fits in issue 2 of "
    "ali-vilab/TeaCache; not stated for this model"
)
_PROMPTS = {"flux.1-dev-issue20-refit": "400 prompts of k-mktr/improved-flux-prompts"}
_SHIFTS = {"wan2.2-ti2v-5b-lightx2v": 5.0}
_GUIDANCE = {
    "wan2.2-ti2v-5b-lightx2v": 5.0,
    "flux.1-dev-issue20-refit": 3.5,
    **{f"hunyuanvideo-1.5-{name}": 6.0 for name in ("t2v-480p", "t2v-720p", "i2v-480p", "i2v-720p")},
}
_SAMPLERS = {"ltx-2-stage1-euler-mlx": "Euler", "ltx-2-stage1-res2s-mlx": "res_2s (HQ)"}


def build(fact: Fact, facts: Sequence[Fact]) -> Calibration:
    """The record of one calibration; ``facts`` are all published ones, for what else is known about the same numbers."""
    identity = fact["id"]
    post = meaning.decided(meaning.RESCALE_POST, identity)
    bucket = _bucket(fact)
    thresholds = [point.threshold for point in bucket.operating_points if point.threshold is not None]
    said = [
        *_other_sets(fact, facts),
        *traps.notes(fact, fact["coefficients"], domain=bucket.domain, post=post, thresholds=thresholds),
        *_window_notes(fact),
        *_shipped_elsewhere(fact, facts),
        *_licence_notes(fact),
    ]
    return Calibration.from_mapping(
        {
            "schema_version": SCHEMA_VERSION,
            "model_key": sets.registry_key(fact),
            "revision": sets.REVISIONS.get(identity, 1),
            "status": "published",
            "title": sets.TITLES.get(identity, fact["display_name"]),
            "model": _model(fact),
            "modality": "video-audio" if sets.bare_key(fact) in sets.WITH_AUDIO else fact["modality"],
            "method": "teacache",
            "signal": meaning.decided(meaning.SIGNALS, identity),
            "signal_source": fact["signal"],
            "fitted_output": meaning.decided(meaning.FITTED_OUTPUTS, identity),
            "fitted_output_source": fact["fitted_output"],
            "rescale_post": post,
            "aliases": [alias.model_dump() for alias in _aliases(fact)],
            "buckets": [bucket.model_dump()],
            "conditions": _conditions(fact).model_dump(),
            "provenance": _provenance(fact).model_dump(),
            "notes": said,
        },
        where=sets.registry_key(fact),
    )


def _bucket(fact: Fact) -> Bucket:
    identity = fact["id"]
    length, source = shapes.describe(identity)
    frames, height, width = shapes.shape(identity, fact["modality"])
    window = meaning.window_of(fact)
    domain = fact.get("extra", {}).get("calibrated_range") or fact.get("extra", {}).get("fit", {}).get("x_range")
    return Bucket(
        sequence_length=length,
        sequence_length_source=source,
        frames=frames,
        height=height,
        width=width,
        num_steps=fact["num_inference_steps"],
        shift=_SHIFTS.get(identity),
        min_skip_step=window.first,
        max_skip_step=window.last,
        skip_window_fraction=window.fraction,
        max_consecutive_skips=meaning.MAX_CONSECUTIVE_SKIPS.get(identity),
        coefficients=tuple(float(value) for value in fact["coefficients"]),
        domain=None if domain is None else (float(domain[0]), float(domain[1])),
        reported_fit=_reported_fit(fact),
        operating_points=_operating_points(fact),
    )


def _reported_fit(fact: Fact) -> ReportedFit | None:
    fit = fact.get("extra", {}).get("fit")
    if fit is None:
        return None
    return ReportedFit(
        runs=fit.get("prompts"),
        points=fit.get("pairs"),
        r2=fit.get("r2"),
        heldout_r2=fit.get("held_out_r2"),
        correlation=fit.get("pearson"),
        rmse=fit.get("rmse"),
    )


def _operating_points(fact: Fact) -> tuple[OperatingPoint, ...]:
    comfyui = (fact["skip_window"] or {}).get("comfyui")
    points = [_operating_point(printed, comfyui, fact["num_inference_steps"]) for printed in fact["thresholds"]]
    return tuple(sorted(points, key=lambda point: point.threshold or 0.0))


def _operating_point(printed: Fact, comfyui: Fact | None, num_steps: int | None) -> OperatingPoint:
    note, hardware = printed["note"] or "", printed["hardware"] or ""
    # "A800 (README table 1)" names a device and where the figure stands; only the device is hardware.
    place = re.fullmatch(r"(.+) \((README .+)\)", hardware)
    if place:
        hardware, note = place[1], "; ".join(part for part in (place[2], note) if part)
    if hardware == "GPU not named":
        hardware, note = "", f"{note}; GPU not named"
    if comfyui and note.startswith("ComfyUI"):
        note += f"; ComfyUI window {comfyui['start_percent']:g} to {comfyui['end_percent']:g} of the run"
    evidence = Evidence(
        kind="published",
        how="reported",
        speedup=None if printed["speedup"] is None else float(printed["speedup"]),
        latency_seconds=None if printed["latency_s"] is None else float(printed["latency_s"]),
        hardware=hardware or None,
        note=note or None,
    )
    return OperatingPoint(
        threshold=float(printed["threshold"]),
        computed_steps=_computed_steps(note, num_steps),
        evidence=(evidence,),
    )


def _computed_steps(note: str, num_steps: int | None) -> int | None:
    """From "10 of 28 steps skipped", where that is about the record's step count ("active" leaves out first and last)."""
    skipped = re.search(r"(\d+) of (\d+) (active )?steps skipped", note)
    if skipped is None or num_steps != int(skipped[2]) + (2 if skipped[3] else 0):
        return None
    return num_steps - int(skipped[1])


def _aliases(fact: Fact) -> list[Alias]:
    key, several = sets.registry_key(fact), sets.SEVERAL.get(sets.bare_key(fact))
    if several is not None and several.recommended != fact["id"]:
        return []
    explicit = sets.explicit_key(fact)
    return [
        *([Alias(kind="explicit_key", value=explicit)] if explicit else []),
        *(Alias(kind="hub_repository", value=name) for name in aliases.SAME_CHECKPOINT.get(key, ())),
        *(Alias(kind="hub_repository", value=name, borrowed=True) for name in aliases.BORROWED.get(key, ())),
    ]


def _conditions(fact: Fact) -> Conditions:
    extra = fact.get("extra", {})
    fit = extra.get("fit", {})
    sampler = _SAMPLERS.get(fact["id"])
    if "sampler" in extra:
        sampler = f"{extra['sampler']} with the {extra['scheduler']} scheduler"
    return Conditions(
        sampler=sampler,
        guidance_scale=_GUIDANCE.get(fact["id"], fit.get("guidance")),
        note=None if "seed" not in fit else f"Fitted with seed {fit['seed']}.",
    )


def _model(fact: Fact) -> Fact | None:
    known = {"checkpoint": fact["hf_repo_id"], "quantization": fact.get("extra", {}).get("fit", {}).get("quant")}
    return {name: value for name, value in known.items() if value is not None} or None


def _provenance(fact: Fact) -> Provenance:
    upstream = "ali-vilab/TeaCache issue #2" in (fact["fitted_output"] or "")
    return Provenance(
        license=None if fact["license"] in _UNSTATED_LICENCES else fact["license"],
        prompt_set=_UPSTREAM_PROMPTS if upstream else _PROMPTS.get(fact["id"]),
        sources=tuple(source_of(printed) for printed in fact["sources"]),
    )


def source_of(printed: Fact) -> Source:
    """Where numbers are printed, with how the place was read."""
    remarks = [
        "a fork" if printed.get("fork") else None,
        f"read in release {printed['release'].removeprefix('PyPI ')}" if printed.get("release") else None,
        printed.get("access"),
        "repository not known" if printed["repo"] is None else None,
    ]
    licence = printed["license"]
    return Source(
        repository=printed["repo"],
        path=printed["path"],
        commit=printed["commit"],
        line=printed["line"],
        license=None if licence in _UNSTATED_LICENCES else licence,
        note="; ".join(remark for remark in remarks if remark) or None,
    )


def _other_sets(fact: Fact, facts: Sequence[Fact]) -> list[str]:
    several = sets.SEVERAL.get(sets.bare_key(fact))
    if several is None:
        return []
    others = [other for other in facts if other["id"] in several.suffixes and other["id"] != fact["id"]]
    named = ", ".join(
        f"{sets.explicit_key(other)} ({meaning.decided(meaning.SIGNALS, other['id'])})" for other in others
    )
    bare = sets.bare_key(fact)
    if several.recommended == fact["id"]:
        return [
            f"{bare} means this set because {several.reason}. Other published sets of the same checkpoint: {named}."
        ]
    return [
        f"Not the recommended set: {bare} means {bare}/{several.suffixes[several.recommended]} because {several.reason}. "
        f"All others: {named}."
    ]


def _window_notes(fact: Fact) -> list[str]:
    window = meaning.window_of(fact)
    if not window.stated:
        return ["The source states no skip window: the first and the last step compute, as in TeaCache's own code."]
    if window.fraction is not None:
        first, last = (f"{100 * part:g} %" for part in window.fraction)
        return [f"The source allows reuse between {first} and {last} of the run, whatever its step count."]
    return []


def _shipped_elsewhere(fact: Fact, facts: Sequence[Fact]) -> list[str]:
    borrowers = [other for other in facts if other["borrowed_from"] == fact["id"] and other["fit_status"] == "borrowed"]
    if not borrowers:
        return []
    named = "; ".join(f"{other['display_name']}, {other['sources'][0]['repo']}" for other in borrowers)
    return [f"The same numbers are published for models they were not fitted to: {named}."]


def _licence_notes(fact: Fact) -> list[str]:
    if fact["license"] in _UNSTATED_LICENCES:
        return ["The licence of the source is not stated or could not be confirmed."]
    return []
