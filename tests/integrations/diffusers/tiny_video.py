"""Tiny video and audio transformers."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from tiny_case import Case, latent, text

WAN: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 8,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 3,
    "rope_max_seq_len": 32,
}


def _wan(step: int, branch: str) -> dict[str, Any]:
    return {"hidden_states": latent(step, 1, 4, 1, 8, 8), "encoder_hidden_states": text(branch, 1, 5, 8)}


def _vace(step: int, branch: str) -> dict[str, Any]:
    return {
        **_wan(step, branch),
        "control_hidden_states": latent(0, 1, 6, 1, 8, 8),
        "control_hidden_states_scale": torch.tensor([1.0, 0.5]),
    }


def _animate(step: int, branch: str) -> dict[str, Any]:
    return {
        "hidden_states": latent(step, 1, 12, 3, 8, 8),
        "encoder_hidden_states": text(branch, 1, 5, 8),
        "pose_hidden_states": text("pose", 1, 4, 2, 8, 8),
        "face_pixel_values": text("face", 1, 3, 5, 16, 16),
    }


def _hunyuan(step: int, branch: str) -> dict[str, Any]:
    return {
        "hidden_states": latent(step, 1, 4, 1, 8, 8),
        "encoder_hidden_states": text(branch, 1, 5, 8),
        "encoder_attention_mask": torch.ones(1, 5),
        "pooled_projections": text(branch, 1, 8),
    }


HUNYUAN: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "patch_size": 2,
    "text_embed_dim": 8,
    "rope_axes_dim": (2, 2, 4),
}
HUNYUAN_VIDEO = {**HUNYUAN, "pooled_projection_dim": 8, "guidance_embeds": False}


def _ltx(step: int, branch: str) -> dict[str, Any]:
    return {
        "hidden_states": latent(step, 1, 16, 4),
        "encoder_hidden_states": text(branch, 1, 5, 8),
        "encoder_attention_mask": torch.ones(1, 5),
        "num_frames": 1,
        "height": 4,
        "width": 4,
    }


LTX: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 16,
    "num_layers": 3,
    "caption_channels": 8,
}
LTX2: dict[str, Any] = {
    **LTX,
    "audio_in_channels": 4,
    "audio_out_channels": 4,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 4,
    "audio_cross_attention_dim": 8,
}


def _ltx2(step: int, branch: str) -> dict[str, Any]:
    return {
        **_ltx(step, branch),
        "audio_hidden_states": latent(step, 1, 3, 4),
        "audio_encoder_hidden_states": text(branch, 1, 5, 8),
        "audio_encoder_attention_mask": torch.ones(1, 5),
        "audio_num_frames": 3,
    }


def _kandinsky(step: int, branch: str) -> dict[str, Any]:
    return {
        "hidden_states": latent(step, 1, 1, 8, 8, 4),
        "encoder_hidden_states": text(branch, 1, 5, 8),
        "pooled_projections": text(branch, 1, 8),
    }


KANDINSKY: dict[str, Any] = {
    "in_visual_dim": 4,
    "out_visual_dim": 4,
    "in_text_dim": 8,
    "in_text_dim2": 8,
    "time_dim": 8,
    "model_dim": 16,
    "ff_dim": 16,
    "num_text_blocks": 1,
    "num_visual_blocks": 3,
    "axes_dims": (4, 2, 2),
}

CASES: dict[str, Case] = {
    "WanTransformer3DModel": Case(WAN, _wan),
    "ChronoEditTransformer3DModel": Case(WAN, _wan),
    "SkyReelsV2Transformer3DModel": Case(WAN, _wan),
    "WanVACETransformer3DModel": Case({**WAN, "vace_layers": [0, 1], "vace_in_channels": 6}, _vace),
    "WanAnimateTransformer3DModel": Case(
        {
            **WAN,
            "num_layers": 4,
            "in_channels": 12,
            "latent_channels": 4,
            "image_dim": None,
            "motion_encoder_channel_sizes": {"4": 4, "8": 4, "16": 4},
            "motion_encoder_size": 16,
            "motion_style_dim": 8,
            "motion_dim": 4,
            "motion_encoder_dim": 8,
            "face_encoder_hidden_dim": 8,
            "face_encoder_num_heads": 2,
            "inject_face_latents_blocks": 2,
        },
        _animate,
        tokens=48,
    ),
    "HeliosTransformer3DModel": Case(
        {
            **{key: value for key, value in WAN.items() if key != "rope_max_seq_len"},
            "rope_dim": (4, 4, 4),
            "has_multi_term_memory_patch": False,
            "zero_history_timestep": False,
            "guidance_cross_attn": False,
        },
        _wan,
    ),
    "HunyuanVideoTransformer3DModel": Case(HUNYUAN_VIDEO, _hunyuan),
    "HunyuanVideoFramepackTransformer3DModel": Case(
        {**HUNYUAN_VIDEO, "has_image_proj": True, "image_proj_dim": 8, "has_clean_x_embedder": True},
        lambda step, branch: {
            **_hunyuan(step, branch),
            "image_embeds": text("image", 1, 3, 8),
            "indices_latents": torch.tensor([2]),
            "latents_clean": latent(0, 1, 4, 2, 8, 8),
            "indices_latents_clean": torch.tensor([0, 1]),
            "latents_history_2x": latent(0, 1, 4, 2, 8, 8),
            "indices_latents_history_2x": torch.tensor([3, 4]),
            "latents_history_4x": latent(0, 1, 4, 4, 8, 8),
            "indices_latents_history_4x": torch.tensor([5, 6, 7, 8]),
        },
    ),
    "HunyuanVideo15Transformer3DModel": Case(
        {
            **{key: value for key, value in HUNYUAN.items() if key != "num_single_layers"},
            "text_embed_2_dim": 8,
            "image_embed_dim": 8,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 1, 8, 8),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "encoder_attention_mask": torch.ones(1, 5),
            "encoder_hidden_states_2": text(branch + "2", 1, 3, 8),
            "encoder_attention_mask_2": torch.ones(1, 3),
            "image_embeds": text("image", 1, 2, 8),
        },
    ),
    "MotifVideoTransformer3DModel": Case(
        {
            **{key: value for key, value in HUNYUAN.items() if key != "num_refiner_layers"},
            "num_single_layers": 3,
            "num_decoder_layers": 1,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 1, 8, 8),
            "encoder_hidden_states": text(branch, 1, 5, 8),
        },
    ),
    "CogVideoXTransformer3DModel": Case(
        {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 8,
            "text_embed_dim": 8,
            "num_layers": 3,
            "sample_width": 8,
            "sample_height": 8,
            "sample_frames": 1,
            "max_text_seq_length": 5,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 1, 4, 8, 8),
            "encoder_hidden_states": text(branch, 1, 5, 8),
        },
    ),
    "EasyAnimateTransformer3DModel": Case(
        {
            "num_attention_heads": 2,
            # One multi-modal block and two that share their text and image layers.
            "attention_head_dim": 16,
            "in_channels": 4,
            "out_channels": 4,
            "patch_size": 2,
            "sample_width": 8,
            "sample_height": 8,
            "num_layers": 3,
            "mmdit_layers": 1,
            "time_embed_dim": 8,
            "text_embed_dim": 8,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 1, 8, 8),
            "encoder_hidden_states": text(branch, 1, 5, 8),
        },
    ),
    "MochiTransformer3DModel": Case(
        {
            "patch_size": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 3,
            "pooled_projection_dim": 8,
            "in_channels": 4,
            "text_embed_dim": 8,
            "time_embed_dim": 8,
            "max_sequence_length": 5,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 1, 8, 8),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "encoder_attention_mask": torch.ones(1, 5, dtype=torch.bool),
        },
    ),
    "LTXVideoTransformer3DModel": Case(LTX, _ltx),
    "LTX2VideoTransformer3DModel": Case(LTX2, _ltx2),
    "SanaWMLTX2RefinerTransformer3DModel": Case(
        LTX2,
        lambda step, branch: {
            "hidden_states": latent(step, 1, 16, 4),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "video_rotary_emb": (torch.ones(1, 16, 16), torch.zeros(1, 16, 16)),
        },
    ),
    "AllegroTransformer3DModel": Case(
        {
            "patch_size": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 24,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 3,
            "cross_attention_dim": 48,
            "sample_width": 8,
            "sample_height": 8,
            "sample_frames": 1,
            "caption_channels": 8,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 1, 8, 8),
            "encoder_hidden_states": text(branch, 1, 1, 5, 8),
        },
    ),
    "LatteTransformer3DModel": Case(
        {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 2,
            "cross_attention_dim": 16,
            "attention_bias": True,
            "sample_size": 8,
            "patch_size": 2,
            "activation_fn": "gelu-approximate",
            "num_embeds_ada_norm": 1000,
            "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
            "caption_channels": 8,
            "video_length": 3,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 2, 4, 3, 8, 8),
            "encoder_hidden_states": text(branch, 2, 5, 8),
        },
        time=lambda sigma: torch.full((2,), 1000.0 * sigma),
        tokens=48,
    ),
    "CosmosTransformer3DModel": Case(
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 3,
            "text_embed_dim": 8,
            "adaln_lora_dim": 4,
            "max_size": (4, 8, 8),
            "patch_size": (1, 2, 2),
            # Resizing the mask takes torchvision.
            "concat_padding_mask": False,
        },
        lambda step, branch: {**_wan(step, branch), "fps": 8},
    ),
    "Kandinsky5Transformer3DModel": Case(
        KANDINSKY,
        lambda step, branch: {
            **_kandinsky(step, branch),
            "visual_rope_pos": [torch.arange(1), torch.arange(4), torch.arange(4)],
            "text_rope_pos": torch.arange(5),
        },
    ),
    "Kandinsky6Transformer3DModel": Case(
        {**KANDINSKY, "in_audio_dim": 4, "out_audio_dim": 4, "visual_cond": False},
        lambda step, branch: {
            "hidden_states": latent(step, 1, 1, 8, 8, 4),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "pooled_projections": text(branch, 1, 8),
            "audio_hidden_states": latent(step, 1, 3, 4),
        },
    ),
    "StableAudioDiTModel": Case(
        {
            "sample_size": 16,
            "in_channels": 4,
            "num_layers": 3,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "num_key_value_attention_heads": 1,
            "out_channels": 4,
            "cross_attention_dim": 8,
            "time_proj_dim": 8,
            "global_states_input_dim": 8,
            "cross_attention_input_dim": 8,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 4, 16),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "global_hidden_states": text(branch, 1, 1, 8),
            "rotary_embedding": get_1d_rotary_pos_embed(4, 17, use_real=True, repeat_interleave_real=False),
        },
    ),
    "AceStepTransformer1DModel": Case(
        {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "in_channels": 12,
            "audio_acoustic_hidden_dim": 4,
            "encoder_hidden_size": 8,
            "sliding_window": 4,
        },
        lambda step, branch: {
            "hidden_states": latent(step, 1, 32, 4),
            "timestep_r": torch.tensor([0.0]),
            "encoder_hidden_states": text(branch, 1, 5, 8),
            "context_latents": text("context", 1, 32, 8),
        },
        time=lambda sigma: torch.tensor([sigma]),
    ),
}
