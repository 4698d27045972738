"""Tiny image transformers: text by cross-attention, or side by side with the image."""

from __future__ import annotations

import torch
from tiny_case import Case, latent, text


def _packed(step: int, branch: str, *, channels: int = 4, pooled: bool = False, **more: object) -> dict[str, object]:
    """FLUX and its kin: 16 packed image tokens, 5 text tokens of width 8."""
    found = {
        "hidden_states": latent(step, 1, 16, channels),
        "encoder_hidden_states": text(branch, 1, 5, 8),
        "txt_ids": torch.zeros(5, 3),
        "img_ids": torch.zeros(16, 3),
        **more,
    }
    return {**found, "pooled_projections": text(branch, 1, 8)} if pooled else found


FLUX = {
    "in_channels": 4,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 8,
    "axes_dims_rope": (4, 4, 8),
}


def unit(sigma: float) -> torch.Tensor:
    """Noise level in (0, 1] as the timestep."""
    return torch.tensor([sigma])


CASES: dict[str, Case] = {
    "FluxTransformer2DModel": Case(
        {**FLUX, "pooled_projection_dim": 8}, lambda step, branch: _packed(step, branch, pooled=True), unit
    ),
    "BriaTransformer2DModel": Case({**FLUX, "axes_dims_rope": [4, 4, 8]}, _packed),
    "ChromaTransformer2DModel": Case(
        {**FLUX, "approximator_num_channels": 16, "approximator_hidden_dim": 16, "approximator_layers": 1},
        _packed,
        unit,
    ),
    "LongCatImageTransformer2DModel": Case(
        {**FLUX, "axes_dims_rope": [4, 4, 8], "pooled_projection_dim": 8}, _packed, unit
    ),
    "OvisImageTransformer2DModel": Case({**FLUX, "out_channels": 4}, _packed, unit),
    "Flux2Transformer2DModel": Case(
        {**FLUX, "axes_dims_rope": (4, 4, 4, 4), "timestep_guidance_channels": 16, "guidance_embeds": False},
        lambda step, branch: {**_packed(step, branch), "txt_ids": torch.zeros(5, 4), "img_ids": torch.zeros(16, 4)},
        unit,
    ),
    "SD3Transformer2DModel": Case(
        {
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 3,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 8,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 8,
            "pos_embed_max_size": 8,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 8, 8),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "pooled_projections": text(branch, 1, 8),
        },
    ),
    "QwenImageTransformer2DModel": Case(
        {
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 3,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 8,
            "axes_dims_rope": (8, 4, 4),
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 16, 16),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "encoder_hidden_states_mask": torch.ones(1, 5, dtype=torch.long),
            "img_shapes": [(1, 4, 4)],
        },
        unit,
    ),
    "NucleusMoEImageTransformer2DModel": Case(
        {
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 3,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 8,
            "axes_dims_rope": (8, 4, 4),
            "moe_enabled": False,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 16, 16),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "encoder_hidden_states_mask": torch.ones(1, 5, dtype=torch.long),
            "img_shapes": [(1, 4, 4)],
        },
        unit,
    ),
    "CogView4Transformer2DModel": Case(
        {
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 4,
            "num_attention_heads": 4,
            "text_embed_dim": 8,
            "time_embed_dim": 8,
            "condition_dim": 4,
            "pos_embed_max_size": 8,
            "sample_size": 8,
            "rope_axes_dim": (4, 4),
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 8, 8),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "original_size": torch.tensor([[16.0, 16.0]]),
            "target_size": torch.tensor([[16.0, 16.0]]),
            "crop_coords": torch.tensor([[0.0, 0.0]]),
        },
    ),
    "GlmImageTransformer2DModel": Case(
        {
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "text_embed_dim": 8,
            "time_embed_dim": 8,
            "condition_dim": 4,
            "prior_vq_quantizer_codebook_size": 8,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 8, 8),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "prior_token_id": torch.arange(16).reshape(1, 16) % 8,
            "prior_token_drop": torch.full((1, 16), branch == "uncond"),
            "target_size": torch.tensor([[16.0, 16.0]]),
            "crop_coords": torch.tensor([[0.0, 0.0]]),
        },
    ),
    "HunyuanImageTransformer2DModel": Case(
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 2,
            "num_single_layers": 2,
            "num_refiner_layers": 1,
            "patch_size": (1, 1),
            "text_embed_dim": 8,
            "rope_axes_dim": (4, 4),
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 4, 4),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "encoder_attention_mask": torch.ones(1, 5),
        },
    ),
    "PixArtTransformer2DModel": Case(
        {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 3,
            "norm_num_groups": 1,
            "cross_attention_dim": 16,
            "sample_size": 8,
            "caption_channels": 8,
            "use_additional_conditions": False,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 8, 8),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
        },
    ),
    "DiTTransformer2DModel": Case(
        {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 3,
            "sample_size": 8,
            "patch_size": 2,
            "num_embeds_ada_norm": 10,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 8, 8),
            "class_labels": torch.tensor([3 if branch == "cond" else 10]),
        },
    ),
    "SanaTransformer2DModel": Case(
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 3,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 8,
            "cross_attention_dim": 16,
            "caption_channels": 8,
            "sample_size": 4,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 4, 4),
            "encoder_hidden_states": text(branch, 1, 5, 8),
        },
    ),
}
