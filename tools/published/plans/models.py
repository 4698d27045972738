"""The models that published plans and presets are of: their names, classes, repositories, and how pixels become tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from published import aliases
from published.shapes import FLUX, HUNYUAN, QWEN, WAN, WAN_TI2V, Z_IMAGE, Geometry

Modality = Literal["image", "video", "audio", "video-audio", "multimodal"]


@dataclass(frozen=True)
class Model:
    """One model.

    Attributes:
        title: its name as people write it.
        modality: what it generates.
        class_name: its transformer's class in diffusers; None where diffusers has none.
        checkpoints: its Hub repositories, the one that plans were made with first; those of models with a record of their own are
            in ``aliases``.
        geometry: what it does to pixels before its blocks see them; None where that is not known for certain.
    """

    title: str
    modality: Modality
    class_name: str | None
    checkpoints: tuple[str, ...] = ()
    geometry: Geometry | None = None

    def repositories(self, key: str) -> tuple[str, ...]:
        """Its Hub repositories, for a model key."""
        return self.checkpoints or aliases.SAME_CHECKPOINT.get(key, ())


_HUNYUAN15 = Geometry(
    16, 4, (1, 1, 1), "defaults of diffusers' HunyuanVideo15Transformer3DModel and AutoencoderKLHunyuanVideo15"
)
_HUNYUAN_IMAGE = Geometry(32, 1, (1, 1, 1), "diffusers' HunyuanImagePipeline (32× VAE) and its checkpoint's patch of 1")
_QWEN21 = Geometry(
    16,
    1,
    (1, 1, 1),
    "diffusers' QwenImage21Pipeline (16× VAE); the noise levels that SGLang prints follow from as many tokens",
)
_WAN_CLASS, _FLUX_CLASS, _QWEN_CLASS = "WanTransformer3DModel", "FluxTransformer2DModel", "QwenImageTransformer2DModel"

MODELS: dict[str, Model] = {
    "anima": Model("Anima", "image", "CosmosTransformer3DModel"),
    "cogvideox/2b": Model("CogVideoX 2B", "video", "CogVideoXTransformer3DModel"),
    "cosmos3": Model("Cosmos 3", "multimodal", "Cosmos3OmniTransformer"),
    "dit/xl-2-256": Model("DiT-XL/2, 256 × 256", "image", "DiTTransformer2DModel", ("facebook/DiT-XL-2-256",)),
    "dreamzero": Model("DreamZero", "video", None),
    "flux.1/dev": Model("FLUX.1 [dev]", "image", _FLUX_CLASS, geometry=FLUX),
    "flux.1/kontext-dev": Model("FLUX.1 Kontext [dev]", "image", _FLUX_CLASS, geometry=FLUX),
    "flux.2/dev": Model(
        "FLUX.2 [dev]", "image", "Flux2Transformer2DModel", ("black-forest-labs/FLUX.2-dev",), geometry=FLUX
    ),
    "flux.2/klein-4b": Model("FLUX.2 [klein] 4B", "image", "Flux2Transformer2DModel", geometry=FLUX),
    "flux.2/klein-9b": Model("FLUX.2 [klein] 9B", "image", "Flux2Transformer2DModel", geometry=FLUX),
    "flux.2/klein-base-4b": Model("FLUX.2 [klein] base 4B", "image", "Flux2Transformer2DModel", geometry=FLUX),
    "framepack": Model(
        "FramePack", "video", "HunyuanVideoFramepackTransformer3DModel", ("lllyasviel/FramePackI2V_HY",)
    ),
    "framepack/f1": Model(
        "FramePack F1",
        "video",
        "HunyuanVideoFramepackTransformer3DModel",
        ("lllyasviel/FramePack_F1_I2V_HY_20250503",),
    ),
    "hidream-i1/full": Model("HiDream-I1 Full", "image", "HiDreamImageTransformer2DModel"),
    "hunyuan-image/2.1": Model(
        "HunyuanImage 2.1",
        "image",
        "HunyuanImageTransformer2DModel",
        ("tencent/HunyuanImage-2.1", "hunyuanvideo-community/HunyuanImage-2.1-Diffusers"),
        geometry=_HUNYUAN_IMAGE,
    ),
    "hunyuanvideo-1.5/i2v-720p": Model(
        "HunyuanVideo-1.5 I2V 720p", "video", "HunyuanVideo15Transformer3DModel", geometry=_HUNYUAN15
    ),
    "hunyuanvideo-1.5/t2v-720p": Model(
        "HunyuanVideo-1.5 T2V 720p", "video", "HunyuanVideo15Transformer3DModel", geometry=_HUNYUAN15
    ),
    "hunyuanvideo/t2v": Model("HunyuanVideo T2V", "video", "HunyuanVideoTransformer3DModel", geometry=HUNYUAN),
    "latte/1": Model("Latte-1", "video", "LatteTransformer3DModel"),
    "ltx-2": Model("LTX-2", "video-audio", "LTX2VideoTransformer3DModel", ("Lightricks/LTX-2",)),
    "minimax-h3/fl2va": Model("MiniMax-H3 FL2VA", "video-audio", "MiniMaxH3Transformer3DModel"),
    "open-sora-plan/v1.1.0-65x512x512": Model("Open-Sora-Plan 1.1, 65 × 512 × 512", "video", None),
    "open-sora-plan/v1.2.0": Model("Open-Sora-Plan 1.2", "video", None, ("LanguageBind/Open-Sora-Plan-v1.2.0",)),
    "open-sora/1.2": Model("Open-Sora 1.2", "video", None),
    "qwen-image": Model("Qwen-Image", "image", _QWEN_CLASS, geometry=QWEN),
    "qwen-image/2.1": Model(
        "Qwen-Image-2.1", "image", "QwenImage21Transformer2DModel", ("Qwen/Qwen-Image-2.1",), geometry=_QWEN21
    ),
    "qwen-image/2512": Model("Qwen-Image-2512", "image", _QWEN_CLASS, geometry=QWEN),
    "qwen-image/edit-2511": Model("Qwen-Image-Edit-2511", "image", _QWEN_CLASS, ("Qwen/Qwen-Image-Edit-2511",)),
    "qwen-image/lightning-4step": Model(
        "Qwen-Image-Lightning, 4 steps", "image", _QWEN_CLASS, ("lightx2v/Qwen-Image-Lightning",)
    ),
    "sd3.5/large": Model(
        "Stable Diffusion 3.5 Large",
        "image",
        "SD3Transformer2DModel",
        ("stabilityai/stable-diffusion-3.5-large",),
        FLUX,
    ),
    "vchitect-2.0": Model("Vchitect 2.0", "video", None, ("Vchitect/Vchitect-2.0-2B",)),
    "wan2.1/i2v-14b-480p": Model("Wan2.1 I2V 14B 480P", "video", _WAN_CLASS, geometry=WAN),
    "wan2.1/i2v-14b-720p": Model("Wan2.1 I2V 14B 720P", "video", _WAN_CLASS, geometry=WAN),
    "wan2.1/t2v-1.3b": Model("Wan2.1 T2V 1.3B", "video", _WAN_CLASS, geometry=WAN),
    "wan2.1/t2v-14b": Model("Wan2.1 T2V 14B", "video", _WAN_CLASS, geometry=WAN),
    "wan2.2/i2v-a14b": Model(
        "Wan2.2 I2V A14B",
        "video",
        _WAN_CLASS,
        ("Wan-AI/Wan2.2-I2V-A14B", "Wan-AI/Wan2.2-I2V-A14B-Diffusers"),
        geometry=WAN,
    ),
    "wan2.2/t2v-a14b": Model(
        "Wan2.2 T2V A14B",
        "video",
        _WAN_CLASS,
        ("Wan-AI/Wan2.2-T2V-A14B", "Wan-AI/Wan2.2-T2V-A14B-Diffusers"),
        geometry=WAN,
    ),
    "wan2.2/ti2v-5b": Model("Wan2.2 TI2V 5B", "video", _WAN_CLASS, geometry=WAN_TI2V),
    "z-image/base": Model("Z-Image", "image", "ZImageTransformer2DModel", geometry=Z_IMAGE),
    "z-image/turbo": Model(
        "Z-Image-Turbo", "image", "ZImageTransformer2DModel", ("Tongyi-MAI/Z-Image-Turbo",), geometry=Z_IMAGE
    ),
}
