"""Which model's records a model in ComfyUI is meant by: from the configuration that ComfyUI reads off a checkpoint.

A configuration tells an architecture. Fine-tunes and later releases of one architecture have the same, so that the models that are meant
as well are named beside the key, and the node shows them: whoever runs one of those writes its key by hand.
(``comfy/model_detection.py`` at a125cd84b054; FLUX.2 and Z-Image as later releases spell them.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MeantModel:
    """What a configuration leads to.

    Attributes:
        key: the model key.
        also: keys of other models with the same configuration.
        where: what the configuration must hold: name → value.
    """

    key: str
    also: tuple[str, ...]
    where: Mapping[str, Any]

    def matches(self, config: Mapping[str, Any]) -> bool:
        """Does the configuration hold all of it? Lists and tuples are alike."""
        return all(name in config and _plain(config[name]) == _plain(value) for name, value in self.where.items())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _model(key: str, *also: str, **where: Any) -> MeantModel:
    return MeantModel(key, also, where)


MODELS: tuple[MeantModel, ...] = (
    _model("flux.1/dev", "flux.1/kontext-dev", "flux.1/krea-dev", image_model="flux", guidance_embed=True, in_channels=16, depth=19, depth_single_blocks=38),
    _model("flux.2/dev", image_model="flux2", hidden_size=6144),
    _model("flux.2/klein-9b", image_model="flux2", hidden_size=4096),
    _model("flux.2/klein-4b", "flux.2/klein-base-4b", image_model="flux2", hidden_size=3072),
    _model("chroma", image_model="chroma"),
    _model("hunyuanvideo/t2v", image_model="hunyuan_video", in_channels=16, patch_size=[1, 2, 2], guidance_embed=True, depth=20),
    _model("hunyuan-image/2.1", image_model="hunyuan_video", in_channels=64, patch_size=[1, 1]),
    _model("mochi-1/preview", image_model="mochi_preview"),
    _model("lumina-image-2.0", image_model="lumina2", dim=2304),
    _model("z-image/turbo", "z-image/base", image_model="lumina2", dim=3840),
    _model("wan2.1/t2v-1.3b", image_model="wan2.1", model_type="t2v", dim=1536, in_dim=16, out_dim=16),
    _model("wan2.1/t2v-14b", "wan2.2/t2v-a14b", image_model="wan2.1", model_type="t2v", dim=5120, in_dim=16, out_dim=16),
    _model("wan2.2/i2v-a14b", image_model="wan2.1", model_type="t2v", dim=5120, in_dim=36, out_dim=16),
    _model("wan2.2/ti2v-5b", image_model="wan2.1", model_type="t2v", dim=3072, out_dim=48),
    _model("wan2.1/i2v-14b-480p", "wan2.1/i2v-14b-720p", image_model="wan2.1", model_type="i2v", dim=5120, in_dim=36),
    _model("wan2.1/vace-1.3b", image_model="wan2.1", model_type="vace", dim=1536),
    _model("qwen-image", "qwen-image/2512", "qwen-image/edit", "qwen-image/edit-2511", image_model="qwen_image", in_channels=64, num_layers=60),
    _model("hidream-i1/full", "hidream-i1/dev", "hidream-i1/fast", image_model="hidream"),
    _model("omnigen2", image_model="omnigen2"),
    _model("cosmos-1.0/diffusion-7b", image_model="cosmos", in_channels=16, model_channels=4096),
    _model("sd3.5/large", depth=38, qk_norm="rms", in_channels=16),
)  # fmt: skip


def meant_by(config: Mapping[str, Any]) -> MeantModel | None:
    """The model a configuration stands for; None where nobody has said."""
    return next((model for model in MODELS if model.matches(config)), None)


def unknown(config: Mapping[str, Any], class_name: str) -> str:
    """Why a configuration leads to no key, and what to do, a sentence."""
    told = ", ".join(
        f"{name}={config[name]!r}"
        for name in ("image_model", "model_type", "dim", "hidden_size", "depth", "num_layers")
        if name in config
    )
    return (
        f"The registry knows no model by this configuration ({class_name}{f': {told}' if told else ''}): write its key into model_key "
        "(`easyteacache-hub list` shows all), or choose uncalibrated."
    )
