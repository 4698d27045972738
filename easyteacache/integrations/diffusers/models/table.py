"""The adapters, one entry per transformer class: data only."""

from __future__ import annotations

from typing import Any

from easyteacache.integrations.diffusers.models import modulated_inputs as m
from easyteacache.integrations.diffusers.models.adapter import Adapter, Argument, Blocks, Computed, Output, Source
from easyteacache.integrations.diffusers.models.token_layouts import (
    BACK,
    FRONT,
    TEMPORAL,
    after_prompt,
    last,
    latent_rows,
    patches,
    rows,
)

IMAGE_LAST = ("encoder_hidden_states", "hidden_states")
IMAGE_FIRST = ("hidden_states", "encoder_hidden_states")

EMBEDDING: dict[str, Source] = {"timestep_embedding": Argument("temb")}
ADAPTIVE: dict[str, Source] = {**EMBEDDING, "modulated_input": Computed(m.adaptive_zero)}
PROJECTION: dict[str, Source] = {"timestep_projection": Argument("temb")}
WAN_TIME: dict[str, Source] = {"timestep_embedding": Output("condition_embedder", 0), **PROJECTION}
WAN: dict[str, Source] = {**WAN_TIME, "modulated_input": m.table(in_float=True)}
WAN_PLAN: dict[str, Any] = {"timestep_embedding": m.wan_embeds, "timestep_projection": m.wan_projects}


def _flux(name: str, *, pooled: bool = False) -> Adapter:
    return Adapter(
        name,
        (Blocks("transformer_blocks", IMAGE_LAST), Blocks("single_transformer_blocks", IMAGE_LAST)),
        ADAPTIVE,
        conditioning=("encoder_hidden_states", *(["pooled_projections"] if pooled else [])),
    )


def _hunyuan(name: str, *conditioning: str, single: bool = True, **fields: Any) -> Adapter:
    lists = ("transformer_blocks", *(["single_transformer_blocks"] if single else []))
    fields = {"signals": ADAPTIVE, "conditioning": ("encoder_hidden_states", *conditioning), **fields}
    return Adapter(name, tuple(Blocks(path, IMAGE_FIRST) for path in lists), **fields)


def _pixart(name: str, temb: str = "timestep", **fields: Any) -> Adapter:
    signals: dict[str, Source] = {"timestep_projection": Argument(temb), "modulated_input": m.table(temb)}
    return Adapter(name, (Blocks("transformer_blocks"),), signals, **fields)


def _vace_refuses(transformer: Any) -> str | None:
    last = len(transformer.blocks) - 1
    if last in transformer.config.vace_layers:
        return f"a control hint is added after its last block ({last} is in vace_layers), where a reused step has none"
    return None


ADAPTERS: tuple[Adapter, ...] = (
    # One stream, text by cross-attention
    Adapter("WanTransformer3DModel", (Blocks("blocks"),), WAN, embeds=WAN_PLAN),
    Adapter(
        "WanVACETransformer3DModel",
        # The hints come before the blocks they are added to; a skipped hint is overwritten with everything else.
        (Blocks("vace_blocks", ("control_hidden_states", "control_hidden_states")), Blocks("blocks")),
        WAN_TIME,
        embeds=WAN_PLAN,
        refuses=_vace_refuses,
    ),
    Adapter(
        "WanAnimateTransformer3DModel",
        (Blocks("blocks"),),
        WAN,
        embeds=WAN_PLAN,
        conditioning=("encoder_hidden_states", "pose_hidden_states", "face_pixel_values"),
        note="The face adapter between the blocks runs at every step.",
    ),
    Adapter("ChronoEditTransformer3DModel", (Blocks("blocks"),), WAN, embeds=WAN_PLAN),
    Adapter("SkyReelsV2Transformer3DModel", (Blocks("blocks"),), WAN),
    Adapter("HeliosTransformer3DModel", (Blocks("blocks"),), WAN, tokens=patches()),
    _pixart("AllegroTransformer3DModel", "temb"),
    _pixart("PixArtTransformer2DModel"),
    _pixart("SanaTransformer2DModel"),
    Adapter(
        "LatteTransformer3DModel",
        # In the model the two lists take turns; what counts here is the very first and the very last block.
        (Blocks("transformer_blocks"), Blocks("temporal_transformer_blocks", layout=TEMPORAL)),
        {"timestep_projection": Argument("timestep"), "modulated_input": m.table("timestep")},
        tokens=patches(),
    ),
    Adapter("LuminaNextDiT2DModel", (Blocks("layers"),), {**EMBEDDING, "modulated_input": m.adaptive_norm("temb")}),
    Adapter(
        "LTXVideoTransformer3DModel", (Blocks("transformer_blocks"),), {**PROJECTION, "modulated_input": m.table()}
    ),
    Adapter(
        "SanaWMLTX2RefinerTransformer3DModel",
        (Blocks("transformer_blocks"),),
        {**PROJECTION, "modulated_input": m.table()},
    ),
    Adapter(
        "AceStepTransformer1DModel",
        (Blocks("layers"),),
        {**PROJECTION, "modulated_input": m.table(norm="self_attn_norm")},
    ),
    Adapter(
        "CosmosTransformer3DModel",
        (Blocks("transformer_blocks"),),
        {"timestep_embedding": Argument("embedded_timestep"), "modulated_input": Computed(m.cosmos)},
    ),
    Adapter(
        "Kandinsky5Transformer3DModel",
        (Blocks("visual_transformer_blocks", ("visual_embed",)),),
        {"timestep_embedding": Argument("time_embed"), "modulated_input": Computed(m.kandinsky)},
        streams=("visual_embed",),
        conditioning=("encoder_hidden_states", "pooled_projections"),
    ),
    Adapter(
        "NucleusMoEImageTransformer2DModel",
        (Blocks("transformer_blocks"),),
        {**EMBEDDING, "modulated_input": Computed(m.nucleus)},
    ),
    Adapter(
        "DiTTransformer2DModel",
        (Blocks("transformer_blocks"),),
        {"modulated_input": Computed(m.dit)},
        conditioning=("class_labels",),
    ),
    Adapter(
        "StableAudioDiTModel",
        (Blocks("transformer_blocks"),),
        {"modulated_input": m.adaptive_norm()},
        conditioning=("encoder_hidden_states", "global_hidden_states"),
        # The first token is the time and text embedding.
        tokens=lambda head, arguments, transformer: head.shape[1] - 1,
    ),
    # Text and image side by side
    Adapter(
        "CogVideoXTransformer3DModel",
        (Blocks("transformer_blocks", IMAGE_FIRST),),
        {**EMBEDDING, "modulated_input": m.adaptive_norm("encoder_hidden_states", "temb")},
        embeds={"timestep_embedding": m.cogvideox_embeds},
    ),
    Adapter(
        "CogView4Transformer2DModel",
        (Blocks("transformer_blocks", IMAGE_FIRST),),
        {**EMBEDDING, "modulated_input": m.adaptive_norm("encoder_hidden_states", "temb")},
    ),
    Adapter(
        "GlmImageTransformer2DModel",
        (Blocks("transformer_blocks", IMAGE_FIRST),),
        {**EMBEDDING, "modulated_input": m.adaptive_norm("encoder_hidden_states", "temb")},
        conditioning=("encoder_hidden_states", "prior_token_id", "prior_token_drop"),
    ),
    Adapter(
        "EasyAnimateTransformer3DModel",
        (Blocks("transformer_blocks", IMAGE_FIRST),),
        {**EMBEDDING, "modulated_input": m.adaptive_norm("encoder_hidden_states", "temb")},
        conditioning=("encoder_hidden_states", "encoder_hidden_states_t5", "inpaint_latents", "control_latents"),
    ),
    Adapter(
        "MochiTransformer3DModel",
        (Blocks("transformer_blocks", IMAGE_FIRST),),
        {**EMBEDDING, "modulated_input": m.adaptive_norm("temb")},
    ),
    Adapter(
        "QwenImageTransformer2DModel",
        (Blocks("transformer_blocks", IMAGE_LAST),),
        {**EMBEDDING, "modulated_input": Computed(m.qwen)},
    ),
    Adapter(
        "SD3Transformer2DModel",
        (Blocks("transformer_blocks", IMAGE_LAST),),
        ADAPTIVE,
        conditioning=("encoder_hidden_states", "pooled_projections", "skip_layers"),
    ),
    _flux("FluxTransformer2DModel", pooled=True),
    _flux("BriaTransformer2DModel"),
    _flux("LongCatImageTransformer2DModel"),
    _flux("OvisImageTransformer2DModel"),
    _hunyuan(
        "HunyuanVideoTransformer3DModel",
        "pooled_projections",
        signals={**EMBEDDING, "modulated_input": Computed(m.token_replace)},
    ),
    _hunyuan("HunyuanVideoFramepackTransformer3DModel", "pooled_projections", tokens=patches()),
    _hunyuan("HunyuanVideo15Transformer3DModel", "encoder_hidden_states_2", "image_embeds", single=False),
    _hunyuan("HunyuanImageTransformer2DModel", "encoder_hidden_states_2"),
    _hunyuan("MotifVideoTransformer3DModel", "image_embeds"),
    # Side by side first, joined afterwards
    Adapter(
        "AuraFlowTransformer2DModel",
        (
            Blocks("joint_transformer_blocks", IMAGE_LAST),
            Blocks("single_transformer_blocks", layout=BACK, optional=True),
        ),
        ADAPTIVE,
    ),
    Adapter(
        "ChromaTransformer2DModel",
        (Blocks("transformer_blocks", IMAGE_LAST), Blocks("single_transformer_blocks", layout=BACK)),
        {**EMBEDDING, "modulated_input": Computed(m.chroma)},
    ),
    Adapter(
        "Flux2Transformer2DModel",
        (Blocks("transformer_blocks", IMAGE_LAST), Blocks("single_transformer_blocks", layout=BACK)),
        {"timestep_projection": Argument("temb_mod_img"), "modulated_input": Computed(m.flux2)},
    ),
    Adapter(
        "HiDreamImageTransformer2DModel",
        (Blocks("double_stream_blocks", IMAGE_FIRST), Blocks("single_stream_blocks", layout=FRONT)),
        {"timestep_embedding": Output("t_embedder"), "modulated_input": Computed(m.hidream)},
        timestep="timesteps",
        conditioning=("encoder_hidden_states_t5", "encoder_hidden_states_llama3", "pooled_embeds"),
    ),
    # Joined from the first block on
    Adapter(
        "Lumina2Transformer2DModel",
        (Blocks("layers"),),
        {**EMBEDDING, "modulated_input": m.adaptive_norm("temb")},
        tokens=patches(),
        own=after_prompt("encoder_attention_mask", patches()),
    ),
    Adapter(
        "OmniGenTransformer2DModel",
        (Blocks("layers"),),
        {"timestep_embedding": Output("t_embedder"), "modulated_input": m.adaptive_norm(norm="input_layernorm")},
        conditioning=("input_ids", "input_img_latents"),
        tokens=patches(),
    ),
    Adapter(
        "ZImageTransformer2DModel",
        (Blocks("layers", ("x",)),),
        {"timestep_embedding": Output("t_embedder"), "modulated_input": Computed(m.z_image)},
        streams=("x",),
        latent="x",
        timestep="t",
        conditioning=("cap_feats",),
        tokens=patches("x"),
    ),
    Adapter(
        "QwenImage21Transformer2DModel",
        (Blocks("transformer_blocks"),),
        {"timestep_projection": Argument("modulation"), "modulated_input": Computed(m.qwen21)},
        tokens=latent_rows,
        own=last(latent_rows),
    ),
    # Several generated streams
    Adapter(
        "LTX2VideoTransformer3DModel",
        (Blocks("transformer_blocks", ("hidden_states", "audio_hidden_states")),),
        {**PROJECTION, "modulated_input": m.table()},
        streams=("hidden_states", "audio_hidden_states"),
        conditioning=("encoder_hidden_states", "audio_encoder_hidden_states", "spatio_temporal_guidance_blocks"),
    ),
    Adapter(
        "Kandinsky6Transformer3DModel",
        (Blocks("visual_transformer_blocks", ("vis", "aud")),),
        {"timestep_embedding": Argument("time_embed", lambda pair: pair[0])},
        streams=("vis", "aud"),
        conditioning=("encoder_hidden_states", "pooled_projections"),
    ),
    Adapter(
        "MiniMaxH3Transformer3DModel",
        (Blocks("transformer_blocks"),),
        {**EMBEDDING, "modulated_input": Computed(m.minimax)},
    ),
    Adapter(
        "Cosmos3OmniTransformer",
        (Blocks("layers", ("und_seq", "gen_seq")),),
        {"modulated_input": m.adaptive_norm(norm="input_layernorm_moe_gen", stream="gen_seq")},
        streams=("gen_seq",),
        latent="vision_tokens",
        timestep="vision_timesteps",
        conditioning=("input_ids",),
        tokens=rows,
    ),
)
