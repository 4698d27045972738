"""Every engine: what it was read to do, and where. A new engine is one entry here and one module in ``formats``."""

from __future__ import annotations

from easyteacache.export.engine import CachedModels, Citation, Engine

_EMBEDDING = frozenset({"timestep_embedding"})
_EITHER = frozenset({"timestep_embedding", "timestep_projection"})
_MODULATED = frozenset({"modulated_input"})
_HIDDEN = frozenset({"hidden_states"})
_BOTH = ("teacache", "magcache")
_RATIOS_OR_PRESET = ("magcache", "preset")
_ALL = ("teacache", "magcache", "plan", "preset")
# Whatever comes to a list of computed steps before a run.
_PLANS = ("teacache", "magcache", "plan")
_TEA_OR_PRESET = ("teacache", "preset")
_STEPS_OR_PRESET = (*_PLANS, "preset")

_ENGINES = (
    Engine(
        name="vllm-omni",
        title="vLLM-Omni",
        module="vllm_omni",
        suffix="json",
        sources=(
            Citation("vllm-project/vllm-omni", "vllm_omni/diffusion/cache/teacache/config.py", "release 0.30.0"),
            Citation("vllm-project/vllm-omni", "vllm_omni/diffusion/cache/teacache/hook.py", "release 0.30.0"),
            Citation("vllm-project/vllm-omni", "vllm_omni/diffusion/cache/magcache/backend.py", "release 0.30.0"),
        ),
        summary="Accumulates |p(x)| on its model's own signal; insists on five coefficients.",
        models=(
            CachedModels("flux.1/dev*", _MODULATED, post="abs", methods=_BOTH),
            CachedModels("flux.1/krea-dev*", _MODULATED, post="abs", methods=_BOTH),
            CachedModels("flux.2/klein*", _MODULATED, post="abs"),
            CachedModels("flux.2/dev*", _MODULATED, post="abs", methods=_BOTH),
            CachedModels("qwen-image*", _MODULATED, post="abs"),
            CachedModels("z-image*", _MODULATED, post="abs"),
            CachedModels("longcat-image*", _MODULATED, post="abs"),
            CachedModels("minimax-h3/fl2va*", _MODULATED, post="abs"),
            CachedModels("bagel*", _HIDDEN, post="abs"),
            CachedModels("sensenova-u1*", _MODULATED, post="abs"),
            CachedModels("stable-audio-open*", _MODULATED, post="abs"),
            CachedModels("hunyuan-image/3.0*", _EMBEDDING, post="abs"),
        ),
        methods=(*_BOTH, "preset"),
        window="first",
        coefficients=5,
        list_per_branch=False,
        within=True,
    ),
    Engine(
        name="sglang",
        title="SGLang diffusion",
        module="sglang",
        suffix="py",
        sources=(
            Citation("sgl-project/sglang", "python/sglang/multimodal_gen/configs/sample/teacache.py", "release 0.5.23"),
            Citation("sgl-project/sglang", "python/sglang/multimodal_gen/runtime/cache/teacache.py", "release 0.5.23"),
            Citation(
                "sgl-project/sglang", "python/sglang/multimodal_gen/runtime/models/dits/wanvideo.py", "release 0.5.23"
            ),
        ),
        summary="Accumulates p(x) as it is; use_ret_steps chooses the signal. Only its Wan models ask: HunyuanVideo raises "
        "NotImplementedError, and one set of numbers serves both experts of Wan2.2 A14B.",
        models=(
            CachedModels("wan2.1/*", _EITHER),
            CachedModels("wan2.2/ti2v-5b*", _EITHER),
        ),
        window="given",
    ),
    Engine(
        name="sglang-dpcache",
        title="SGLang DPCache",
        module="sglang_dpcache",
        suffix="json",
        sources=(
            Citation(
                "sgl-project/sglang",
                "python/sglang/multimodal_gen/runtime/cache/dpcache.py",
                "b9810f5f784730325b2501a99b178bdc3816ec36",
            ),
        ),
        summary="Computes the listed steps, 0 and 1 among them, and extrapolates the last block's output linearly over the step "
        "index, branch by branch. A schedule is bound to one server and request; --server FILE says which.",
        methods=_PLANS,
        window="mask",
        plan="schedule",
        place="feature",
        fills=("linear",),
        server=True,
    ),
    Engine(
        name="sglang-cache-dit",
        title="SGLang cache-dit, environment",
        module="sglang_cache_dit",
        suffix="env",
        sources=(
            Citation("sgl-project/sglang", "python/sglang/multimodal_gen/envs.py", "release 0.5.23"),
            Citation(
                "sgl-project/sglang",
                "python/sglang/multimodal_gen/runtime/pipelines_core/stages/denoising.py",
                "release 0.5.23",
            ),
        ),
        summary="Takes computed and reused steps as bins, and DBCache's settings, as variables of the server's environment; with the "
        "policy static nothing but the bins decides. The first block is always computed.",
        methods=_STEPS_OR_PRESET,
        window="mask",
        plan="schedule",
        place="residual",
    ),
    Engine(
        name="sglang-request",
        title="SGLang cache-dit, per request",
        module="sglang_request",
        suffix="json",
        sources=(
            Citation(
                "sgl-project/sglang", "python/sglang/multimodal_gen/configs/sample/sampling_params.py", "release 0.5.23"
            ),
            Citation(
                "sgl-project/sglang",
                "python/sglang/multimodal_gen/runtime/cache/cache_dit_integration.py",
                "release 0.5.23",
            ),
        ),
        summary="The same as fields of one request's body, which go before the server's variables.",
        methods=_STEPS_OR_PRESET,
        window="mask",
        plan="schedule",
        place="residual",
    ),
    Engine(
        name="tensorrt-llm",
        title="TensorRT-LLM VisualGen",
        module="tensorrt_llm",
        suffix="yaml",
        sources=(
            Citation(
                "NVIDIA/TensorRT-LLM",
                "tensorrt_llm/_torch/visual_gen/cache/teacache.py",
                "aaedbf926586258a1d179660c2b4b50e9c1f85a7",
            ),
            Citation(
                "NVIDIA/TensorRT-LLM", "tensorrt_llm/visual_gen/args.py", "01dc259f130c94e199a37ae0488722b9ac74a858"
            ),
        ),
        summary="Accumulates |p(x)|, capped at twice the threshold, on the timestep embedding whatever the model; "
        "for Wan, use_ret_steps chooses its projection instead.",
        models=(
            CachedModels("wan2.1/*", _EITHER, post="abs"),
            CachedModels("wan2.2/*", _EITHER, post="abs"),
            CachedModels("flux.1/*", _EMBEDDING, post="abs"),
            CachedModels("flux.2/*", _EMBEDDING, post="abs"),
            CachedModels("ltx-2/*", _EMBEDDING, post="abs"),
        ),
        window="retention",
        together=("expert",),
    ),
    Engine(
        name="comfyui-teacache",
        title="ComfyUI-TeaCache",
        module="comfyui",
        suffix="py",
        sources=(Citation("welltop-cn/ComfyUI-TeaCache", "nodes.py", "91dff8e31684ca70a5fda309611484402d8fa192"),),
        summary="Accumulates |p(x)| for FLUX and p(x) for everything else; a step that the window forces does not reset the sum.",
        models=(
            CachedModels("flux.1/kontext-dev*", _MODULATED, "flux-kontext", "abs"),
            CachedModels("flux.1/dev*", _MODULATED, "flux", "abs"),
            CachedModels("ltx-video/*", _MODULATED, "ltxv"),
            CachedModels("lumina-image-2.0*", _EMBEDDING, "lumina_2"),
            CachedModels("hunyuanvideo/t2v*", _MODULATED, "hunyuan_video"),
            CachedModels("hidream-i1/full*", _EMBEDDING, "hidream_i1_full"),
            CachedModels("hidream-i1/dev*", _HIDDEN, "hidream_i1_dev"),
            CachedModels("hidream-i1/fast*", _HIDDEN, "hidream_i1_fast"),
            CachedModels("wan2.1/t2v-1.3b*", _EITHER, "wan2.1_t2v_1.3B"),
            CachedModels("wan2.1/t2v-14b*", _EITHER, "wan2.1_t2v_14B"),
            CachedModels("wan2.1/i2v-14b-480p*", _EITHER, "wan2.1_i2v_480p_14B"),
            CachedModels("wan2.1/i2v-14b-720p*", _EITHER, "wan2.1_i2v_720p_14B"),
        ),
        window="shares",
    ),
    Engine(
        name="lightx2v",
        title="LightX2V",
        module="lightx2v",
        suffix="json",
        sources=(
            Citation(
                "ModelTC/LightX2V",
                "configs/caching/teacache/wan_i2v_tea_480p.json",
                "29c8504c1487d886673d415784bea7a4ffc95352",
            ),
            Citation(
                "ModelTC/LightX2V",
                "configs/caching/magcache/wan_t2v_mag_1_3b.json",
                "29c8504c1487d886673d415784bea7a4ffc95352",
            ),
            Citation(
                "ModelTC/LightX2V",
                "lightx2v/models/networks/wan/infer/feature_caching/transformer_infer.py",
                "c001d0a9f7e51e60967f9f1919aca5a7ba367e15",
            ),
            Citation(
                "ModelTC/LightX2V",
                "lightx2v/models/networks/hunyuan_video/infer/feature_caching/transformer_infer.py",
                "e91f97639b0eb04d9cbff6eba8b0b8bb81b06516",
            ),
        ),
        summary="Accumulates p(x) as it is; for Wan the file holds two lists and use_ret_steps chooses list, signal and window, and "
        "Custom in place of Tea continues the residual linearly. It takes no list of steps.",
        models=(
            CachedModels("wan2.1/*", _EITHER, methods=_BOTH),
            CachedModels("wan2.2/ti2v-5b*", _EITHER),
            CachedModels("hunyuanvideo-1.5/*", _MODULATED, methods=_BOTH),
        ),
        methods=(*_BOTH, "preset"),
        window="retention",
        extrapolates="wan",
        together=("set",),
    ),
    Engine(
        name="diffusers",
        title="diffusers",
        module="diffusers_config",
        suffix="py",
        sources=(
            Citation("huggingface/diffusers", "src/diffusers/hooks/mag_cache.py", "release 0.42.1"),
            Citation("huggingface/diffusers", "src/diffusers/hooks/first_block_cache.py", "release 0.42.1"),
            Citation("huggingface/diffusers", "src/diffusers/hooks/_helpers.py", "release 0.42.1"),
        ),
        summary="Has no TeaCache. MagCache takes one list of ratios for all branches and interpolates it, on classes whose blocks "
        "are registered; FirstBlockCache takes a threshold on the first block's residual against the last computed step, and no "
        "polynomial.",
        models=(
            CachedModels("flux.1/*", frozenset(), "FluxTransformer2DModel", methods=_RATIOS_OR_PRESET),
            CachedModels("flux.2/*", frozenset(), "Flux2Transformer2DModel", methods=_RATIOS_OR_PRESET),
            CachedModels(
                "framepack/*", frozenset(), "HunyuanVideoFramepackTransformer3DModel", methods=_RATIOS_OR_PRESET
            ),
            CachedModels("hunyuanvideo/*", frozenset(), "HunyuanVideoTransformer3DModel", methods=_RATIOS_OR_PRESET),
            CachedModels("kandinsky-5/*", frozenset(), "Kandinsky5Transformer3DModel", methods=_RATIOS_OR_PRESET),
            CachedModels("qwen-image/*", frozenset(), "QwenImageTransformer2DModel", methods=_RATIOS_OR_PRESET),
            CachedModels("wan2.1/vace*", frozenset(), "WanVACETransformer3DModel", methods=_RATIOS_OR_PRESET),
            CachedModels("wan2.1/*", frozenset(), "WanTransformer3DModel", methods=_RATIOS_OR_PRESET),
            CachedModels("wan2.2/ti2v-5b/*", frozenset(), "WanTransformer3DModel", methods=_RATIOS_OR_PRESET),
        ),
        methods=("magcache", "teacache", "preset"),
        window="fraction",
        takes_limit=True,
        list_per_branch=False,
        within=True,
    ),
    Engine(
        name="cache-dit",
        title="cache-dit",
        module="cache_dit",
        suffix="yaml",
        sources=(
            Citation("vipshop/cache-dit", "src/cache_dit/caching/load_configs.py", "release 1.5.3"),
            Citation("vipshop/cache-dit", "src/cache_dit/caching/cache_contexts/cache_config.py", "release 1.5.3"),
        ),
        summary="Takes a mask of computed steps; with the static policy nothing else decides. Its first block is always computed.",
        methods=_STEPS_OR_PRESET,
        window="mask",
        plan="schedule",
        place="residual",
    ),
    Engine(
        name="cache-dit-python",
        title="cache-dit, in Python",
        module="cache_dit_python",
        suffix="py",
        sources=(
            Citation("vipshop/cache-dit", "src/cache_dit/caching/cache_interface.py", "release 1.5.3"),
            Citation("vipshop/cache-dit", "src/cache_dit/caching/cache_contexts/cache_config.py", "release 1.5.3"),
        ),
        summary="The same mask spelled in bins, as the configuration that cache_dit.enable_cache takes.",
        methods=_PLANS,
        window="mask",
        plan="schedule",
        place="residual",
    ),
    Engine(
        name="stable-diffusion.cpp",
        title="stable-diffusion.cpp",
        module="stable_diffusion_cpp",
        suffix="txt",
        sources=(
            Citation("leejet/stable-diffusion.cpp", "docs/caching.md", "97d2990807fe6d558e395f8764198d7c7e7b411c"),
            Citation(
                "leejet/stable-diffusion.cpp",
                "src/runtime/cache_dit.hpp",
                "97d2990807fe6d558e395f8764198d7c7e7b411c",
            ),
        ),
        summary="Takes a mask and a policy and decides without them, by a threshold on how far the latent moved, between 15 % and 95 % of "
        "the run; what it adds is what the whole model added to the latent. Refused unless allowed.",
        methods=_PLANS,
        window="mask",
        plan="schedule",
        place="residual",
        fills=("hold",),
    ),
    Engine(
        name="comfyui-lemica",
        title="ComfyUI-LeMiCa",
        module="comfyui_lemica",
        suffix="py",
        sources=(
            Citation("scruffynerf/LeMiCa", "ComfyUI-LeMiCa/nodes.py", "b8f570ab5223ef93dda64ac4e59f730f146f240c"),
        ),
        summary="Repeats the last residual of the block stack at every step that its list does not name; lists and step counts stand in "
        "its source.",
        models=(
            CachedModels("wan2.1/t2v-1.3b*", frozenset(), "wan2.1_t2v_1.3B", methods=_PLANS),
            CachedModels("wan2.1/t2v-14b*", frozenset(), "wan2.1_t2v_14B", methods=_PLANS),
            CachedModels("wan2.1/i2v-14b-480p*", frozenset(), "wan2.1_i2v_480p_14B", methods=_PLANS),
            CachedModels("wan2.1/i2v-14b-720p*", frozenset(), "wan2.1_i2v_720p_14B", methods=_PLANS),
            CachedModels("qwen-image*", frozenset(), "qwen-image", methods=_PLANS),
            CachedModels("z-image/turbo*", frozenset(), "z_image", methods=_PLANS),
        ),
        methods=_PLANS,
        window="mask",
        plan="schedule",
        place="residual",
        fills=("hold",),
    ),
    Engine(
        name="xdit",
        title="xDiT",
        module="xdit",
        suffix="py",
        sources=(Citation("xdit-project/xDiT", "xfuser/model_executor/cache/utils.py", "release 0.7.0"),),
        summary="Accumulates p(x) as it is, in single precision, from a buffer of the cache context that the name selects. It "
        "counts from the second call of a run on, so that steps 0 and 1 are computed and the last one need not be.",
        models=(CachedModels("flux.1/*", _MODULATED, "flux", methods=_TEA_OR_PRESET),),
        methods=_TEA_OR_PRESET,
        window="second",
    ),
    Engine(
        name="nunchaku",
        title="nunchaku",
        module="nunchaku",
        suffix="py",
        sources=(
            Citation(
                "nunchaku-tech/nunchaku", "nunchaku/caching/teacache.py", "3a3cc3d0649a7d5bc575dc899a03f2d4456df181"
            ),
        ),
        summary="Accumulates |p(x)| with coefficients of its own for two models; threshold and step count are parameters. It keeps "
        'no residual of a step that skip_steps covers, so that only 0 works. The cited file opens with "This file is '
        'deprecated."',
        models=(
            CachedModels("flux.1/kontext-dev*", _MODULATED, "flux-kontext", "abs", _TEA_OR_PRESET),
            CachedModels("flux.1/dev*", _MODULATED, "flux", "abs", _TEA_OR_PRESET),
        ),
        methods=_TEA_OR_PRESET,
        window="ends",
        reads=False,
    ),
    Engine(
        name="wan2gp",
        title="Wan2GP",
        module="wan2gp",
        suffix="json",
        sources=(
            Citation("deepbeepmeep/Wan2GP", "defaults/multitalk.json", "8681e9f777f9f847f74a0bdefd13d5b9a6efe12d"),
            Citation("deepbeepmeep/Wan2GP", "models/wan/wan_handler.py", "4d9972134a9fb815a1f1bdbe1ff180da6f10e94e"),
            Citation("deepbeepmeep/Wan2GP", "models/wan/modules/model.py", "1a4ba715a8d4941d1e6db23d48cae1cb1034008c"),
        ),
        summary="Accumulates |p(x)| for Wan and p(x) for HunyuanVideo; searches the threshold itself for the speed-up asked for.",
        models=(
            CachedModels("wan2.1/*", _EMBEDDING, post="abs"),
            CachedModels("hunyuanvideo/*", _MODULATED),
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
            Citation(
                "oneflyingfish/EasyTeacache",
                "EasyTeacache/teacache/tea_cache.py",
                "eea6fb54d321bd4aa5b10808ab9e2c14693ba057",
            ),
        ),
        summary="Accumulates p(x) as it is on t_mod, the timestep projection; threshold and window are arguments of the constructor.",
        models=(CachedModels("*", frozenset({"timestep_projection"})),),
        window="user",
        takes_threshold=False,
        takes_limit=True,
    ),
    Engine(
        name="json",
        title="plain JSON",
        module="plain_json",
        suffix="json",
        sources=(),
        summary="Everything that was resolved, for programs of your own: signal, domain and treatment of p(x) included.",
        methods=_ALL,
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
        methods=_ALL,
        takes_limit=True,
        plan="either",
        evaluates_as_recorded=True,
    ),
)

ENGINES: dict[str, Engine] = {engine.name: engine for engine in _ENGINES}
