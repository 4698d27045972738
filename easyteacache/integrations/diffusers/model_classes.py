"""Which transformer a record may attach to: another model's numbers must not attach silently.

FLUX shipped with Wan's coefficients (NVIDIA/TensorRT-LLM #12007), and nothing said so. A record therefore attaches only to the class
and configuration that it was made with, where it says so, and a published one to the class of its family, unless the caller asks
for borrowed numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyteacache.errors import AttachError
from easyteacache.policy.model_match import another_configuration

if TYPE_CHECKING:
    from easyteacache.policy.policy import Policy
    from easyteacache.records.model_identity import ModelIdentity

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


def refuse_another_model(policy: Policy, running: ModelIdentity) -> None:
    """Refuse a record on a transformer that it was not made with.

    A record that says which class and configuration it was made with holds for these; one that does not, for the class of its
    family. A user's own record that says neither attaches to whatever it is attached to, and the log says so (``unknown_model``).

    Args:
        policy: what would be applied.
        running: the transformer it would be applied to.

    Raises:
        AttachError: the record was made with another class or configuration, its family runs in another class, or it is a published one
            of a family that no class of diffusers is known for.
    """
    recorded = policy.model
    advice = (
        "another model's numbers fail silently. Choose a record of this model (`easyteacache-hub list`), or pass "
        "allow_borrowed=True to attach()"
    )
    made_with = (None if recorded is None else recorded.class_name) or class_of(policy.model_key)
    if made_with is not None and made_with != running.class_name:
        raise AttachError(
            f"{policy.model_key!r} was fitted to a model that runs in {made_with}, this is a {running.class_name}: {advice}"
        )
    if made_with is None and policy.status == "published":
        raise AttachError(
            f"{policy.model_key!r} was fitted to a model that runs in no class of diffusers that is known here, this is a "
            f"{running.class_name}: {advice}"
        )
    if another_configuration(recorded, running):
        assert recorded is not None
        raise AttachError(
            f"{policy.model_key!r} was fitted to a {running.class_name} of another configuration "
            f"({_short(recorded.configuration_sha256)}, this one is {_short(running.configuration_sha256)}): {advice}"
        )


def unknown_model(policy: Policy) -> str | None:
    """What to say of a record that does not tell which model it was made with; None where it does."""
    said = policy.model is not None and policy.model.class_name is not None
    if said or class_of(policy.model_key) is not None or policy.layer in ("given", "none"):
        return None
    return (
        "The record does not say which transformer it was made with, so nothing can tell whether it was this one (records that "
        "`easyteacache solve` writes today say it)."
    )


def _short(digest: str | None) -> str:
    return "unknown" if digest is None else f"{digest[:12]}…"
