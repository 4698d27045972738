"""Which adapters (LoRA and its kin) act in a transformer at this moment, read from its layers alone.

Layers of peft keep the names of the adapters that act and, by name, what each adds is scaled with. Adapters that were fused into
the weights cannot be told from them any more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from easyteacache.records.model_identity import ActiveAdapter

#: Two layers scale an adapter alike, up to the rounding of their own alpha and rank.
SAME_SCALE = 1e-6


def adapters_of(transformer: nn.Module) -> tuple[ActiveAdapter, ...]:
    """The active adapters, sorted by name; the scale is None where layers differ in it or do not say.

    Args:
        transformer: any module; one without adapters has none.
    """
    scales: dict[str, list[float | None]] = {}
    for layer in transformer.modules():
        for name, scale in _of_layer(layer):
            scales.setdefault(name, []).append(scale)
    return tuple(ActiveAdapter(name=name, scale=_common(found)) for name, found in sorted(scales.items()))


class Watched:
    """Notices that adapters were switched, weighted, fused, loaded or dropped, layer by layer, without a walk over the model.

    Args:
        transformer: any module.
    """

    def __init__(self, transformer: nn.Module) -> None:
        self._transformer = transformer
        self.look()

    def look(self) -> None:
        """Find the layers that have adapters, and remember what acts in them."""
        layers = self._transformer.modules()
        self._layers: list[Any] = [layer for layer in layers if isinstance(getattr(layer, "scaling", None), Mapping)]
        self._loaded, self._acting = self._names(), self._states()

    def switched(self) -> bool:
        """Does anything else act than when it was looked at last?"""
        if self._names() == self._loaded and self._states() == self._acting:
            return False
        self.look()
        return True

    def _names(self) -> tuple[str, ...]:
        """Of the adapters that were loaded, as diffusers and peft list them on the model."""
        return tuple(getattr(self._transformer, "peft_config", None) or ())

    def _states(self) -> list[tuple[Any, ...]]:
        return [
            (
                bool(getattr(layer, "disable_adapters", False)),
                tuple(getattr(layer, "active_adapters", ())),
                tuple(layer.scaling.items()),
                tuple(getattr(layer, "merged_adapters", ())),
            )
            for layer in self._layers
        ]


def _of_layer(layer: Any) -> Iterator[tuple[str, float | None]]:
    scaling, active = getattr(layer, "scaling", None), getattr(layer, "active_adapters", None)
    if (
        not isinstance(scaling, Mapping)
        or not isinstance(active, list | tuple)
        or getattr(layer, "disable_adapters", False)
    ):
        return
    for name in active:
        # A layer that an adapter leaves alone lists it all the same.
        if name in scaling:
            yield name, _weight(layer, name, scaling[name])


def _weight(layer: Any, name: str, scaling: Any) -> float | None:
    """The weight that the adapter was activated with: its scaling without what its own alpha and rank give."""
    try:
        alpha, rank = float(layer.lora_alpha[name]), float(layer.r[name])
        stabilised = getattr(layer, "use_rslora", {}).get(name, False)
        weight = float(scaling) * (math.sqrt(rank) if stabilised else rank) / alpha
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return weight if math.isfinite(weight) else None


def _common(scales: list[float | None]) -> float | None:
    first = scales[0]
    if first is None or any(
        scale is None or abs(scale - first) > SAME_SCALE * max(abs(first), 1.0) for scale in scales
    ):
        return None
    return float(f"{first:.6g}")
