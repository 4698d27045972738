"""Which published list of MagCache ratios belongs to which record, and what the lists that are no records are.

Keys end in an explicit suffix, because the bare key of a checkpoint belongs to its TeaCache record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from published import aliases

Fact = dict[str, Any]
Modality = Literal["image", "video"]

LAYOUTS: dict[str, tuple[str, ...]] = {
    "cond only": ("cond",),
    "uncond only": ("uncond",),
    "single": ("cond",),
    "single branch": (),
    "cond/uncond interleaved": ("cond", "uncond"),
}


@dataclass(frozen=True)
class Target:
    """One record: its key, its title, what it makes, and the facts it is made of.

    Attributes:
        key: the registry key.
        title: the model's name as people write it.
        modality: what the model generates.
        facts: the facts' own model keys, each with the branch that its list is of where the layout does not say.
        repository: take only lists that this repository prints, where two repositories print different lists.
        bare: key of the checkpoint in ``aliases.SAME_CHECKPOINT``.
        notes: what was read beside the numbers.
    """

    key: str
    title: str
    modality: Modality
    facts: tuple[tuple[str, str | None], ...]
    repository: str | None = None
    bare: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> str | None:
        """Hub repository of the checkpoint, where it is known."""
        names = aliases.SAME_CHECKPOINT.get(self.bare or self.key.rpartition("/")[0], ()) or _CHECKPOINTS.get(
            self.key, ()
        )
        return names[0] if names else None

    @property
    def class_name(self) -> str | None:
        """Its transformer's class in diffusers; None where diffusers has none, or the checkpoint is not known."""
        parts = self.key.split("/")
        places = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
        return next((CLASSES[place] for place in places if place in CLASSES), None)

    @property
    def names(self) -> tuple[str, ...]:
        """Its Hub repositories, where no other record of the model carries them."""
        return ALONE.get(self.key, ())


#: First parts of a key → the class that runs the model in diffusers.
CLASSES = {
    "chroma": "ChromaTransformer2DModel",
    "flux.1": "FluxTransformer2DModel",
    "flux.2": "Flux2Transformer2DModel",
    "framepack": "HunyuanVideoFramepackTransformer3DModel",
    "hunyuanvideo": "HunyuanVideoTransformer3DModel",
    "hunyuanvideo-1.5": "HunyuanVideo15Transformer3DModel",
    "kandinsky-5": "Kandinsky5Transformer3DModel",
    "qwen-image": "QwenImageTransformer2DModel",
    "wan2.1": "WanTransformer3DModel",
    "wan2.1/vace-1.3b": "WanVACETransformer3DModel",
    "wan2.2": "WanTransformer3DModel",
}
#: Records that are their model's only ones → its Hub repositories.
ALONE = {
    "framepack/f1/magcache": ("lllyasviel/FramePack_F1_I2V_HY_20250503",),
    "qwen-image/edit/magcache": ("Qwen/Qwen-Image-Edit",),
    "wan2.1/vace-1.3b/magcache": ("Wan-AI/Wan2.1-VACE-1.3B", "Wan-AI/Wan2.1-VACE-1.3B-diffusers"),
}
_CHECKPOINTS: dict[str, tuple[str, ...]] = {
    "wan2.2/t2v-a14b/magcache": ("Wan-AI/Wan2.2-T2V-A14B",),
    "wan2.2/i2v-a14b/magcache": ("Wan-AI/Wan2.2-I2V-A14B",),
    "wan2.1/vace-1.3b/magcache": ("Wan-AI/Wan2.1-VACE-1.3B",),
    "flux.2/dev/magcache-vllm-omni": ("black-forest-labs/FLUX.2-dev",),
    "qwen-image/edit/magcache": ("Qwen/Qwen-Image-Edit",),
}

_FLUX = "MagCache's and vLLM-Omni's lists for this model differ; each is a record of its own."
_EXPERTS = "One list over both experts: at the switch from the high-noise to the low-noise one the ratio dips."
_KIJAI = (
    "kijai/ComfyUI-WanVideoWrapper labels this list as one of a 14B model; MagCache's own code gives it to TI2V 5B."
)


def _wan(variant: str, title: str, *notes: str, version: str = "2.1") -> Target:
    name = f"wan{version}/{variant}"
    return Target(f"{name}/magcache", f"Wan{version} {title}, MagCache", "video", ((name, None),), notes=notes)


def _kandinsky(variant: str, title: str, modality: Modality = "video") -> Target:
    name = f"kandinsky-5/{variant}"
    return Target(f"{name}/magcache", f"Kandinsky 5 {title}, MagCache", modality, ((name, None),))


TARGETS: tuple[Target, ...] = (
    _wan("t2v-1.3b", "T2V 1.3B"),
    _wan("t2v-14b", "T2V 14B", "Its publishers use the same list for VACE 14B."),
    _wan("i2v-14b-480p", "I2V 14B 480P"),
    _wan("i2v-14b-720p", "I2V 14B 720P"),
    _wan("vace-1.3b", "VACE 1.3B"),
    _wan("t2v-a14b", "T2V A14B", _EXPERTS, version="2.2"),
    _wan("i2v-a14b", "I2V A14B", _EXPERTS, version="2.2"),
    Target(
        "wan2.2/ti2v-5b/magcache-t2v",
        "Wan2.2 TI2V 5B, MagCache, from text",
        "video",
        (("wan2.2/ti2v-5b-t2v", None),),
        notes=(_KIJAI,),
    ),
    Target(
        "wan2.2/ti2v-5b/magcache-i2v",
        "Wan2.2 TI2V 5B, MagCache, from an image",
        "video",
        (("wan2.2/ti2v-5b-i2v", None),),
        notes=(_KIJAI,),
    ),
    Target(
        "hunyuanvideo/t2v/magcache-720p",
        "HunyuanVideo T2V, MagCache, 720p",
        "video",
        (("hunyuanvideo/t2v-720p", None),),
        bare="hunyuanvideo/t2v",
    ),
    Target(
        "hunyuanvideo/t2v/magcache-544p",
        "HunyuanVideo T2V, MagCache, 544p",
        "video",
        (("hunyuanvideo/t2v-544p", None),),
        bare="hunyuanvideo/t2v",
        notes=("MagCache's script takes this list for every size other than 720p.",),
    ),
    Target(
        "hunyuanvideo-1.5/magcache",
        "HunyuanVideo-1.5, MagCache",
        "video",
        (("hunyuanvideo-1.5", None),),
        notes=(
            "The source does not say which of the four checkpoints the lists were measured on.",
            "Wan2GP's copy of the 40-step list is two values short and therefore shifted from its 21st pair on.",
        ),
    ),
    Target(
        "hunyuanvideo-1.5/i2v-480p/magcache",
        "HunyuanVideo-1.5 I2V 480p, MagCache",
        "video",
        (("hunyuanvideo-1.5/i2v-480p", None),),
    ),
    Target(
        "flux.1/dev/magcache",
        "FLUX.1 [dev], MagCache",
        "image",
        (("flux.1/dev", None),),
        repository="Zehong-Ma/MagCache",
        notes=(_FLUX, "diffusers' FLUX_MAG_RATIOS is this list with a leading 1."),
    ),
    Target(
        "flux.1/dev/magcache-vllm-omni",
        "FLUX.1 [dev], MagCache, vLLM-Omni",
        "image",
        (("flux.1/dev", None),),
        repository="vllm-project/vllm-omni",
        notes=(_FLUX,),
    ),
    Target("flux.1/kontext-dev/magcache", "FLUX.1 Kontext [dev], MagCache", "image", (("flux.1/kontext-dev", None),)),
    Target("flux.2/dev/magcache-vllm-omni", "FLUX.2 [dev], MagCache, vLLM-Omni", "image", (("flux.2/dev", None),)),
    Target("chroma/magcache", "Chroma, MagCache", "image", (("chroma", None),)),
    Target("qwen-image/magcache", "Qwen-Image, MagCache", "image", (("qwen-image", None),)),
    Target("qwen-image/edit/magcache", "Qwen-Image-Edit, MagCache", "image", (("qwen-image/edit", None),)),
    Target(
        "omnigen2/magcache-t2i",
        "OmniGen2, MagCache, from text",
        "image",
        (("omnigen2/t2i-cond", "cond"), ("omnigen2/t2i-uncond", "uncond")),
    ),
    Target(
        "omnigen2/magcache-edit",
        "OmniGen2, MagCache, editing",
        "image",
        (("omnigen2/edit-cond", "cond"), ("omnigen2/edit-uncond", "uncond"), ("omnigen2/edit-ref", "ref")),
    ),
    Target("framepack/magcache", "FramePack, MagCache", "video", (("framepack", None),)),
    Target("framepack/f1/magcache", "FramePack F1, MagCache", "video", (("framepack/f1", None),)),
    _kandinsky("lite-t2i-sft-hd", "Lite T2I SFT HD", "image"),
    _kandinsky("lite-t2v-5s-sft-sd", "Lite T2V 5s SFT SD"),
    _kandinsky("lite-t2v-10s-sft-sd", "Lite T2V 10s SFT SD"),
    _kandinsky("lite-i2v-5s-sft-sd", "Lite I2V 5s SFT SD"),
    _kandinsky("pro-t2v-5s-sft-sd", "Pro T2V 5s SFT SD"),
    _kandinsky("pro-t2v-5s-sft-hd", "Pro T2V 5s SFT HD"),
    _kandinsky("pro-t2v-10s-sft-sd", "Pro T2V 10s SFT SD"),
    _kandinsky("pro-t2v-10s-sft-hd", "Pro T2V 10s SFT HD"),
    _kandinsky("pro-i2v-5s-sft-sd", "Pro I2V 5s SFT SD"),
    _kandinsky("pro-i2v-5s-sft-hd", "Pro I2V 5s SFT HD"),
)


def reason_to_leave_out(fact: Fact) -> str | None:
    """Why a printed list is no record; None when it is one."""
    if any(source["path"].startswith("eval/") for source in fact["sources"]):
        return "an evaluation script's list: it prints squares of the ratios, for another number of values than steps"
    if fact["num_steps"] is None:
        return "a copy that lost two values, so that everything behind them belongs to another step"
    return None
