"""Is this the model that a record was made with? Class and configuration decide whether it may be used, the rest is told."""

from __future__ import annotations

from collections.abc import Sequence

from easyteacache.policy.request import RunContext
from easyteacache.records.model_identity import ActiveAdapter, ModelIdentity

#: Scales of one adapter that differ by less are the same.
SAME_SCALE = 1e-3
#: Guidance scales nearer to each other than this factor are one setting: at 7 instead of 3 the same plan's error is twice as large.
SAME_GUIDANCE = 1.2


def another_configuration(recorded: ModelIdentity | None, running: ModelIdentity) -> bool:
    """Was the record made with another configuration of the transformer? False where it does not say."""
    known = None if recorded is None else recorded.configuration_sha256
    return known is not None and running.configuration_sha256 is not None and known != running.configuration_sha256


def differences(recorded: ModelIdentity | None, running: ModelIdentity) -> list[str]:
    """How the running model's state differs from the record's, a sentence each: number type, quantisation, adapters.

    A record that says nothing of its model holds for the bare one, so that adapters are told of there, too.
    """
    found = []
    recorded = recorded or ModelIdentity.model_construct()
    if recorded.dtype is not None and running.dtype is not None and recorded.dtype != running.dtype:
        found.append(f"Its evidence is of {recorded.dtype}, this transformer runs in {running.dtype}.")
    if recorded.quantization != running.quantization and (
        running.quantization is not None or running.dtype is not None
    ):
        found.append(
            f"Its evidence is of {_quantized(recorded.quantization)}, this transformer has {_quantized(running.quantization)}."
        )
    if not _same_adapters(recorded.adapters, running.adapters):
        found.append(
            f"It was made with {_named(recorded.adapters)}, and {_named(running.adapters)} act in this transformer: its evidence "
            "is of another model."
        )
    return found


def other_guidance(recorded: float | None, run: RunContext) -> list[str]:
    """How the run's guidance differs from the record's, one sentence: it multiplies what reuse gets wrong."""
    here = run.guidance_scale
    if recorded is None or here is None or max(recorded, here) <= SAME_GUIDANCE * min(recorded, here):
        return []
    return [f"Its evidence is of a guidance scale of {recorded:g}, this run has {here:g}."]


def _same_adapters(recorded: Sequence[ActiveAdapter], running: Sequence[ActiveAdapter]) -> bool:
    one, other = ({adapter.name: adapter.scale for adapter in adapters} for adapters in (recorded, running))
    return set(one) == set(other) and all(_same_scale(one[name], other[name]) for name in one)


def _same_scale(a: float | None, b: float | None) -> bool:
    return a is None or b is None or abs(a - b) <= SAME_SCALE * max(1.0, abs(a))


def _named(adapters: Sequence[ActiveAdapter]) -> str:
    named = (one.name if one.scale is None else f"{one.name} at {one.scale:g}" for one in adapters)
    return f"the adapters {', '.join(named)}" if adapters else "no adapters"


def _quantized(name: str | None) -> str:
    return "weights that are not quantised" if name is None else f"weights quantised as {name}"
