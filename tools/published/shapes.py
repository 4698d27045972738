"""Sequence length of each calibration: tokens of the generated stream, from resolution, frames, VAE and patch factors.

length = latent frames / patch_t · (height / vae_spatial / patch_h) · (width / vae_spatial / patch_w)
with latent frames = (frames − 1) / vae_temporal + 1 for VAEs that keep the first frame, rounded up to a multiple of patch_t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """What one family does to pixels before its blocks see them.

    Attributes:
        spatial, temporal: compression of the VAE; temporal is 1 for images.
        patch: (t, h, w) latent cells in one token.
        source: where these factors can be read.
    """

    spatial: int
    temporal: int
    patch: tuple[int, int, int]
    source: str

    def tokens(self, frames: int, height: int, width: int) -> int:
        """Sequence length; every factor of the published shapes divides its size."""
        latent = (frames - 1) // self.temporal + 1
        rows, columns = self.spatial * self.patch[1], self.spatial * self.patch[2]
        if (frames - 1) % self.temporal or height % rows or width % columns:
            raise ValueError(f"{frames}×{height}×{width} does not divide by {self}")
        return math.ceil(latent / self.patch[0]) * (height // rows) * (width // columns)

    def formula(self, frames: int, height: int, width: int) -> str:
        """The computation in words and numbers, for the record."""
        latent = (frames - 1) // self.temporal + 1
        steps = math.ceil(latent / self.patch[0])
        rows, columns = height // (self.spatial * self.patch[1]), width // (self.spatial * self.patch[2])
        time = "" if frames == 1 else f"(({frames} − 1)/{self.temporal} + 1) = {latent} latent frames"
        if self.patch[0] > 1:
            time += f", {self.patch[0]} to a token rounded up: {steps}"
        by = f"/{self.spatial}" + "".join(f"/{patch}" for patch in {*self.patch[1:]} - {1})
        space = f"{height}{by} × {width}{by} = {rows} × {columns}"
        total = self.tokens(frames, height, width)
        return f"{time + '; ' if time else ''}{space}; {total:,} tokens. Factors: {self.source}."


def _defaults(transformer: str, vae: str) -> str:
    return f"defaults of diffusers' {transformer} and {vae}"


WAN = Geometry(8, 4, (1, 2, 2), _defaults("WanTransformer3DModel", "AutoencoderKLWan"))
WAN_TI2V = Geometry(
    16, 4, (1, 2, 2), "diffusers' WanTransformer3DModel; the 16×16×4 VAE of Wan2.2-TI2V-5B (Wan-Video/Wan2.2 README)"
)
HUNYUAN = Geometry(8, 4, (1, 2, 2), _defaults("HunyuanVideoTransformer3DModel", "AutoencoderKLHunyuanVideo"))
_PACKED_IMAGE = "8× VAE and 2 × 2 latents packed into one token (diffusers' FluxPipeline and its descendants)"
FLUX = Geometry(8, 1, (1, 2, 2), _PACKED_IMAGE)
_COGVIDEOX15 = Geometry(
    8, 4, (2, 2, 2), "diffusers' CogVideoXPipeline, which pads the latent frames to a multiple of patch_size_t = 2"
)
_LTX = Geometry(32, 8, (1, 1, 1), _defaults("LTXVideoTransformer3DModel", "LTXPipeline (32 × 32 × 8 compression)"))
_MOCHI = Geometry(
    8, 6, (1, 2, 2), _defaults("MochiTransformer3DModel", "AutoencoderKLMochi (temporal expansions 1·2·3)")
)
_OPEN_SORA_PLAN = Geometry(8, 4, (1, 2, 2), "Open-Sora-Plan v1.1.0: CausalVAE 4×8×8, Latte-style 2 × 2 patches")
_COSMOS25 = Geometry(
    8, 4, (1, 2, 2), "diffusers' CosmosTransformer3DModel with the Wan2.1 VAE (Cosmos2_5_PredictBasePipeline)"
)
Z_IMAGE = Geometry(8, 1, (1, 2, 2), "diffusers' ZImageTransformer2DModel (patch 2) and ZImagePipeline (8× VAE)")
QWEN = Geometry(8, 1, (1, 2, 2), _defaults("QwenImagePipeline", "AutoencoderKLQwenImage (three spatial halvings)"))

# id → (geometry, frames, height, width), for every calibration whose facts give the whole shape.
SHAPES: dict[str, tuple[Geometry, int, int, int]] = {
    **{f"wan2.1-t2v-1.3b-{mode}": (WAN, 81, 480, 832) for mode in ("default", "ret")},
    **{f"wan2.1-t2v-14b-{mode}": (WAN, 81, 720, 1280) for mode in ("default", "ret")},
    **{f"wan2.1-i2v-14b-480p-{mode}": (WAN, 81, 480, 832) for mode in ("default", "ret")},
    **{f"wan2.1-i2v-14b-720p-{mode}": (WAN, 81, 720, 1280) for mode in ("default", "ret")},
    "wan2.2-ti2v-5b-lightx2v": (WAN_TI2V, 121, 704, 1280),
    "hunyuanvideo-t2v": (HUNYUAN, 129, 720, 1280),
    "flux.1-krea-dev": (FLUX, 1, 512, 512),
    "cogvideox1.5-5b": (_COGVIDEOX15, 81, 768, 1360),
    "cogvideox1.5-5b-i2v": (_COGVIDEOX15, 81, 768, 1360),
    "cosmos-predict2.5": (_COSMOS25, 93, 704, 1280),
    "ltx-video-0.9.1": (_LTX, 161, 512, 768),
    "mochi-1-preview": (_MOCHI, 163, 480, 848),
    "open-sora-plan-1.1": (_OPEN_SORA_PLAN, 65, 512, 512),
    "qwen-image-mlx": (QWEN, 1, 768, 768),
    "qwen-image-2512-mlx": (QWEN, 1, 768, 768),
    "z-image-base-mlx": (Z_IMAGE, 1, 512, 512),
    "flux.2-klein-4b-mlx": (FLUX, 1, 512, 512),
    "flux.2-klein-9b-mlx": (FLUX, 1, 512, 512),
    "flux.2-klein-base-4b-mlx": (FLUX, 1, 512, 512),
}

# (frames, height, width) as far as the facts give them, where they do not give all three.
PARTIAL: dict[str, tuple[int | None, int | None, int | None]] = {
    **{f"hunyuanvideo-1.5-{name}": (121, None, None) for name in ("t2v-480p", "t2v-720p", "i2v-480p", "i2v-720p")},
    "cogvideox-2b": (49, None, None),
    "cogvideox-5b": (49, None, None),
    "open-sora-1.2": (51, None, None),
    "latte-1": (16, None, None),
    "easyanimate-v5.1-7b": (None, 384, 672),
    "easyanimate-v5.1-12b": (None, 384, 672),
    "boogu-image-sglang-fork": (1, 1024, 1024),
    "hunyuanimage3-vllm-omni": (1, 1024, 1024),
    "minimax-h3-fl2va": (107, 256, 448),
    "anima-watayuki": (1, 1216, 896),
    "ltx-2-stage1-euler-mlx": (97, 480, 704),
    "ltx-2-stage1-res2s-mlx": (65, 384, 576),
}

# Remarks that belong to a length that is known.
REMARKS = {
    "wan2.1-i2v-14b-720p-default": "The source's README example for this model generates 61 frames instead of 81.",
    "wan2.1-i2v-14b-720p-ret": "The source's README example for this model generates 61 frames instead of 81.",
    "hunyuanvideo-t2v": "The source uses the same numbers at 540p.",
    "cogvideox1.5-5b": "The latent frame of padding is counted.",
    "cogvideox1.5-5b-i2v": "The latent frame of padding is counted.",
}

# Why the length is not known although the facts give part of the shape.
UNKNOWN = {
    "hunyuanvideo-1.5-t2v-480p": "480p and 121 frames; the width is not stated.",
    "hunyuanvideo-1.5-t2v-720p": "720p and 121 frames; the width is not stated.",
    "hunyuanvideo-1.5-i2v-480p": "480p and 121 frames; the width is not stated.",
    "hunyuanvideo-1.5-i2v-720p": "720p and 121 frames; the width is not stated.",
    "cogvideox-2b": "49 frames; the resolution is not stated.",
    "cogvideox-5b": "49 frames; the resolution is not stated.",
    "open-sora-1.2": "480p and 51 frames; the width is not stated.",
    "latte-1": "16 frames; the resolution is not stated.",
    "easyanimate-v5.1-7b": "384 × 672 pixels; the number of frames is not stated.",
    "easyanimate-v5.1-12b": "384 × 672 pixels; the number of frames is not stated.",
    "ruyi-mini-7b": "About 512 × 512 pixels; the number of frames is not stated.",
    "boogu-image-sglang-fork": "1024 × 1024 pixels; the model's patch and VAE factors could not be confirmed.",
    "hunyuanimage3-vllm-omni": "1024 × 1024 pixels; text and image share one sequence and its image part could not be confirmed.",
    "minimax-h3-fl2va": "107 frames of 256 × 448 pixels; video and audio are packed into one sequence of unconfirmed layout.",
    "anima-watayuki": "896 × 1216 pixels; the model's patch and VAE factors could not be confirmed.",
    "ltx-2-stage1-euler-mlx": "97 frames of 480 × 704 pixels after both stages; the size of stage 1 is not stated.",
    "ltx-2-stage1-res2s-mlx": "65 frames of 384 × 576 pixels after both stages; the size of stage 1 is not stated.",
}
NOT_STATED = "The source does not say at which resolution these numbers hold."


def shape(identity: str, modality: str) -> tuple[int | None, int | None, int | None]:
    """(frames, height, width), each None where the source does not say; images have one frame."""
    if identity in SHAPES:
        return SHAPES[identity][1:]
    return PARTIAL.get(identity, (1 if modality == "image" else None, None, None))


def describe(identity: str) -> tuple[int | None, str]:
    """(sequence length or None, where it comes from) of one calibration."""
    if identity not in SHAPES:
        return None, UNKNOWN.get(identity, NOT_STATED)
    geometry, frames, height, width = SHAPES[identity]
    text = geometry.formula(frames, height, width)
    remark = REMARKS.get(identity)
    return geometry.tokens(frames, height, width), text if remark is None else f"{text} {remark}"
