"""Whole diffusers pipelines from tiny real components with random weights: no download, a few milliseconds a step."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

WORDS = ("<pad>", "</s>", "<unk>", "a", "red", "fox", "blue", "boat", "no")


def tokenizer(length: int = 16) -> PreTrainedTokenizerFast:
    """A word tokenizer of nine words."""
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        eos_token="</s>",
        bos_token="</s>",
        unk_token="<unk>",
        model_max_length=length,
    )


def t5(width: int = 8) -> T5EncoderModel:
    """A one-layer text encoder giving ``(B, L, width)``."""
    config = T5Config(vocab_size=len(WORDS), d_model=width, d_kv=4, num_heads=2, d_ff=16, num_layers=1)
    return seeded(T5EncoderModel, config)


def clip(width: int = 8) -> CLIPTextModel:
    """A one-layer CLIP text encoder of hidden size ``width``."""
    config = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        eos_token_id=1,
    )
    return seeded(CLIPTextModel, config)


def seeded(kind: Any, *args: Any, **kwargs: Any) -> Any:
    """An instance whose random weights are the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(*args, **kwargs).eval()


def vae() -> AutoencoderKL:
    """An image autoencoder with one level: latents as large as the image."""
    return seeded(
        AutoencoderKL,
        block_out_channels=(4,),
        norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        latent_channels=4,
        sample_size=16,
        shift_factor=0.0,
        scaling_factor=1.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def wan_vae() -> AutoencoderKLWan:
    """Wan's own video autoencoder, four levels of a few channels."""
    return seeded(AutoencoderKLWan, base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


def flow_matching(**config: Any) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler most flow-matching pipelines use."""
    return FlowMatchEulerDiscreteScheduler(shift=3.0, **config)


def wan_transformer() -> Any:
    """Three blocks of Wan."""
    return seeded(
        diffusers.WanTransformer3DModel,
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=8,
        freq_dim=16,
        ffn_dim=32,
        num_layers=3,
        rope_max_seq_len=32,
    )


def flux_transformer() -> Any:
    """Two dual-stream and two single-stream blocks of FLUX."""
    return seeded(
        diffusers.FluxTransformer2DModel,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 4, 8),
    )


def wan() -> Any:
    """Wan text-to-video."""
    return _quiet(
        diffusers.WanPipeline(
            tokenizer=tokenizer(),
            text_encoder=t5(),
            vae=wan_vae(),
            scheduler=flow_matching(),
            transformer=wan_transformer(),
        )
    )


def flux() -> Any:
    """FLUX text-to-image."""
    return _quiet(
        diffusers.FluxPipeline(
            scheduler=flow_matching(),
            vae=vae(),
            text_encoder=clip(),
            tokenizer=tokenizer(),
            text_encoder_2=t5(),
            tokenizer_2=tokenizer(),
            transformer=flux_transformer(),
        )
    )


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


#: How each pipeline is called, and what its result is called.
CALLS: dict[str, dict[str, Any]] = {
    "wan": {"prompt": "a red fox", "negative_prompt": "no boat", "height": 32, "width": 32, "num_frames": 5},
    "flux": {"prompt": "a red fox", "negative_prompt": "no boat", "true_cfg_scale": 3.0, "height": 16, "width": 16},
}
PIPELINES = {"wan": wan, "flux": flux}


def sample(pipe: Any, name: str, *, steps: int = 6, seed: int = 0, **changes: Any) -> torch.Tensor:
    """One sample as latents, from a fixed seed."""
    call = {**CALLS[name], "num_inference_steps": steps, "output_type": "latent", "max_sequence_length": 16, **changes}
    result = pipe(generator=torch.Generator().manual_seed(seed), **call)
    return result[0] if not hasattr(result, "keys") else next(iter(result.values()))
