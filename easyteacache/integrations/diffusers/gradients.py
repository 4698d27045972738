"""Whether a gradient may be asked of a forward: blocks that were skipped would answer with zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def wanted(transformer: nn.Module, arguments: Mapping[str, Any]) -> bool:
    """Are gradients on, and is there something to differentiate by: a module that trains, a parameter, or an argument?

    Under ``torch.no_grad`` or ``torch.inference_mode``, as pipelines sample, this is one check of a flag.

    Args:
        transformer: the module that is called.
        arguments: of its forward, by name.
    """
    if not torch.is_grad_enabled():
        return False
    if transformer.training or any(parameter.requires_grad for parameter in transformer.parameters()):
        return True
    return any(isinstance(value, torch.Tensor) and value.requires_grad for value in arguments.values())
