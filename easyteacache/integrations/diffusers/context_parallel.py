"""Context parallelism: every rank holds a part of the sequence, and all of them have to take the same decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from easyteacache.errors import AttachError

if TYPE_CHECKING:
    from torch import nn

    from easyteacache.runtime.tensor_math import Reduce


def _context_parallel(module: Any) -> Any:
    """The configuration of context parallelism, when it is enabled over more than one rank."""
    config = getattr(getattr(module, "_parallel_config", None), "context_parallel_config", None)
    mesh = getattr(config, "_flattened_mesh", None)
    return config if mesh is not None and mesh.size() > 1 else None


def reduction(module: nn.Module) -> Reduce | None:
    """Adds a tensor up over the ranks that share a sequence; None without context parallelism.

    The result is the same bits on every rank, so the decisions made from it are the same.
    """
    config = _context_parallel(module)
    if config is None:
        return None
    group = config._flattened_mesh.get_group()

    def reduce(sums: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(sums, group=group)
        return sums

    return reduce


def whole_length(module: nn.Module, tokens: int, device: torch.device) -> int:
    """Tokens of the whole sequence from those of this rank."""
    config = _context_parallel(module)
    if config is None:
        return tokens
    if getattr(config, "ulysses_anything", False) or getattr(config, "ring_anything", False):
        # Shards may differ in size.
        total = torch.tensor(tokens, dtype=torch.int64, device=device)
        dist.all_reduce(total, group=config._flattened_mesh.get_group())
        return int(total)
    return tokens * int(config._flattened_mesh.size())


def refuse_split_blocks(head: nn.Module) -> None:
    """Refuse to attach outside of a hook that splits the sequence at the first block."""
    registry = getattr(head, "_diffusers_hook", None)
    if registry is not None and any(name.startswith("cp_input") for name in registry.hooks):
        raise AttachError(
            "context parallelism was enabled before the cache was attached, and splits this model's sequence at its first "
            "block: attach the cache first, then call enable_parallelism()"
        )
