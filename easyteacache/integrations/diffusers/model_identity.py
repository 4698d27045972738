"""Which model runs: class and configuration, number type, quantisation and active adapters of a transformer at this moment."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from easyteacache.integrations.diffusers.active_adapters import adapters_of
from easyteacache.records.model_identity import ModelIdentity

#: Values of a tensor that a digest looks at, spread over its whole length.
SAMPLED = 8


def configuration_name(transformer: Any) -> str:
    """``Class@sha256`` of a transformer's configuration: the alias of kind ``transformer_class``.

    The hash is over its public entries as JSON with sorted keys and no spaces, so it is the same wherever the weights lie.
    """
    config = {name: value for name, value in dict(transformer.config).items() if not name.startswith("_")}
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), default=list)
    return f"{type(transformer).__name__}@{hashlib.sha256(text.encode()).hexdigest()}"


def of_class(transformer: nn.Module) -> ModelIdentity:
    """What does not change while a transformer lives: its class, and its configuration where it has one."""
    if not isinstance(getattr(transformer, "config", None), Mapping):
        return ModelIdentity(class_name=type(transformer).__name__)
    kind, _, digest = configuration_name(transformer).partition("@")
    return ModelIdentity(class_name=kind, configuration_sha256=digest)


def of_run(transformer: nn.Module, known: ModelIdentity | None = None) -> ModelIdentity:
    """The whole identity as it is now.

    Args:
        transformer: the module.
        known: what ``of_class`` gave of it, where that was asked already.
    """
    return (known or of_class(transformer)).model_copy(
        update={
            "dtype": number_type(transformer),
            "quantization": quantization(transformer),
            "adapters": adapters_of(transformer),
        }
    )


def weights_digest(transformer: nn.Module) -> str | None:
    """A short name for the weights as they are now: another fine-tune, or a fused adapter, has another one.

    It is taken over names, shapes and ``SAMPLED`` values of every tensor, so that it costs milliseconds and no pass over the weights.
    Adapters that are loaded but do not act are left out. None where no value can be read, as while everything is offloaded.

    Args:
        transformer: the module.
    """
    digest, seen = hashlib.sha256(), False
    acting = [f".{adapter.name}." for adapter in adapters_of(transformer)]
    values: list[torch.Tensor] = []
    with torch.no_grad():
        for name, tensor in sorted(transformer.state_dict(keep_vars=True).items()):
            idle = "lora_" in name and not any(adapter in name for adapter in acting)
            if not isinstance(tensor, torch.Tensor) or idle:
                continue
            digest.update(f"{name.replace('.base_layer', '')} {tuple(tensor.shape)}\n".encode())
            if type(tensor) not in (torch.Tensor, nn.Parameter) or tensor.is_meta or tensor.numel() == 0:
                # Quantised tensors keep their numbers in ways of their own; their names and shapes have to do.
                continue
            places = torch.linspace(0, tensor.numel() - 1, min(SAMPLED, tensor.numel()), device=tensor.device).long()
            values.append(tensor.detach().reshape(-1)[places].to(torch.float32))
            seen = True
        devices: dict[torch.device, list[torch.Tensor]] = {}
        for value in values:
            devices.setdefault(value.device, []).append(value)
        # One copy from each device instead of one a tensor.
        copied = {device: iter(torch.cat(found).cpu()) for device, found in devices.items()}
        for value in values:
            kept = [float(next(copied[value.device])) for _ in range(len(value))]
            digest.update(repr(kept).encode())
    return digest.hexdigest()[:32] if seen else None


def number_type(transformer: nn.Module) -> str | None:
    """The number type that it computes in, ``bfloat16``; of layers that are cast on the fly (layerwise casting) that one."""
    dtype = getattr(transformer, "dtype", None)
    if not isinstance(dtype, torch.dtype):
        dtype = next((p.dtype for p in transformer.parameters() if p.is_floating_point()), None)
    return None if dtype is None else str(dtype).removeprefix("torch.")


def quantization(transformer: nn.Module) -> str | None:
    """The method its weights are quantised with (``bitsandbytes``, ``torchao``, ``gguf`` …), None where they are not."""
    config = getattr(transformer, "config", None)
    found = config.get("quantization_config") if isinstance(config, Mapping) else None
    if found is None:
        quantizer = getattr(transformer, "hf_quantizer", None)
        found = getattr(quantizer, "quantization_config", None)
    if found is None:
        return None
    if dataclasses.is_dataclass(found) or not isinstance(found, Mapping):
        method = getattr(found, "quant_method", None)
    else:
        method = found.get("quant_method")
    method = getattr(method, "value", method)
    return "unknown" if method is None else str(method)
