"""What a source says of a plan or preset: its speed-up, its quality figures, and what they were compared with."""

from __future__ import annotations

import re
from typing import Any

from easyteacache.records.evidence import Evidence
from published.plans.method import Fact

#: Metric → the facts' names for its mean and for its worst value.
METRICS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "psnr": (("psnr", "psnr_mean"), "psnr_min"),
    "ssim": (("ssim",), None),
    "lpips": (("lpips", "lpips_mean"), "lpips_max"),
    "imagereward": (("imagereward",), None),
    "clip-score": (("clip_score",), None),
    "fid": (("fid",), None),
    "fid-difference": (("fid_delta",), None),
    "open-loop-relative-l1": (("open_loop_x0_rel_l1_sum",), None),
}
#: Times of a source → seconds.
_TIMES = {"seconds": 1.0, "minutes": 60.0, "ms": 0.001}
#: Speed-ups that are no wall time.
_COUNTED = ("FLOPs", "by TFLOPs", "forwards only, computed here")
_UNSTATED = ("not stated", "not in the excerpt", None)


def evidence_of(fact: Fact, *, full_claim: bool) -> tuple[Evidence, ...]:
    """One entry a metric, all with the speed-up they were reached at; one without a metric where there is only a speed-up.

    Args:
        fact: the fact.
        full_claim: its figures are those of the cache alone as it is applied here; else they are told in a note and nowhere else.
    """
    if not full_claim:
        return ()
    quality = fact["reported_quality"] or {}
    found = _entries(fact, quality, _speed(fact))
    study = quality.get("study")
    if study:
        told = {"speedup": study.get("speedup"), "latency_seconds": study.get("seconds"), "hardware": _hardware(fact)}
        found += _entries(fact, {**study, "prompts": study.get("pairs"), "against": quality.get("against")}, told)
    return tuple(found)


def unclaimed(fact: Fact) -> str | None:
    """What a source says of its own form of a plan, in one sentence; None where it says nothing."""
    speed, quality = _speed(fact), fact["reported_quality"] or {}
    said = [f"{speed['speedup']:g}×"] if speed.get("speedup") else []
    said += [f"{metric} {value:g}" for metric, value, _ in _figures(quality)]
    if not said:
        return None
    note = (fact["reported_speedup"] or {}).get("note")
    return f"The source reports {', '.join(said)} of its own form{f' ({note})' if note else ''}."


def _entries(fact: Fact, quality: dict[str, Any], speed: dict[str, Any]) -> list[Evidence]:
    told = {name: value for name, value in speed.items() if value is not None} | {"how": "reported"}
    told |= {"source": _place(fact), "note": _note(fact)}
    figures = _figures(quality)
    if not figures:
        return [Evidence(kind="published", **told)] if speed else []
    runs = quality.get("prompts") or _runs(quality.get("against"))
    return [
        Evidence(
            kind="reported",
            metric=metric,
            value=float(value),
            worst=None if worst is None else float(worst),
            runs=runs,
            compared_with=quality.get("against"),
            **told,
        )
        for metric, value, worst in figures
    ]


def _figures(quality: dict[str, Any]) -> list[tuple[str, float, float | None]]:
    found = []
    for metric, (names, worst) in METRICS.items():
        value = next((quality[name] for name in names if quality.get(name) is not None), None)
        if value is not None:
            found.append((metric, value, quality.get(worst) if worst else None))
    return found


def _speed(fact: Fact) -> dict[str, Any]:
    said = fact["reported_speedup"]
    if not said:
        return {}
    note = said.get("note") or ""
    counted = any(note.startswith(words) for words in _COUNTED)
    value = re.match(r"[0-9.]+", str(said["value"])) if said.get("value") is not None else None
    seconds = next((said[name] * factor for name, factor in _TIMES.items() if said.get(name)), None)
    return {
        "speedup": None if counted or value is None else float(value.group()),
        "latency_seconds": None if seconds is None else round(seconds, 3),
        "hardware": _hardware(fact),
    }


def _hardware(fact: Fact) -> str | None:
    named = (fact["reported_speedup"] or {}).get("hardware")
    return None if named in _UNSTATED else named


def _note(fact: Fact) -> str | None:
    said, quality = fact["reported_speedup"] or {}, fact["reported_quality"] or {}
    parts = []
    value = said.get("value")
    if isinstance(value, str) and not re.fullmatch(r"[0-9.]+", value):
        parts.append(f"printed as {value}")
    parts += [said[name] for name in ("note", "attribution") if said.get(name)]
    if said.get("computed_here") == "ratio":
        parts.append("the factor is the quotient of the times it prints")
    parts += [quality[name] for name in ("attribution", "metric_note") if quality.get(name)]
    if quality.get("by"):
        parts.append(f"quality by {quality['by']}")
    if quality.get("imagereward_baseline"):
        parts.append(f"ImageReward without cache {quality['imagereward_baseline']}")
    if quality.get("fid_baseline"):
        parts.append(f"FID without cache {quality['fid_baseline']}")
    return "; ".join(parts) or None


def _place(fact: Fact) -> str:
    source = fact["source"]
    return f"{source['repository']}, {source['path']}"[:300].rstrip()


def _runs(against: str | None) -> int | None:
    found = re.search(r"(\d+) (?:\w+ )?(?:prompts|pairs|samples)", (against or "").replace("50k", "50000"))
    return None if found is None else int(found[1])
