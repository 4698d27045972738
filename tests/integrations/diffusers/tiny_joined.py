"""Tiny transformers whose text and image are joined to one sequence, from the first block on or from the middle."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from tiny_case import Case, latent, text
from tiny_image import unit


def _hidream(step: int, branch: str) -> dict[str, object]:
    return {
        "hidden_states": latent(step, 1, 4, 8, 8),
        "encoder_hidden_states_t5": text(branch, 1, 3, 8),
        "encoder_hidden_states_llama3": text(branch + "llama", 2, 1, 3, 8),
        "pooled_embeds": text(branch, 1, 8),
    }


def _omnigen(step: int, branch: str) -> dict[str, object]:
    length = 4 + 1 + 16
    return {
        "hidden_states": latent(step, 1, 4, 8, 8),
        "input_ids": torch.tensor([[1, 2, 3, 4 if branch == "cond" else 5]]),
        "input_img_latents": [],
        "input_image_sizes": {},
        "attention_mask": torch.ones(1, length, length),
        "position_ids": torch.arange(length).reshape(1, length),
    }


def _qwen21(step: int, branch: str) -> dict[str, object]:
    return {
        "hidden_states": latent(step, 1, 16, 4),
        "encoder_hidden_states": text(branch, 1, 5, 8),
        "encoder_hidden_states_mask": torch.ones(1, 5, dtype=torch.bool),
        "img_shapes": [[(1, 4, 4)]],
        "img_mask": torch.arange(5 + 16 // 4).reshape(1, -1) >= 5,
    }


def _cosmos3(step: int, branch: str) -> dict[str, object]:
    words, patches = 4, 16
    total = words + patches
    return {
        "input_ids": torch.tensor([1, 2, 3, 4 if branch == "cond" else 5]),
        "text_indexes": torch.arange(words),
        "position_ids": torch.arange(total).expand(3, total),
        "und_len": words,
        "sequence_length": total,
        "vision_tokens": [latent(step, 1, 4, 1, 8, 8)],
        "vision_token_shapes": [(1, 4, 4)],
        "vision_sequence_indexes": torch.arange(words, total),
        "vision_mse_loss_indexes": torch.arange(words, total),
        "vision_noisy_frame_indexes": [torch.tensor([0])],
    }


def _minimax(step: int, branch: str) -> dict[str, object]:
    video, audio, words = 4, 2, 3
    total = video + audio + words
    rows = torch.arange(total)
    return {
        "hidden_states": latent(step, 1, video, 16),
        "audio_hidden_states": latent(step, 1, audio, 4),
        "encoder_hidden_states": text(branch, 1, words, 8),
        "timestep_indices": torch.zeros(total, dtype=torch.long),
        "token_tags": torch.tensor([1] * video + [2] * audio + [0] * words),
        "position_ids": rows.reshape(-1, 1).expand(total, 3).clone(),
        "video_indices": rows[:video],
        "audio_indices": rows[video : video + audio],
        "text_indices": rows[video + audio :],
    }


CASES: dict[str, Case] = {
    "AuraFlowTransformer2DModel": Case(
        {
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "num_mmdit_layers": 2,
            "num_single_dit_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 8,
            "caption_projection_dim": 16,
            "pos_embed_max_size": 64,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 8, 8),
            "encoder_hidden_states": text(branch, 1, 5, 8),
        },
        unit,
    ),
    "HiDreamImageTransformer2DModel": Case(
        {
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "num_single_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "caption_channels": [8, 8],
            "text_emb_dim": 8,
            "num_routed_experts": 2,
            "num_activated_experts": 1,
            "axes_dims_rope": (4, 2, 2),
            "max_resolution": (8, 8),
            "llama_layers": [0, 1, 0, 1],
            "force_inference_output": True,
        },
        _hidream,
    ),
    "Lumina2Transformer2DModel": Case(
        {
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "hidden_size": 24,
            "num_layers": 3,
            "num_refiner_layers": 1,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "multiple_of": 2,
            "axes_dim_rope": (4, 4, 4),
            "axes_lens": (32, 32, 32),
            "cap_feat_dim": 8,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 8, 8),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "encoder_attention_mask": torch.ones(1, 5, dtype=torch.bool),
        },
        lambda sigma: torch.tensor([1 - sigma]),
    ),
    "LuminaNextDiT2DModel": Case(
        {
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "hidden_size": 32,
            "num_layers": 3,
            "num_attention_heads": 2,
            "num_kv_heads": 2,
            "multiple_of": 2,
            "cross_attention_dim": 8,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 8, 8),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "encoder_mask": torch.ones(1, 5),
            "image_rotary_emb": get_2d_rotary_pos_embed_lumina(16, 4, 4),
            "cross_attention_kwargs": {},
        },
        lambda sigma: torch.tensor([1 - sigma]),
    ),
    "OmniGenTransformer2DModel": Case(
        {
            "in_channels": 4,
            "patch_size": 2,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 16,
            "num_layers": 3,
            "pad_token_id": 0,
            "vocab_size": 8,
            "max_position_embeddings": 64,
            "original_max_position_embeddings": 64,
            "pos_embed_max_size": 8,
            "time_step_dim": 8,
            "rope_scaling": {"long_factor": [1.0] * 4, "short_factor": [1.0] * 4},
        },
        _omnigen,
        lambda sigma: torch.tensor([1 - sigma]),
    ),
    "ZImageTransformer2DModel": Case(
        {
            "in_channels": 4,
            "dim": 16,
            "n_layers": 3,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 8,
            "axes_dims": [2, 2, 4],
            "axes_lens": [64, 64, 64],
        },
        lambda step, branch: {"x": [latent(step, 4, 1, 8, 8)], "cap_feats": [text(branch, 5, 8)]},
        lambda sigma: torch.tensor([1 - sigma]),
    ),
    "QwenImage21Transformer2DModel": Case(
        {
            "patch_size": 1,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 3,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "context_in_dim": 8,
            "axes_dims_rope": (8, 4, 4),
        },
        _qwen21,
        unit,
    ),
    "MiniMaxH3Transformer3DModel": Case(
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "hidden_size": 32,
            "num_layers": 3,
            "num_refiner_layers": 1,
            "ffn_dim": 16,
            "in_channels": 4,
            "audio_in_channels": 4,
            "text_dim": 8,
            "freq_dim": 16,
            "time_embed_hidden_dim": 16,
            "time_embed_dim": 16,
            "rope_freq_dim": 2,
        },
        _minimax,
        tokens=9,
    ),
    "Cosmos3OmniTransformer": Case(
        {
            "head_dim": 8,
            "hidden_size": 16,
            "intermediate_size": 16,
            "latent_channel": 4,
            "latent_patch_size": 2,
            "num_attention_heads": 2,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "patch_latent_dim": 16,
            "vocab_size": 8,
            "dtype": "float32",
            "rope_axes_dim": [2, 1, 1],
        },
        _cosmos3,
        lambda sigma: torch.full((16,), 1000.0 * sigma),
    ),
}
