"""Published lists that are no records of their own, for recognising copies: transcriptions, presets, and borrowings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from published import sets

_PRESET_NOTE = (
    "An automatically generated preset: it needs that project's scaled mixed metric and leaky accumulator and is no plain "
    "TeaCache calibration."
)


def build(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Content of ``easyteacache/audit/known_variants.json``."""
    originals = {fact["id"]: fact for fact in facts}
    variants, borrowings = [], []
    for fact in facts:
        if sets.is_calibration(fact) and fact["id"] not in sets.MEASURED_WHERE_BORROWED:
            continue
        repository = fact["sources"][0]["repo"]
        if fact["fit_status"] == "borrowed":
            original = sets.registry_key(originals[fact["borrowed_from"]])
            borrowings.append(
                {
                    "of": original,
                    "model_key": sets.registry_key(fact) if sets.is_calibration(fact) else fact["model_key"],
                    "title": fact["display_name"],
                    "repository": repository,
                }
            )
            continue
        preset = fact["borrowed_from"] is None
        key = fact["model_key"] if preset else sets.registry_key(originals[fact["borrowed_from"]])
        place = f"{repository}, {fact['sources'][0]['path']}"
        variants.append(
            {
                "model_key": key,
                "title": fact["display_name"],
                "origin": "preset" if preset else "transcription",
                "coefficients": [float(value) for value in fact["coefficients"]],
                "note": f"{_PRESET_NOTE} From {place}."
                if preset
                else f"Printed so in {place}; the original has other digits.",
            }
        )
    return {"variants": variants, "borrowings": borrowings}
