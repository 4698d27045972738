"""Which transformer class runs a published family: another model's numbers must not attach silently.

FLUX shipped with Wan's coefficients (NVIDIA/TensorRT-LLM #12007), and nothing said so. A published record therefore attaches only to
the class that it names, or else of its own family, unless the caller asks for borrowed numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyteacache.errors import AttachError

if TYPE_CHECKING:
    from easyteacache.policy.policy import Policy

#: Families of the registry, by the first part of their keys, and single keys where a family has several → the class that runs them in diffusers.
CLASSES = {
    "cogvideox": "CogVideoXTransformer3DModel",
    "cogvideox1.5": "CogVideoXTransformer3DModel",
    "cosmos-1.0": "CosmosTransformer3DModel",
    "dit": "DiTTransformer2DModel",
    "easyanimate": "EasyAnimateTransformer3DModel",
    "flux.1": "FluxTransformer2DModel",
    "flux.2": "Flux2Transformer2DModel",
    "hidream-i1": "HiDreamImageTransformer2DModel",
    "hunyuanvideo": "HunyuanVideoTransformer3DModel",
    "hunyuanvideo-1.5": "HunyuanVideo15Transformer3DModel",
    "latte": "LatteTransformer3DModel",
    "longcat-image": "LongCatImageTransformer2DModel",
    "ltx-2": "LTX2VideoTransformer3DModel",
    "ltx-video": "LTXVideoTransformer3DModel",
    "lumina-image-2.0": "Lumina2Transformer2DModel",
    "lumina-next": "LuminaNextDiT2DModel",
    "minimax-h3": "MiniMaxH3Transformer3DModel",
    "mochi-1": "MochiTransformer3DModel",
    "qwen-image": "QwenImageTransformer2DModel",
    "reference/moving-digits": "WanTransformer3DModel",
    "stable-audio-open": "StableAudioDiTModel",
    "wan2.1": "WanTransformer3DModel",
    "wan2.2": "WanTransformer3DModel",
    "z-image": "ZImageTransformer2DModel",
}


def class_of(model_key: str) -> str | None:
    """The transformer class of a key or of its family; None for a family that no class is known for."""
    return CLASSES.get(model_key) or CLASSES.get(model_key.split("/")[0])


def refuse_another_model(policy: Policy, transformer: str) -> None:
    """Refuse a record on a class that does not run its model.

    A user's own families are not known here and attach to whatever they are attached to.

    Args:
        policy: what would be applied.
        transformer: name of the class it would be applied to.

    Raises:
        AttachError: the record's family runs in another class, or a published one in none of diffusers'.
    """
    expected = policy.class_name or class_of(policy.model_key)
    if expected == transformer or (expected is None and policy.status != "published"):
        return
    home = "no class of diffusers that is known here" if expected is None else expected
    raise AttachError(
        f"{policy.model_key!r} was fitted to a model that runs in {home}, this is a {transformer}: another model's numbers "
        "fail silently. Choose a record of this model (`easyteacache-hub list`), or pass allow_borrowed=True to attach()"
    )
