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
