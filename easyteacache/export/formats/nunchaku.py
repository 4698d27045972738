"""nunchaku: keyword arguments of ``TeaCache``.

The coefficients are nunchaku's own, chosen by ``model_name``: only records that hold the same ones can be exported. A step that
``skip_steps`` covers is computed but its residual is not kept, and the next reuse adds None: 0 is the one value that works, and
with it step 0 and the last step are computed (nunchaku-tech/nunchaku, nunchaku/caching/teacache.py at 3a3cc3d0649a, which opens
with "This file is deprecated."). Its first-block caches take thresholds, which are presets (nunchaku/caching/diffusers_adapters/flux.py
there).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from easyteacache.export import presets
from easyteacache.export.deviations import Deviation
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.spelling import header, python_literal

# What nunchaku evaluates, whatever it is told.
BUILT_IN = {
    "flux.1/dev": (498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861),
    "flux.1/kontext-dev": (-1046.55119, 312.563399, -16.9500694, 0.410995971, 0.0374537863),
}


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """A dictionary of keyword arguments; for a preset the call that applies it."""
    if numbers.preset is not None:
        arguments = presets.settings("nunchaku", numbers.preset)
        given = "".join(f"    {name}={value!r},\n" for name, value in arguments.items())
        return (
            f"{header(numbers, remarks)}from nunchaku.caching.diffusers_adapters import apply_cache_on_pipe\n\n"
            f"apply_cache_on_pipe(\n    pipe,\n{given})\n"
        )
    arguments = {"model_name": None if model is None else model.name}
    arguments |= {} if numbers.num_steps is None else {"num_steps": numbers.num_steps}
    arguments |= {"rel_l1_thresh": numbers.threshold, "skip_steps": 0, "enabled": True}
    return f"{header(numbers, remarks)}TEACACHE = {python_literal(arguments)}\n"


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """Other coefficients than its own cannot be handed to it, and no window that begins later than at step 1."""
    yield Deviation("model", False, "nunchaku calls the file of its TeaCache deprecated.")
    own = BUILT_IN.get(numbers.record.model_key)
    if numbers.coefficients != own:
        yield Deviation(
            "method",
            True,
            "nunchaku evaluates coefficients of its own and takes no others; this record holds different ones.",
        )
    if numbers.num_steps is None:
        yield Deviation("steps", True, "nunchaku counts steps and must know how many there are. Pass --steps.")
