"""Adding up the terms of a forecast."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def weighted_sum(terms: Sequence[tuple[float, torch.Tensor]]) -> torch.Tensor:
    """Σ w_k t_k of tensors of one shape; with a single weight of 1, the tensor itself.

    Half precision is added up in single: weights such as 3, −3, 1 cancel most of what they multiply, and rounding every term would
    leave several times the rounding of the result (``tools/bench/forecast_cost.py`` measures both).
    """
    import torch

    (weight, first), *others = terms
    if weight == 1.0 and len(others) < 2:
        # One rounding at most: there is nothing to gain.
        return first.add(others[0][1], alpha=others[0][0]) if others else first
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for _, tensor in terms))
    half = dtype in (torch.bfloat16, torch.float16)
    total = first.to(torch.float32 if half else dtype, copy=True).mul_(weight)
    for weight, tensor in others:
        total.add_(tensor, alpha=weight)
    return total.to(dtype)


def counting(weights: Sequence[float], tensors: Sequence[torch.Tensor]) -> list[tuple[float, torch.Tensor]]:
    """The terms that count; one of weight 0 where none does, so that there is something to add up."""
    terms = [(weight, tensor) for weight, tensor in zip(weights, tensors, strict=True) if weight]
    return terms or [(0.0, tensors[-1])]
