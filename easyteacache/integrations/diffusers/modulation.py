"""Modulated block inputs: what each kind of first block feeds its attention with, by the block's own layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from easyteacache.integrations.diffusers.arguments import Arguments


def adaptive_norm(block: Any, arguments: Arguments) -> torch.Tensor:
    """``norm1(hidden_states, emb=temb)[0]``: FLUX, HunyuanVideo and their kin."""
    return block.norm1(arguments["hidden_states"], emb=arguments["temb"])[0]  # type: ignore[no-any-return]


def wan(block: Any, arguments: Arguments) -> torch.Tensor:
    """Wan: ``norm1(x)·(1 + scale) + shift`` with the block's table added to the time projection."""
    hidden, projection = arguments["hidden_states"], arguments["temb"]
    table = block.scale_shift_table.to(hidden.device)
    per_token = projection.ndim == 4
    shift, scale = (table.unsqueeze(0) if per_token else table).add(projection.float()).chunk(6, dim=-2)[:2]
    if per_token:
        shift, scale = shift.squeeze(2), scale.squeeze(2)
    return (block.norm1(hidden.float()) * (1 + scale) + shift).type_as(hidden)  # type: ignore[no-any-return]


def wan_embeds(transformer: nn.Module, timesteps: torch.Tensor, arguments: Any) -> torch.Tensor:
    """Wan's time embedding ``(N, D)`` of ``timesteps`` ``(N,)``."""
    embedder: Any = transformer.get_submodule("condition_embedder")
    sinusoid = embedder.timesteps_proj(timesteps)
    dtype = next(embedder.time_embedder.parameters()).dtype
    return embedder.time_embedder(sinusoid.to(dtype)).type_as(arguments["encoder_hidden_states"])  # type: ignore[no-any-return]


def wan_projects(transformer: nn.Module, timesteps: torch.Tensor, arguments: Any) -> torch.Tensor:
    """Wan's time projection ``(N, 6·D)`` of ``timesteps`` ``(N,)``."""
    embedder: Any = transformer.get_submodule("condition_embedder")
    return embedder.time_proj(embedder.act_fn(wan_embeds(transformer, timesteps, arguments)))  # type: ignore[no-any-return]
