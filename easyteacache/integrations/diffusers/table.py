"""The adapters, one entry per transformer class: data only."""

from __future__ import annotations

from easyteacache.integrations.diffusers import modulation
from easyteacache.integrations.diffusers.adapters import Adapter, Argument, Blocks, Computed, Output

DUAL = ("encoder_hidden_states", "hidden_states")

ADAPTERS: tuple[Adapter, ...] = (
    Adapter(
        "FluxTransformer2DModel",
        (Blocks("transformer_blocks", DUAL), Blocks("single_transformer_blocks", DUAL)),
        {"modulated_input": Computed(modulation.adaptive_norm), "timestep_embedding": Argument("temb")},
        conditioning=("encoder_hidden_states", "pooled_projections"),
    ),
    Adapter(
        "WanTransformer3DModel",
        (Blocks("blocks"),),
        {
            "timestep_embedding": Output("condition_embedder", 0),
            "timestep_projection": Argument("temb"),
            "modulated_input": Computed(modulation.wan),
        },
        embeds={"timestep_embedding": modulation.wan_embeds, "timestep_projection": modulation.wan_projects},
    ),
)
