"""Modulated block inputs: what each kind of first block feeds its attention with, by the block's own layers."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from easyteacache.integrations.diffusers.models.adapter import Computed

if TYPE_CHECKING:
    import torch
    from torch import nn


def adaptive_zero(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """``norm1(hidden_states, emb=temb)[0]``: FLUX, HunyuanVideo, SD3 and their kin."""
    return block.norm1(arguments["hidden_states"], emb=arguments["temb"])[0]  # type: ignore[no-any-return]


def adaptive_norm(*conditions: str, norm: str = "norm1", stream: str = "hidden_states") -> Computed:
    """``norm(stream, *conditions)``, of which the first result is the modulated stream: CogVideoX, Mochi, Lumina, …"""

    def of(block: nn.Module, arguments: Mapping[str, Any]) -> torch.Tensor:
        values = [arguments.get(name) for name in conditions]
        result = operator.attrgetter(norm)(block)(arguments[stream], *values)
        return result[0] if isinstance(result, tuple) else result  # type: ignore[no-any-return]

    return Computed(of)


def table(temb: str = "temb", *, norm: str = "norm1", in_float: bool = False) -> Computed:
    """``norm(x)·(1 + scale) + shift`` with shift and scale from the block's table added to ``temb``: Wan, LTX, PixArt, …

    ``temb`` holds six vectors per sample ``(B, 6·D)`` or ``(B, 6, D)``, or per token ``(B, L, 6·D)`` or ``(B, L, 6, D)``.
    """

    def of(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
        hidden, values = arguments["hidden_states"], arguments[temb]
        weights = block.scale_shift_table.to(hidden.device)
        vectors, width = weights.shape[-2:]
        if values.ndim == 4 and values.shape[1] == vectors != values.shape[2]:
            values = values.transpose(1, 2)
        values = values.reshape(hidden.shape[0], -1, vectors, width)
        shift, scale = (weights + (values.float() if in_float else values))[:, :, :2].unbind(2)
        normed = getattr(block, norm)(hidden.float() if in_float else hidden)
        return (normed * (1 + scale) + shift).to(hidden.dtype)  # type: ignore[no-any-return]

    return Computed(of)


def dit(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """DiT: its norm embeds timestep and class itself."""
    hidden, given = arguments["hidden_states"], {name: arguments[name] for name in ("timestep", "class_labels")}
    return block.norm1(hidden, **given, hidden_dtype=hidden.dtype)[0]  # type: ignore[no-any-return]


def chroma(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Chroma: the first six vectors of ``temb`` are the image stream's."""
    return block.norm1(arguments["hidden_states"], emb=arguments["temb"][:, :6])[0]  # type: ignore[no-any-return]


def token_replace(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """HunyuanVideo: with a replaced first frame its norm takes two conditions more."""
    hidden, temb = arguments["hidden_states"], arguments["temb"]
    if hasattr(block.norm1, "emb") or arguments.get("token_replace_emb") is None:
        return block.norm1(hidden, emb=temb)[0]  # type: ignore[no-any-return]
    return block.norm1(hidden, temb, arguments["token_replace_emb"], arguments["num_tokens"])[0]  # type: ignore[no-any-return]


def qwen(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Qwen-Image: image stream."""
    parameters = block.img_mod(arguments["temb"]).chunk(2, dim=-1)[0]
    # Of releases that edit several pictures at once.
    index = arguments.get("modulate_index")
    more = () if index is None else (index,)
    return block._modulate(block.img_norm1(arguments["hidden_states"]), parameters, *more)[0]  # type: ignore[no-any-return]


def qwen21(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Qwen-Image 2.1: text and image in one stream."""
    parameters = arguments["modulation"].chunk(2, dim=-1)[0]
    return block._modulate(  # type: ignore[no-any-return]
        block.img_norm1(arguments["hidden_states"]), parameters, arguments.get("target_token_mask")
    )[0]


def nucleus(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """NucleusMoE-Image: scale only."""
    scale = block.img_mod(arguments["temb"]).unsqueeze(1).chunk(4, dim=-1)[0]
    return block.pre_attn_norm(arguments["hidden_states"]) * (1 + scale)  # type: ignore[no-any-return]


def flux2(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """FLUX.2: shift and scale are the first two of six vectors in ``temb_mod_img``."""
    vectors = arguments["temb_mod_img"]
    vectors = vectors.unsqueeze(1) if vectors.ndim == 2 else vectors
    shift, scale = vectors.chunk(6, dim=-1)[:2]
    return (1 + scale) * block.norm1(arguments["hidden_states"]) + shift  # type: ignore[no-any-return]


def kandinsky(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Kandinsky 5: nine vectors, shift and scale of self-attention first."""
    visual, time = arguments["visual_embed"], arguments["time_embed"]
    shift, scale = block.visual_modulation(time).unsqueeze(1).chunk(9, dim=-1)[:2]
    while shift.ndim < visual.ndim:
        shift, scale = shift.unsqueeze(1), scale.unsqueeze(1)
    return (block.self_attention_norm(visual.float()) * (scale.float() + 1.0) + shift.float()).type_as(visual)  # type: ignore[no-any-return]


def hidream(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """HiDream: twelve vectors, the image stream's shift and scale first; the layers lie in ``block.block``."""
    hidden, inner = arguments["hidden_states"], block.block
    shift, scale = inner.adaLN_modulation(arguments["temb"])[:, None].chunk(12, dim=-1)[:2]
    return inner.norm1_i(hidden).to(hidden.dtype) * (1 + scale) + shift  # type: ignore[no-any-return]


def z_image(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Z-Image: ``attention_norm1(x)·scale``, no shift (vLLM-Omni's extractor takes the same)."""
    scale = block.adaLN_modulation(arguments["adaln_input"]).unsqueeze(1).chunk(4, dim=2)[0]
    return block.attention_norm1(arguments["x"]) * (1.0 + scale)  # type: ignore[no-any-return]


def minimax(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """MiniMax-H3: a row of shift and scale per token, by index."""
    shift, scale = block.adaln_proj(arguments["temb"])[:2]
    rows = arguments["adaln_indices"]
    return block.norm1(arguments["hidden_states"]) * (1.0 + scale.index_select(0, rows)) + shift.index_select(0, rows)  # type: ignore[no-any-return]


def cosmos(block: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    """Cosmos 1 and 2: a learned position is added before the norm."""
    hidden, position = arguments["hidden_states"], arguments.get("extra_pos_emb")
    hidden = hidden if position is None else hidden + position
    return block.norm1(hidden, arguments["embedded_timestep"], arguments.get("temb"))[0]  # type: ignore[no-any-return]


# Signals that follow from the noise level alone ----------------------------------------------------------------------


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


def cogvideox_embeds(transformer: Any, timesteps: torch.Tensor, arguments: Any) -> torch.Tensor:
    """CogVideoX's time embedding ``(N, D)``, with the offset embedding that 1.5 image-to-video adds."""
    dtype = arguments["hidden_states"].dtype
    embedded = transformer.time_embedding(transformer.time_proj(timesteps).to(dtype), arguments.get("timestep_cond"))
    if transformer.ofs_embedding is not None:
        embedded = embedded + transformer.ofs_embedding(transformer.ofs_proj(arguments["ofs"]).to(dtype))
    return embedded  # type: ignore[no-any-return]
