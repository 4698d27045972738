"""Every engine: what it was read to do, and where. A new engine is one entry here and one module in ``formats``."""

from __future__ import annotations

from easyteacache.export.engine import Engine, Model, Source

_EMBEDDING = frozenset({"timestep_embedding"})
_EITHER = frozenset({"timestep_embedding", "timestep_projection"})
_MODULATED = frozenset({"modulated_input"})
_HIDDEN = frozenset({"hidden_states"})
_BOTH = ("teacache", "magcache")

_ENGINES = (
    Engine(
        name="vllm-omni",
        title="vLLM-Omni",
        module="vllm_omni",
        suffix="json",
        sources=(
            Source(
                "vllm-project/vllm-omni",
                "vllm_omni/diffusion/cache/teacache/config.py",
                "011a7ac670f9dc31aa9ad033e7540a6a511e5fc9",
            ),
            Source(
                "vllm-project/vllm-omni",
                "vllm_omni/diffusion/cache/teacache/hook.py",
                "03ab3893502eee3b0fe4692a3bde323c85656275",
            ),
            Source(
                "vllm-project/vllm-omni",
                "vllm_omni/diffusion/cache/teacache/backend.py",
                "0131cb5560450800b800e889fb849ea2c851bd3f",
            ),
        ),
        summary="Accumulates |p(x)| on its model's own signal; insists on five coefficients.",
        models=(
            Model("flux.1/*", _MODULATED, post="abs", methods=_BOTH),
            Model("flux.2/klein*", _MODULATED, post="abs"),
            Model("qwen-image*", _MODULATED, post="abs"),
            Model("z-image*", _MODULATED, post="abs"),
            Model("longcat-image*", _MODULATED, post="abs"),
            Model("minimax-h3/fl2va*", _MODULATED, post="abs"),
            Model("bagel*", _HIDDEN, post="abs"),
            Model("sensenova-u1*", _HIDDEN, post="abs"),
            Model("stable-audio-open*", _HIDDEN, post="abs"),
            Model("hunyuan-image/3.0*", _EMBEDDING, post="abs"),
            Model("flux.2/dev*", frozenset(), methods=("magcache",)),
        ),
        methods=_BOTH,
        window="first",
        coefficients=5,
        list_per_branch=False,
    ),
    Engine(
        name="sglang",
        title="SGLang diffusion",
        module="sglang",
        suffix="py",
        sources=(
            Source(
                "sgl-project/sglang",
                "python/sglang/multimodal_gen/configs/sample/teacache.py",
                "18ae0170c8524af2576258a0c4170b55638ba985",
            ),
            Source(
                "sgl-project/sglang",
                "python/sglang/multimodal_gen/runtime/cache/teacache.py",
                "1922d5f6251f9d40d5c9581ddb1d715d963ced54",
            ),
        ),
        summary="Accumulates p(x) as it is; for Wan, use_ret_steps chooses the signal.",
        models=(
            Model("wan2.1/*", _EITHER),
            Model("wan2.2/*", _EITHER),
            Model("hunyuanvideo/*", _MODULATED),
        ),
        window="given",
        together=("expert",),
    ),
    Engine(
        name="tensorrt-llm",
        title="TensorRT-LLM VisualGen",
        module="tensorrt_llm",
        suffix="yaml",
        sources=(
            Source(
                "NVIDIA/TensorRT-LLM",
                "tensorrt_llm/_torch/visual_gen/cache/teacache.py",
                "aaedbf926586258a1d179660c2b4b50e9c1f85a7",
            ),
            Source(
                "NVIDIA/TensorRT-LLM", "tensorrt_llm/visual_gen/args.py", "bdc184220153709d545c16e75e0de35228efcc73"
            ),
        ),
        summary="Accumulates |p(x)|, capped at twice the threshold, on the timestep embedding whatever the model; "
        "for Wan, use_ret_steps chooses its projection instead.",
        models=(
            Model("wan2.1/*", _EITHER, post="abs"),
            Model("wan2.2/*", _EITHER, post="abs"),
            Model("flux.1/*", _EMBEDDING, post="abs"),
            Model("flux.2/*", _EMBEDDING, post="abs"),
            Model("ltx-2/*", _EMBEDDING, post="abs"),
        ),
        window="retention",
        together=("expert",),
    ),
    Engine(
        name="comfyui-teacache",
        title="ComfyUI-TeaCache",
        module="comfyui",
        suffix="py",
        sources=(
            Source("welltop-cn/ComfyUI-TeaCache", "nodes.py", "91dff8e31684ca70a5fda309611484402d8fa192"),
            Source("welltop-cn/ComfyUI-TeaCache", "nodes.py", "1a11412deac8f6fc9fa2a487bf952000c279ed39"),
        ),
        summary="Accumulates |p(x)| for FLUX and p(x) for everything else; a step that the window forces does not reset the sum.",
        models=(
            Model("flux.1/kontext-dev*", _MODULATED, "flux-kontext", "abs"),
            Model("flux.1/dev*", _MODULATED, "flux", "abs"),
            Model("ltx-video/*", _MODULATED, "ltxv"),
            Model("lumina-image-2.0*", _EMBEDDING, "lumina_2"),
            Model("hunyuanvideo/t2v*", _MODULATED, "hunyuan_video"),
            Model("hidream-i1/full*", _EMBEDDING, "hidream_i1_full"),
            Model("hidream-i1/dev*", _HIDDEN, "hidream_i1_dev"),
            Model("hidream-i1/fast*", _HIDDEN, "hidream_i1_fast"),
            Model("wan2.1/t2v-1.3b*", _EITHER, "wan2.1_t2v_1.3B"),
            Model("wan2.1/t2v-14b*", _EITHER, "wan2.1_t2v_14B"),
            Model("wan2.1/i2v-14b-480p*", _EITHER, "wan2.1_i2v_480p_14B"),
            Model("wan2.1/i2v-14b-720p*", _EITHER, "wan2.1_i2v_720p_14B"),
        ),
        window="user",
    ),
    Engine(
        name="lightx2v",
        title="LightX2V",
        module="lightx2v",
        suffix="json",
        sources=(
            Source(
                "ModelTC/LightX2V",
                "configs/caching/teacache/wan_i2v_tea_480p.json",
                "29c8504c1487d886673d415784bea7a4ffc95352",
            ),
            Source(
                "ModelTC/LightX2V",
                "configs/caching/magcache/wan_t2v_mag_1_3b.json",
                "29c8504c1487d886673d415784bea7a4ffc95352",
            ),
            Source(
                "ModelTC/LightX2V",
                "lightx2v/models/networks/wan/infer/feature_caching/transformer_infer.py",
                "07c557c60972735be8d8ae239261daa509afcecd",
            ),
        ),
        summary="Accumulates p(x) as it is; for Wan the file holds two lists and use_ret_steps chooses list, signal and window.",
        models=(
            Model("wan2.1/*", _EITHER, methods=_BOTH),
            Model("wan2.2/ti2v-5b*", _EITHER),
            Model("hunyuanvideo-1.5/*", _MODULATED, methods=_BOTH),
        ),
        methods=_BOTH,
        window="retention",
        together=("set",),
    ),
    Engine(
        name="diffusers",
        title="diffusers",
        module="diffusers_config",
        suffix="py",
        sources=(
            Source("huggingface/diffusers", "src/diffusers/hooks/mag_cache.py", "release 0.42.1"),
            Source("huggingface/diffusers", "src/diffusers/hooks/first_block_cache.py", "release 0.42.1"),
        ),
        summary="Has no TeaCache. MagCache takes one list of ratios for all branches and interpolates it; FirstBlockCache takes a "
        "threshold on the first block's residual against the last computed step, and no polynomial.",
        methods=("magcache", "teacache"),
        window="fraction",
        takes_limit=True,
        list_per_branch=False,
    ),
    Engine(
        name="cache-dit",
        title="cache-dit",
        module="cache_dit",
        suffix="yaml",
        sources=(
            Source("vipshop/cache-dit", "src/cache_dit/caching/load_configs.py", "release 1.5.3"),
            Source("vipshop/cache-dit", "src/cache_dit/caching/cache_contexts/cache_config.py", "release 1.5.3"),
        ),
        summary="Takes a mask of computed steps; with the static policy nothing else decides. Its first block is always computed.",
        window="mask",
        plan="schedule",
        reads=False,
    ),
    Engine(
        name="xdit",
        title="xDiT",
        module="xdit",
        suffix="py",
        sources=(
            Source(
                "xdit-project/xDiT", "xfuser/model_executor/cache/utils.py", "215cc75bc9fa7ed010c27b3ceba11eb486ff19ec"
            ),
        ),
        summary="Accumulates p(x) as it is, in single precision, from a buffer of the cache context that the name selects.",
        models=(Model("flux.1/*", _MODULATED, "flux"),),
        window="ends",
    ),
    Engine(
        name="nunchaku",
        title="nunchaku",
        module="nunchaku",
        suffix="py",
        sources=(
            Source(
                "nunchaku-tech/nunchaku", "nunchaku/caching/teacache.py", "3a3cc3d0649a7d5bc575dc899a03f2d4456df181"
            ),
            Source(
                "nunchaku-tech/nunchaku", "nunchaku/caching/teacache.py", "24d65c9f270c3013cd5b56b380fc55f06957c69d"
            ),
        ),
        summary="Accumulates |p(x)| with coefficients of its own for two models; only threshold and window are parameters.",
        models=(
            Model("flux.1/kontext-dev*", _MODULATED, "flux-kontext", "abs"),
            Model("flux.1/dev*", _MODULATED, "flux", "abs"),
        ),
        window="start",
        reads=False,
    ),
    Engine(
        name="wan2gp",
        title="Wan2GP",
        module="wan2gp",
        suffix="json",
        sources=(
            Source("deepbeepmeep/Wan2GP", "defaults/multitalk.json", "8681e9f777f9f847f74a0bdefd13d5b9a6efe12d"),
            Source("deepbeepmeep/Wan2GP", "models/wan/wan_handler.py", "02422beb05527c17aa0171eb28bda92c2298f0e9"),
        ),
        summary="Accumulates |p(x)| for Wan and p(x) for HunyuanVideo; searches the threshold itself for the speed-up asked for.",
        models=(
            Model("wan2.1/*", _EMBEDDING, post="abs"),
            Model("hunyuanvideo/*", _MODULATED),
        ),
        window="user",
        takes_threshold=False,
    ),
    Engine(
        name="seed",
        title="EasyTeacache's cache.json",
        module="seed",
        suffix="json",
        sources=(
            Source(
                "oneflyingfish/EasyTeacache",
                "EasyTeacache/teacache/tea_cache.py",
                "eea6fb54d321bd4aa5b10808ab9e2c14693ba057",
            ),
        ),
        summary="Accumulates p(x) as it is on t_mod, the timestep projection; threshold and window are arguments of the constructor.",
        models=(Model("*", frozenset({"timestep_projection"})),),
        window="user",
        takes_threshold=False,
    ),
    Engine(
        name="json",
        title="plain JSON",
        module="plain_json",
        suffix="json",
        sources=(),
        summary="Everything that was resolved, for programs of your own: signal, domain and treatment of p(x) included.",
        methods=_BOTH,
        takes_limit=True,
        plan="either",
        evaluates_as_recorded=True,
    ),
    Engine(
        name="python",
        title="plain Python",
        module="plain_python",
        suffix="py",
        sources=(),
        summary="The same as a module of constants.",
        methods=_BOTH,
        takes_limit=True,
        plan="either",
        evaluates_as_recorded=True,
    ),
)

ENGINES: dict[str, Engine] = {engine.name: engine for engine in _ENGINES}
