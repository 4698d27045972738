"""Hub repositories of each calibrated checkpoint, beside the id the facts give.

Only ids that were found spelled so in public code or documentation (diffusers' own, or several independent projects) are
listed; a family's other sizes and versions have other weights and are left out. Keyed by model key.
"""

from __future__ import annotations

# The checkpoint itself, under its original and its diffusers-format repository.
SAME_CHECKPOINT: dict[str, tuple[str, ...]] = {
    "wan2.1/t2v-1.3b": ("Wan-AI/Wan2.1-T2V-1.3B", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
    "wan2.1/t2v-14b": ("Wan-AI/Wan2.1-T2V-14B", "Wan-AI/Wan2.1-T2V-14B-Diffusers"),
    "wan2.1/i2v-14b-480p": ("Wan-AI/Wan2.1-I2V-14B-480P", "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"),
    "wan2.1/i2v-14b-720p": ("Wan-AI/Wan2.1-I2V-14B-720P", "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers"),
    "wan2.2/ti2v-5b": ("Wan-AI/Wan2.2-TI2V-5B", "Wan-AI/Wan2.2-TI2V-5B-Diffusers"),
    "hunyuanvideo/t2v": ("tencent/HunyuanVideo", "hunyuanvideo-community/HunyuanVideo"),
    # The original repository tencent/HunyuanVideo-1.5 holds all four, so it names none of them.
    "hunyuanvideo-1.5/t2v-480p": ("hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v",),
    "hunyuanvideo-1.5/t2v-720p": ("hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_t2v",),
    "hunyuanvideo-1.5/i2v-480p": ("hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v",),
    "hunyuanvideo-1.5/i2v-720p": ("hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_i2v",),
    "flux.1/dev": ("black-forest-labs/FLUX.1-dev",),
    "flux.1/kontext-dev": ("black-forest-labs/FLUX.1-Kontext-dev",),
    "flux.1/krea-dev": ("black-forest-labs/FLUX.1-Krea-dev",),
    "flux.2/klein-4b": ("black-forest-labs/FLUX.2-klein-4B",),
    "flux.2/klein-9b": ("black-forest-labs/FLUX.2-klein-9B",),
    "flux.2/klein-base-4b": ("black-forest-labs/FLUX.2-klein-base-4B",),
    "cogvideox/2b": ("THUDM/CogVideoX-2b", "zai-org/CogVideoX-2b"),
    "cogvideox/5b": ("THUDM/CogVideoX-5b", "zai-org/CogVideoX-5b"),
    "cogvideox1.5/5b": ("THUDM/CogVideoX1.5-5B", "zai-org/CogVideoX1.5-5B"),
    "cogvideox1.5/5b-i2v": ("THUDM/CogVideoX1.5-5B-I2V", "zai-org/CogVideoX1.5-5B-I2V"),
    # One published list for both.
    "cosmos-1.0/diffusion-7b": (
        "nvidia/Cosmos-1.0-Diffusion-7B-Text2World",
        "nvidia/Cosmos-1.0-Diffusion-7B-Video2World",
    ),
    # Lightricks/LTX-Video itself has moved on to later versions and is therefore not listed.
    "ltx-video/0.9.1": ("a-r-r-o-w/LTX-Video-0.9.1-diffusers",),
    "mochi-1/preview": ("genmo/mochi-1-preview",),
    "lumina-next/sft": ("Alpha-VLLM/Lumina-Next-SFT-diffusers",),
    "lumina-image-2.0": ("Alpha-VLLM/Lumina-Image-2.0",),
    "newbie": ("NewBie-AI/NewBie-image-Exp0.1",),
    "hidream-i1/full": ("HiDream-ai/HiDream-I1-Full",),
    "hidream-i1/dev": ("HiDream-ai/HiDream-I1-Dev",),
    "hidream-i1/fast": ("HiDream-ai/HiDream-I1-Fast",),
    "open-sora/1.2": ("hpcai-tech/OpenSora-STDiT-v3",),
    "open-sora-plan/v1.1.0-65x512x512": ("LanguageBind/Open-Sora-Plan-v1.1.0",),
    "latte/1": ("maxin-cn/Latte-1",),
    "easyanimate/v5-7b-zh-inp": ("alibaba-pai/EasyAnimateV5-7b-zh-InP",),
    # The source names its zh, zh-InP and Control checkpoints together.
    "easyanimate/v5.1-7b": ("alibaba-pai/EasyAnimateV5.1-7b-zh-InP", "alibaba-pai/EasyAnimateV5.1-7b-zh-diffusers"),
    "easyanimate/v5.1-12b": (
        "alibaba-pai/EasyAnimateV5.1-12b-zh-InP",
        "alibaba-pai/EasyAnimateV5.1-12b-zh",
        "alibaba-pai/EasyAnimateV5.1-12b-zh-InP-diffusers",
        "alibaba-pai/EasyAnimateV5.1-12b-zh-Control-diffusers",
    ),
    "ruyi/mini-7b": ("IamCreateAI/Ruyi-Mini-7B",),
    "omnigen2": ("OmniGen2/OmniGen2",),
    "qwen-image": ("Qwen/Qwen-Image",),
    "qwen-image/2512": ("Qwen/Qwen-Image-2512",),
    "z-image/base": ("Tongyi-MAI/Z-Image",),
    "bagel/7b-mot": ("ByteDance-Seed/BAGEL-7B-MoT",),
    "stable-audio-open/1.0": ("stabilityai/stable-audio-open-1.0",),
    "hunyuan-image/3.0": ("tencent/HunyuanImage-3.0",),
    # The source calibrates text-to-image and editing together.
    "longcat-image": ("meituan-longcat/LongCat-Image", "meituan-longcat/LongCat-Image-Edit"),
    "sdxl/noobai-xl-vpred-1.0": ("Laxhar/noobai-XL-Vpred-1.0",),
    "sdxl/noobai-xl-1.1": ("Laxhar/noobai-XL-1.1",),
    "anima": ("circlestone-labs/Anima",),
}

# Other models for which engines apply this record's numbers; whoever resolves such a name is told that they are borrowed.
BORROWED: dict[str, tuple[str, ...]] = {
    "flux.1/dev": ("declare-lab/TangoFlux",),
    "cogvideox/5b": ("BestWishYsh/ConsisID-preview", "THUDM/CogVideoX-5b-I2V", "zai-org/CogVideoX-5b-I2V"),
    "flux.2/klein-base-4b": ("black-forest-labs/FLUX.2-klein-base-9B",),
}
