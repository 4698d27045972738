"""Facts of one model and one method → one record: a bucket a setting, an operating point a fact."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from easyteacache.records.calibration import SCHEMA_VERSION, Bucket, Calibration, OperatingPoint
from easyteacache.records.model_identity import ModelIdentity
from easyteacache.records.plan import Plan
from easyteacache.records.preset import Preset
from easyteacache.records.provenance import Alias, Conditions, Provenance, Source
from easyteacache.records.sampler import SamplerRecord
from published.plans.evidence import evidence_of, unclaimed
from published.plans.method import Fact, Method, sentence
from published.plans.models import MODELS, Model

#: (frames, height, width), what is known of it.
Shape = tuple[int | None, int | None, int | None]
#: Standard sizes that a source names without numbers, (height, width).
_NAMED = {"720p 16:9": (720, 1280)}
_LICENCE_UNKNOWN = "The licence of the source is not stated or could not be confirmed: what stands here are facts, with where they were read."
_SINGLE = ("single", "no CFG", "one call counter", "guided")
_SHORT = 300


def build_record(
    key: str, method: Method, facts: Sequence[Fact], *, shared: dict[str, Any] | None = None, hub_alias: bool = False
) -> Calibration:
    """The record of one method for one model.

    Args:
        key: the model's key.
        method: its importer.
        facts: what was published, all of one ``method.part``.
        shared: noise levels that several facts name.
        hub_alias: the model has no record of its own, so this one carries its Hub repositories.
    """
    model, part = MODELS[key], method.part(facts[0])
    settings = [(fact, method.setting(fact)) for fact in facts]
    kept = [(fact, setting) for fact, setting in settings if setting is not None]
    kinds = {"plan" if isinstance(setting, Plan) else "preset" for _, setting in kept}
    if len(kinds) != 1:
        raise ValueError(f"{key}/{part}: {kinds or 'nothing'} in one record")
    return Calibration.from_mapping(
        {
            "schema_version": SCHEMA_VERSION,
            "model_key": f"{key}/{part}",
            "revision": 1,
            "status": "published",
            "title": f"{model.title}, {method.title(part)}",
            "modality": model.modality,
            "model": _model(model, key, part, facts).model_dump(exclude_none=True, exclude_defaults=True),
            "method": kinds.pop(),
            "signal": "none",
            "fitted_output": "none",
            "branches": list(_branches(facts)),
            "aliases": [alias.model_dump() for alias in _aliases(model, key)] if hub_alias else [],
            "buckets": [bucket.model_dump() for bucket in _buckets(model, method, kept, shared or {})],
            "conditions": _conditions(facts).model_dump(),
            "provenance": _provenance(facts).model_dump(),
            "notes": list(dict.fromkeys(_notes(method, part, kept))),
        },
        where=f"{key}/{part}",
    )


def _model(model: Model, key: str, part: str, facts: Sequence[Fact]) -> ModelIdentity:
    names = model.repositories(key)
    dtypes = {re.split(r"[ (;]", fact["dtype"])[0].replace("bf16", "bfloat16") for fact in facts if fact["dtype"]}
    commits = {fact["extra"].get("request", {}).get("checkpoint") for fact in facts} - {None}
    return ModelIdentity(
        class_name=model.class_name,
        checkpoint=names[0] if names else facts[0]["model"],
        checkpoint_commit=commits.pop() if len(commits) == 1 else None,
        dtype=dtypes.pop() if len(dtypes) == 1 else None,
        quantization="fp8" if part.endswith("-fp8") else None,
    )


def _aliases(model: Model, key: str) -> Iterator[Alias]:
    for name in model.repositories(key):
        yield Alias(kind="hub_repository", value=name)


def _branches(facts: Sequence[Fact]) -> tuple[str, ...]:
    one = all(str((fact["filling"] or {}).get("branches", "")).startswith(_SINGLE) for fact in facts)
    return ("cond",) if one else ("cond", "uncond")


def _buckets(
    model: Model, method: Method, kept: Sequence[tuple[Fact, Plan | Preset]], shared: dict[str, Any]
) -> Iterator[Bucket]:
    def where(entry: tuple[Fact, Plan | Preset]) -> tuple[Any, ...]:
        length, _ = _length(model, shape_of(entry[0]))
        return (length or 0, entry[0]["num_steps"] or 0, _shift(entry[0]) or 0.0)

    for _, group in itertools.groupby(sorted(kept, key=where), key=where):
        members = list(group)
        fact = members[0][0]
        shapes = {shape_of(member) for member, _ in members}
        frames, height, width = shapes.pop() if len(shapes) == 1 else (None, None, None)
        length, source = _length(model, (frames, height, width))
        yield Bucket(
            sequence_length=length,
            sequence_length_source=source,
            frames=frames,
            height=height,
            width=width,
            num_steps=fact["num_steps"],
            shift=_shift(fact),
            sampler=_sampler(fact, shared),
            operating_points=tuple(_points(method, members)),
        )


def _points(method: Method, members: Sequence[tuple[Fact, Plan | Preset]]) -> Iterator[OperatingPoint]:
    """The most cautious first: by computed steps, else by what the source says; what is printed twice once."""
    found: dict[Plan | Preset, OperatingPoint] = {}
    for fact, setting in sorted(members, key=lambda member: _caution(*member)):
        if setting in found:
            continue
        kind = "plan" if isinstance(setting, Plan) else "preset"
        evidence = evidence_of(fact, full_claim=method.full_claim(fact))
        found[setting] = OperatingPoint(**{kind: setting}, evidence=evidence)  # type: ignore[arg-type]
    yield from found.values()


def _caution(fact: Fact, setting: Plan | Preset) -> tuple[float, str]:
    if isinstance(setting, Plan):
        return (-float(len(setting.computed)), fact["id"])
    value = re.match(r"[0-9.]+", str((fact["reported_speedup"] or {}).get("value", "")))
    return (float(value.group()) if value else 0.0, fact["id"])


def shape_of(fact: Fact) -> Shape:
    """(frames, height, width) of a fact, as far as it says."""
    text = fact["resolution"] or ""
    frames = None if fact["frames"] is None else int(fact["frames"])
    if text in _NAMED:
        return (frames, *_NAMED[text])
    found = re.search(r"(\d{3,4})x(\d{3,4})", text)
    if found is None:
        return (frames, None, None)
    # Sources print width × height.
    return (frames, int(found[2]), int(found[1]))


def _length(model: Model, shape: Shape) -> tuple[int | None, str | None]:
    frames, height, width = shape
    if model.modality == "image":
        frames = 1
    if model.geometry is None or frames is None or height is None or width is None:
        return None, None
    try:
        return model.geometry.tokens(frames, height, width), model.geometry.formula(frames, height, width)
    except ValueError:
        return None, None


def _shift(fact: Fact) -> float | None:
    shift = (fact["sampler"] or {}).get("shift")
    return float(shift) if isinstance(shift, (int, float)) else None


def _sampler(fact: Fact, shared: dict[str, Any]) -> SamplerRecord | None:
    printed = (fact["sampler"] or {}).get("sigmas")
    if not isinstance(printed, str) or not printed.startswith("shared."):
        return None
    return SamplerRecord.euler([float(level) for level in shared[printed.removeprefix("shared.")]])


def _conditions(facts: Sequence[Fact]) -> Conditions:
    samplers = {(fact["sampler"] or {}).get("name") for fact in facts} - {None}
    said = sorted({str(fact["guidance"]) for fact in facts if fact["guidance"] is not None})
    numbers = sorted({float(scale[0]) for text in said if (scale := re.search(r"\d+(?:\.\d+)?", text))})
    return Conditions(
        sampler=_shortened(min(samplers)) if len(samplers) == 1 else None,
        guidance_scale=numbers[0] if len(numbers) == 1 else None,
        note=f"Guidance as the source has it: {'; '.join(said)}." if said and len(numbers) != 1 else None,
    )


def _provenance(facts: Sequence[Fact]) -> Provenance:
    found: dict[tuple[Any, ...], Source] = {}
    for fact in facts:
        source = fact["source"]
        licence, note = _licence(source.get("license"))
        also = source.get("also")
        wheel = "wheel" in source["repository"]
        kept = Source(
            repository=source["repository"],
            path=_shortened(source.get("path")),
            commit=source.get("commit"),
            line=source.get("line"),
            license=licence,
            note="; ".join(part for part in (note, also, "read in the package" if wheel else None) if part) or None,
        )
        found.setdefault((kept.repository, kept.path, kept.line), kept)
    licences = {source.license for source in found.values()}
    return Provenance(license=licences.pop() if len(licences) == 1 else None, sources=tuple(found.values()))


def _licence(said: str | None) -> tuple[str | None, str | None]:
    """(SPDX id where the source clearly has one, what is to be said of it)."""
    if said is None or said == "not checked":
        return None, None
    if said.startswith("UNCLEAR"):
        return None, f"licence unclear{said.removeprefix('UNCLEAR')}"
    name = re.match(r"(Apache-2\.0|MIT|GPL-3\.0)", said)
    if name is None:
        return None, said
    return name[1], None if said in (name[1], f"{name[1]} (LICENSE)") else said


def _notes(method: Method, part: str, kept: Sequence[tuple[Fact, Plan | Preset]]) -> Iterator[str]:
    yield from method.notes(part)
    for fact, setting in kept:
        name = f"{len(setting.computed)} of {fact['num_steps']} steps" if isinstance(setting, Plan) else None
        for note in fact["notes"]:
            yield sentence(note)
        if name and not method.full_claim(fact) and (said := unclaimed(fact)):
            yield f"{name}: {said}"
    if any(_licence(fact["source"].get("license"))[0] is None for fact, _ in kept):
        yield _LICENCE_UNKNOWN


def _shortened(text: str | None) -> str | None:
    return None if text is None else text[:_SHORT].strip() or None
