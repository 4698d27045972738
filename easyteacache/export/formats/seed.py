"""The original project's cache.json: nested keys → sequence length → ``meta_data``.

Evaluated on ``t_mod``, the timestep projection, as p(x); threshold and window are arguments of its constructor
(oneflyingfish/EasyTeacache, EasyTeacache/teacache/tea_cache.py at eea6fb54d321). This project's own reading of the file, which
also knows a domain, is ``easyteacache.original.cache_json``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export import parsed as files
from easyteacache.export.deviations import Deviation
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import ORIGIN, origin
from easyteacache.files import strict_json
from easyteacache.original import cache_json


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """The whole file, with the key's names as its nested keys."""
    assert numbers.coefficients is not None
    quality = numbers.bucket.quality
    fit = cache_json.TeaCacheConfig(
        complexity=len(numbers.coefficients) - 1,
        coefficients=numbers.coefficients,
        fit_length=numbers.sequence_length or 0,
        calibration_size=-1 if quality is None else quality.points,
        domain=numbers.domain,
    )
    content: dict[str, Any] = {str(fit.fit_length): {cache_json.META: fit.to_meta()}}
    for name in reversed(numbers.record.model_key.split("/")):
        content = {name: content}
    return strict_json.spell(content | {ORIGIN: origin(numbers, remarks)})


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """Fits are filed under a sequence length; the limit of steps in a row is an argument beside the file."""
    limit = "as many as the run has steps, it reuses 2 by default" if numbers.limit is None else str(numbers.limit)
    yield Deviation("window", False, f"Its constructor takes max_consecutive_skip outside this file: {limit}.")
    if numbers.sequence_length is None:
        yield Deviation("steps", True, "Its fits are filed under a sequence length. Pass --sequence-length.")


def read(text: str, where: str) -> Iterator[Parsed]:
    """Every fit of a file, at any depth."""
    content = files.json_object(text, where)
    own = files.key_of_origin(content)
    found = list(_fits({name: child for name, child in content.items() if name != ORIGIN}, (), where))
    if not found:
        raise files.refuse(where, f"holds no {cache_json.META}")
    for names, meta in found:
        # With a domain the number is this project's own; the original writes none and its length names the last level.
        keys = names[:-1] if names and names[-1].isdigit() else names
        domain = meta.get("domain")
        yield Parsed(
            label="/".join(names) if len(found) > 1 else None,
            coefficients=files.numbers(meta.get("coefficients"), "coefficients", where),
            sequence_length=files.whole(meta, "fit_length", where) or None,
            domain=None if domain is None else files.pair(domain, "domain", where),
            signal="timestep_projection",
            post="none",
            model_key=own or "/".join(keys).lower() or None,
        )


def _fits(node: Any, names: tuple[str, ...], where: str) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if not isinstance(node, dict):
        return
    meta = node.get(cache_json.META)
    if isinstance(meta, dict):
        yield names, meta
    for name, child in node.items():
        if name != cache_json.META:
            yield from _fits(child, (*names, name), where)
