"""The transformer classes the reference models use, behind one function: text and noise to velocity.

Latents are pixels (there is no VAE), laid out (B, 1, F, H, W) for every class, height and width even.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import torch
from diffusers import FluxTransformer2DModel, WanTransformer3DModel
from torch import Tensor

from easyteacache.reference.prompts import TEXT_DIM

ArchitectureName = Literal["wan", "flux"]
Transformer: TypeAlias = WanTransformer3DModel | FluxTransformer2DModel

PATCH = 2
TIMESTEPS = 1000


@dataclass(frozen=True, slots=True)
class Architecture:
    """One transformer class at reference size: how to build it and what its videos may be.

    Attributes:
        interface: names in ``config`` of what latents and text it takes; the others are its own affair.
    """

    name: ArchitectureName
    transformer_class: type[Any]
    config: dict[str, Any]
    interface: tuple[str, ...]
    block_lists: tuple[str, ...]
    max_frames: int


WAN = Architecture(
    name="wan",
    transformer_class=WanTransformer3DModel,
    config={
        "patch_size": (1, PATCH, PATCH),
        "num_attention_heads": 4,
        "attention_head_dim": 24,
        "in_channels": 1,
        "out_channels": 1,
        "text_dim": TEXT_DIM,
        "freq_dim": 128,
        "ffn_dim": 384,
        "num_layers": 6,
        "cross_attn_norm": True,
        "rope_max_seq_len": 128,
    },
    interface=("patch_size", "in_channels", "out_channels", "text_dim"),
    block_lists=("blocks",),
    max_frames=8,
)

FLUX = Architecture(
    name="flux",
    transformer_class=FluxTransformer2DModel,
    config={
        "patch_size": 1,
        "in_channels": PATCH * PATCH,
        "num_layers": 3,
        "num_single_layers": 4,
        "attention_head_dim": 24,
        "num_attention_heads": 4,
        "joint_attention_dim": TEXT_DIM,
        "pooled_projection_dim": TEXT_DIM,
        "guidance_embeds": False,
        "axes_dims_rope": (8, 8, 8),
    },
    interface=("patch_size", "in_channels", "joint_attention_dim", "pooled_projection_dim", "guidance_embeds"),
    block_lists=("transformer_blocks", "single_transformer_blocks"),
    max_frames=1,
)

ARCHITECTURES: dict[ArchitectureName, Architecture] = {"wan": WAN, "flux": FLUX}


def architecture_of(transformer: Transformer) -> Architecture:
    """Return the architecture a transformer belongs to.

    Raises:
        TypeError: its class is neither of the reference classes.
    """
    for architecture in ARCHITECTURES.values():
        if isinstance(transformer, architecture.transformer_class):
            return architecture
    known = ", ".join(a.transformer_class.__name__ for a in ARCHITECTURES.values())
    raise TypeError(f"expected one of {known}; found {type(transformer).__name__}")


def build_transformer(architecture: Architecture) -> Transformer:
    """Build an untrained transformer whose first prediction is zero (seed torch beforehand)."""
    transformer = architecture.transformer_class(**architecture.config)
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)
    return transformer


def predict_velocity(transformer: Transformer, latents: Tensor, *, timestep: Tensor, text: Tensor) -> Tensor:
    """Predict the flow-matching velocity, noise minus data.

    Args:
        transformer: a reference transformer.
        latents: (B, 1, F, H, W); F = 1 for FLUX.
        timestep: (B,) in [0, 1000].
        text: (B, 4, 64) prompt embeddings.

    Returns:
        (B, 1, F, H, W).
    """
    if isinstance(transformer, FluxTransformer2DModel):
        return _flux_velocity(transformer, latents, timestep=timestep, text=text)
    velocity = transformer(hidden_states=latents, timestep=timestep, encoder_hidden_states=text, return_dict=False)[0]
    return cast(Tensor, velocity)


def _flux_velocity(transformer: FluxTransformer2DModel, latents: Tensor, *, timestep: Tensor, text: Tensor) -> Tensor:
    rows, columns = latents.shape[-2] // PATCH, latents.shape[-1] // PATCH
    packed = transformer(
        hidden_states=_pack(latents),
        encoder_hidden_states=text,
        pooled_projections=text[:, :2].sum(1),
        timestep=timestep / TIMESTEPS,
        img_ids=_image_positions(rows, columns, like=latents),
        txt_ids=latents.new_zeros(text.shape[1], 3),
        return_dict=False,
    )[0]
    return _unpack(packed, rows, columns)


def _pack(latents: Tensor) -> Tensor:
    """(B, 1, 1, H, W) to (B, H/2 · W/2, 4)."""
    rows, columns = latents.shape[-2] // PATCH, latents.shape[-1] // PATCH
    patches = latents.view(len(latents), 1, rows, PATCH, columns, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _unpack(packed: Tensor, rows: int, columns: int) -> Tensor:
    """Invert `_pack`."""
    patches = packed.view(len(packed), rows, columns, 1, PATCH, PATCH)
    image = patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
    return image[:, :, None]


def _image_positions(rows: int, columns: int, *, like: Tensor) -> Tensor:
    """Position ids (H/2 · W/2, 3) as FLUX expects them: 0, row, column."""
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    return torch.cat((torch.zeros(len(grid), 1), grid), 1).to(like)
