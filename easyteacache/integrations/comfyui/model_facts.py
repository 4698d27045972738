"""What can be known of a model in ComfyUI: its state, and how many tokens a latent is for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from easyteacache.records.model_identity import ActiveAdapter, ModelIdentity

#: What stands for LoRAs and their kin: ComfyUI keeps what they do to the weights, not what they are called.
PATCHES = "LoRA or other patches of this workflow"


def identity_of(patcher: Any) -> ModelIdentity:
    """Class, number type, quantisation, and whether patches act, of the model in a model patcher."""
    model = patcher.model
    stored, cast = getattr(model, "get_dtype", lambda: None)(), getattr(model, "manual_cast_dtype", None)
    computed = stored if cast is None else cast
    patched = bool(getattr(patcher, "patches", None))
    return ModelIdentity(
        class_name=type(model.diffusion_model).__name__,
        dtype=_spelled(computed),
        quantization=_quantization(patcher, model, stored),
        adapters=(ActiveAdapter(name=PATCHES),) if patched else (),
    )


def unet_config(patcher: Any) -> Mapping[str, Any]:
    """The configuration that ComfyUI read off the checkpoint; empty where the model has none."""
    config = getattr(getattr(patcher.model, "model_config", None), "unet_config", None)
    return config if isinstance(config, Mapping) else {}


def tokens_of(model: Any, shape: Sequence[int]) -> int | None:
    """The tokens of a latent ``(B, C, …)`` by the model's patch size; None where it does not say what that is.

    Args:
        model: ComfyUI's base model.
        shape: of the latent.
    """
    patch, sizes = _patch(model.diffusion_model, len(shape) - 2), shape[2:]
    return None if patch is None else math.prod(math.ceil(size / each) for size, each in zip(sizes, patch, strict=True))


def values_per_token(model: Any, shape: Sequence[int]) -> int | None:
    """Numbers of the latent that a token stands for; None as for ``tokens_of``."""
    patch = _patch(model.diffusion_model, len(shape) - 2)
    return None if patch is None else shape[1] * math.prod(patch)


def _patch(transformer: Any, axes: int) -> tuple[int, ...] | None:
    """The patch over the last axes of a latent; frames are patched alone where one number stands for both sides."""
    found = getattr(transformer, "patch_size", None)
    if found is None and isinstance(getattr(transformer, "patch_spatial", None), int):
        found = (getattr(transformer, "patch_temporal", 1), transformer.patch_spatial, transformer.patch_spatial)
    if isinstance(found, int) and not isinstance(found, bool) and found > 0:
        return (1,) * (axes - 2) + (found,) * min(axes, 2)
    if isinstance(found, Sequence) and len(found) >= axes and all(isinstance(one, int) and one > 0 for one in found):
        return tuple(found[-axes:]) if axes else None
    return None


def _spelled(dtype: Any) -> str | None:
    return str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else None


def _quantization(patcher: Any, model: Any, stored: Any) -> str | None:
    if "GGUF" in type(patcher).__name__:
        return "gguf"
    if isinstance(stored, torch.dtype) and stored.itemsize == 1:
        return str(stored).removeprefix("torch.")
    return "fp8" if getattr(getattr(model, "model_config", None), "scaled_fp8", None) is not None else None
