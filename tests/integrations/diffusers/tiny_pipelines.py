"""Whole diffusers pipelines from tiny real components with random weights: no download, a few milliseconds a step."""

from __future__ import annotations

import copy
from typing import Any

import diffusers
import tiny_image
import tiny_joined
import tiny_video
import torch
from diffusers import AutoencoderKL, AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from tiny_case import text
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Gemma2Config,
    Gemma2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

_ONE_LAYER: dict[str, Any] = {
    "vocab_size": 9,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
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
        max_position_embeddings=77,
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


def wan_i2v() -> Any:
    """Wan image-to-video: the latent, a mask and the image's latent side by side."""
    return _quiet(
        diffusers.WanImageToVideoPipeline(
            tokenizer=tokenizer(),
            text_encoder=t5(),
            vae=wan_vae(),
            scheduler=diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
            transformer=seeded(
                diffusers.WanTransformer3DModel, **{**tiny_video.WAN, "in_channels": 36, "out_channels": 16}
            ),
        )
    )


def chroma() -> Any:
    """Chroma: guidance in two forwards without any context."""
    config = {**tiny_image.CASES["ChromaTransformer2DModel"].config, "in_channels": 16}
    transformer = seeded(diffusers.ChromaTransformer2DModel, **config)
    return _quiet(
        diffusers.ChromaPipeline(
            scheduler=flow_matching(),
            vae=vae(),
            text_encoder=t5(),
            tokenizer=tokenizer(),
            transformer=transformer,
        )
    )


def hunyuan() -> Any:
    """HunyuanVideo with its two text encoders."""
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return _quiet(
        diffusers.HunyuanVideoPipeline(
            text_encoder=seeded(LlamaModel, config),
            tokenizer=tokenizer(),
            transformer=seeded(diffusers.HunyuanVideoTransformer3DModel, **tiny_video.HUNYUAN_VIDEO),
            vae=seeded(
                diffusers.AutoencoderKLHunyuanVideo,
                latent_channels=4,
                down_block_types=("HunyuanVideoDownBlock3D",) * 4,
                up_block_types=("HunyuanVideoUpBlock3D",) * 4,
                block_out_channels=(8, 8, 8, 8),
                layers_per_block=1,
                norm_num_groups=4,
            ),
            scheduler=flow_matching(),
            text_encoder_2=clip(),
            tokenizer_2=tokenizer(),
        )
    )


def ltx() -> Any:
    """LTX-Video: both guidance branches in one batch."""
    return _quiet(
        diffusers.LTXPipeline(
            scheduler=flow_matching(),
            vae=seeded(
                diffusers.AutoencoderKLLTXVideo,
                latent_channels=4,
                block_out_channels=(8, 8, 8, 8),
                decoder_block_out_channels=(8, 8, 8, 8),
                layers_per_block=(1, 1, 1, 1, 1),
                decoder_layers_per_block=(1, 1, 1, 1, 1),
                spatio_temporal_scaling=(True, True, False, False),
                decoder_spatio_temporal_scaling=(True, True, False, False),
                decoder_inject_noise=(False, False, False, False, False),
                upsample_residual=(False, False, False, False),
                upsample_factor=(1, 1, 1, 1),
                timestep_conditioning=False,
                patch_size=1,
                patch_size_t=1,
                encoder_causal=True,
                decoder_causal=False,
            ),
            text_encoder=t5(),
            tokenizer=tokenizer(),
            transformer=seeded(diffusers.LTXVideoTransformer3DModel, **tiny_video.LTX),
        )
    )


def cogvideox() -> Any:
    """CogVideoX with its DDIM scheduler, which counts no steps."""
    return _quiet(
        diffusers.CogVideoXPipeline(
            tokenizer=tokenizer(),
            text_encoder=t5(),
            vae=seeded(
                diffusers.AutoencoderKLCogVideoX,
                down_block_types=("CogVideoXDownBlock3D",) * 4,
                up_block_types=("CogVideoXUpBlock3D",) * 4,
                block_out_channels=(8, 8, 8, 8),
                latent_channels=4,
                layers_per_block=1,
                norm_num_groups=2,
                temporal_compression_ratio=4,
            ),
            transformer=seeded(
                diffusers.CogVideoXTransformer3DModel,
                **{
                    **tiny_video.CASES["CogVideoXTransformer3DModel"].config,
                    "sample_width": 2,
                    "sample_height": 2,
                    "sample_frames": 9,
                    "max_text_seq_length": 16,
                },
            ),
            scheduler=diffusers.CogVideoXDDIMScheduler(),
        )
    )


def qwen() -> Any:
    """Qwen-Image with a vision-language text encoder."""
    rotary = {"rope_type": "default", "mrope_section": [1, 1, 0], "rope_theta": 10000.0}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(WORDS),
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            # Its names in transformers 5 and before.
            **{name: dict(rotary) for name in ("rope_parameters", "rope_scaling")},
        },
        vision_config={"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": 8},
    )
    return _quiet(
        diffusers.QwenImagePipeline(
            scheduler=flow_matching(),
            vae=seeded(
                diffusers.AutoencoderKLQwenImage,
                base_dim=4,
                z_dim=4,
                dim_mult=[1, 1, 1],
                num_res_blocks=1,
                temperal_downsample=[False, True],
                latents_mean=[0.0] * 4,
                latents_std=[1.0] * 4,
            ),
            text_encoder=seeded(Qwen2_5_VLForConditionalGeneration, config),
            tokenizer=tokenizer(),
            transformer=seeded(
                diffusers.QwenImageTransformer2DModel, **tiny_image.CASES["QwenImageTransformer2DModel"].config
            ),
        )
    )


def lumina2() -> Any:
    """Lumina-Image 2.0: text and image in one stream, both guidance branches in forwards without any context, time counted up."""
    config = Gemma2Config(**_ONE_LAYER, num_key_value_heads=1, head_dim=4)
    return _quiet(
        diffusers.Lumina2Pipeline(
            scheduler=flow_matching(),
            vae=vae(),
            text_encoder=seeded(Gemma2Model, config),
            tokenizer=tokenizer(64),
            transformer=seeded(
                diffusers.Lumina2Transformer2DModel, **tiny_joined.CASES["Lumina2Transformer2DModel"].config
            ),
        )
    )


def z_image() -> Any:
    """Z-Image: text and image in one stream, a list of samples in and out, time counted up."""
    words = tokenizer()
    words.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return _quiet(
        diffusers.ZImagePipeline(
            scheduler=flow_matching(),
            vae=vae(),
            text_encoder=seeded(Qwen3Model, Qwen3Config(**_ONE_LAYER, num_key_value_heads=1, head_dim=4)),
            tokenizer=words,
            transformer=seeded(
                diffusers.ZImageTransformer2DModel, **tiny_joined.CASES["ZImageTransformer2DModel"].config
            ),
        )
    )


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def wan_experts():
    """Wan2.2's two experts; the first has the earlier, noisier steps."""
    second = wan_transformer()
    with torch.no_grad():
        second.proj_out.weight.mul_(1.1)
    pipe = diffusers.WanPipeline(
        tokenizer=tokenizer(),
        text_encoder=t5(),
        vae=wan_vae(),
        scheduler=flow_matching(),
        transformer=wan_transformer(),
        transformer_2=second,
        boundary_ratio=0.8,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


PIPELINES = {
    "wan": wan,
    "wan_i2v": wan_i2v,
    "flux": flux,
    "chroma": chroma,
    "hunyuan": hunyuan,
    "ltx": ltx,
    "cogvideox": cogvideox,
    "qwen": qwen,
}
GUIDED: dict[str, Any] = {"prompt": "a red fox", "negative_prompt": "no boat", "max_sequence_length": 16}
VIDEO: dict[str, Any] = {"height": 32, "width": 32, "num_frames": 5}
#: How each pipeline is called.
CALLS: dict[str, dict[str, Any]] = {
    "wan": {**GUIDED, **VIDEO},
    # Its prompt cleaning takes a package that is not installed, so it is given embeddings.
    "wan_i2v": {
        **VIDEO,
        "image": torch.zeros(1, 3, 32, 32),
        "prompt_embeds": text("cond", 1, 16, 8),
        "negative_prompt_embeds": text("uncond", 1, 16, 8),
    },
    "flux": {**GUIDED, "true_cfg_scale": 3.0, "height": 16, "width": 16},
    "chroma": {**GUIDED, "height": 16, "width": 16},
    "hunyuan": {**GUIDED, **VIDEO, "true_cfg_scale": 3.0, "prompt_template": {"template": "{}", "crop_start": 0}},
    "ltx": {**GUIDED, **VIDEO, "num_frames": 9},
    "cogvideox": {**GUIDED, "height": 16, "width": 16, "num_frames": 9},
    "qwen": {**GUIDED, "true_cfg_scale": 3.0, "height": 32, "width": 32},
}


def sample(pipe: Any, name: str, *, steps: int = 6, seed: int = 0, **changes: Any) -> torch.Tensor:
    """One sample as latents, from a fixed seed."""
    call = {**CALLS[name], "num_inference_steps": steps, "output_type": "latent", **changes}
    result = pipe(generator=torch.Generator().manual_seed(seed), **call)
    return next(iter(result.values()))


def beside(pipe: Any) -> Any:
    """Another pipeline with the same transformers, for another thread: it has a scheduler of its own, and tokenizers.

    Those of transformers keep how long a text may be in the tokenizer itself: shared by threads, they now and then encode another one.
    """
    own = {name: copy.deepcopy(part) for name, part in pipe.components.items() if name.startswith("tokenizer")}
    experts = {"boundary_ratio": pipe.config.boundary_ratio} if getattr(pipe, "transformer_2", None) else {}
    scheduler = pipe.scheduler.from_config(pipe.scheduler.config)
    other = type(pipe)(**{**pipe.components, **own, **experts, "scheduler": scheduler})
    other.set_progress_bar_config(disable=True)
    return other
