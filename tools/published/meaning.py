"""What the published numbers are functions of: signal, fitted output, treatment of p(x), and the skip window.

Each table lists every calibration by id, so that a new one cannot be imported without somebody deciding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_WAN = ("t2v-1.3b", "t2v-14b", "i2v-14b-480p", "i2v-14b-720p")
_ANIMA_SAMPLERS = ("euler-normal", "euler-simple", "euler-beta57", "er_sde-simple", "uni_pc-ddim_uniform")
_CHINOKIKISS = tuple(f"anima-chinokikiss-{name}" for name in _ANIMA_SAMPLERS)
_HUNYUAN15 = tuple(f"hunyuanvideo-1.5-{name}" for name in ("t2v-480p", "t2v-720p", "i2v-480p", "i2v-720p"))
_KLEIN = ("flux.2-klein-4b-mlx", "flux.2-klein-9b-mlx", "flux.2-klein-base-4b-mlx")
_MLX = ("flux.1-krea-dev", "qwen-image-mlx", "qwen-image-2512-mlx", "z-image-base-mlx", *_KLEIN)
_UPSTREAM = (
    *(f"wan2.1-{name}-{mode}" for name in _WAN for mode in ("default", "ret")),
    *("hunyuanvideo-t2v", "flux.1-dev", "cogvideox-2b", "cogvideox-5b", "cogvideox1.5-5b", "cogvideox1.5-5b-i2v"),
    *("cosmos-1.0-diffusion-7b", "ltx-video-0.9.1", "mochi-1-preview", "lumina-next-sft", "hidream-i1-full"),
    *("open-sora-1.2", "open-sora-plan-1.1", "latte-1"),
)

SIGNALS: dict[str, tuple[str, ...]] = {
    "timestep_embedding": (
        *(f"wan2.1-{name}-default" for name in _WAN),
        *("wan2.2-ti2v-5b-lightx2v", "cogvideox-2b", "cogvideox-5b", "cogvideox1.5-5b", "cogvideox1.5-5b-i2v"),
        *("lumina-image-2.0-comfy", "hidream-i1-full", "hunyuanimage3-vllm-omni"),
    ),
    # NewBie: block 0's adaLN modulation vector; it carries the pooled prompt too, which does not change during a run.
    "timestep_projection": (*(f"wan2.1-{name}-ret" for name in _WAN), "newbie"),
    # SenseNova-U1 and Stable Audio normalise block 0's input without modulating it: the same place in the network.
    "modulated_input": (
        *("hunyuanvideo-t2v", *_HUNYUAN15, "flux.1-dev", "flux.1-dev-issue20-refit", "flux.1-kontext-dev"),
        *("flux.1-krea-dev", "cosmos-1.0-diffusion-7b", "ltx-video-0.9.1", "mochi-1-preview", "lumina-next-sft"),
        *(
            "lumina-image-2.0-v1",
            "lumina-image-2.0-v2",
            "open-sora-1.2",
            "open-sora-plan-1.1",
            "latte-1",
            "easyanimate-v5-7b-inp",
        ),
        *("easyanimate-v5.1-7b", "easyanimate-v5.1-12b", "ruyi-mini-7b", "omnigen2", "qwen-image-chenpipi"),
        *("qwen-image-mlx", "qwen-image-2512-mlx", *_KLEIN, "sensenova-u1-vllm-omni"),
        *("stable-audio-open-1.0-vllm-omni", "longcat-image-vllm-omni", "minimax-h3-fl2va", "minimax-h3-ref2va"),
        *("anima-watayuki", *_CHINOKIKISS, "ltx-2-stage1-euler-mlx", "ltx-2-stage1-res2s-mlx"),
    ),
    "hidden_states": ("hidream-i1-dev", "hidream-i1-fast", "bagel-vllm-omni"),
    "first_block_residual": ("z-image-base-mlx", "sdxl-noobai-xl-vpred-1.0", "sdxl-noobai-xl-1.1"),
    "unknown": ("cosmos-predict2.5", "boogu-image-sglang-fork"),
}

FITTED_OUTPUTS: dict[str, tuple[str, ...]] = {
    "model_output": (*_UPSTREAM, "hunyuanimage3-vllm-omni", "sdxl-noobai-xl-vpred-1.0", "sdxl-noobai-xl-1.1"),
    "block_output": (
        *(*_MLX, "bagel-vllm-omni", "stable-audio-open-1.0-vllm-omni", "longcat-image-vllm-omni", "minimax-h3-fl2va"),
    ),
    "block_residual": ("ltx-2-stage1-euler-mlx", "ltx-2-stage1-res2s-mlx"),
    "none": ("lumina-image-2.0-v2", "qwen-image-chenpipi"),
    "unknown": (
        *("wan2.2-ti2v-5b-lightx2v", *_HUNYUAN15, "flux.1-dev-issue20-refit", "flux.1-kontext-dev"),
        *(
            "cosmos-predict2.5",
            "lumina-image-2.0-v1",
            "lumina-image-2.0-comfy",
            "newbie",
            "hidream-i1-dev",
            "hidream-i1-fast",
        ),
        *("easyanimate-v5-7b-inp", "easyanimate-v5.1-7b", "easyanimate-v5.1-12b", "ruyi-mini-7b", "omnigen2"),
        *("boogu-image-sglang-fork", "sensenova-u1-vllm-omni", "minimax-h3-ref2va", "anima-watayuki", *_CHINOKIKISS),
    ),
}

# What the original author's own code does to p(x) before adding it; the project that first printed the numbers decides.
RESCALE_POST: dict[str, tuple[str, ...]] = {
    "none": (
        *(*_UPSTREAM, "wan2.2-ti2v-5b-lightx2v", *_HUNYUAN15, "flux.1-dev-issue20-refit", "cosmos-predict2.5"),
        *(
            "lumina-image-2.0-v1",
            "lumina-image-2.0-v2",
            "lumina-image-2.0-comfy",
            "newbie",
            "hidream-i1-dev",
            "hidream-i1-fast",
        ),
        *("easyanimate-v5-7b-inp", "easyanimate-v5.1-7b", "easyanimate-v5.1-12b", "ruyi-mini-7b", "omnigen2"),
        *("boogu-image-sglang-fork", "qwen-image-chenpipi", "sdxl-noobai-xl-vpred-1.0", "sdxl-noobai-xl-1.1"),
        *("anima-watayuki", "ltx-2-stage1-euler-mlx", "ltx-2-stage1-res2s-mlx"),
    ),
    # ComfyUI-TeaCache takes |p(x)| for the FLUX family, vLLM-Omni for every model.
    "abs": (
        *("flux.1-kontext-dev", "bagel-vllm-omni", "sensenova-u1-vllm-omni", "stable-audio-open-1.0-vllm-omni"),
        *("hunyuanimage3-vllm-omni", "longcat-image-vllm-omni", "minimax-h3-fl2va", "minimax-h3-ref2va"),
    ),
    "clip": (*_MLX, *_CHINOKIKISS),
}

# mlx-teacache computes after eight reused steps in a row.
MAX_CONSECUTIVE_SKIPS: dict[str, int] = dict.fromkeys(_MLX, 8)


@dataclass(frozen=True)
class Window:
    """Steps that may be reused.

    Attributes:
        first, last: inclusive step range, a negative last counts from the end.
        fraction: the same as fractions of the run, where the source gives it so.
        stated: False where the source says nothing and the paper's rule stands in.
    """

    first: int
    last: int
    fraction: tuple[float, float] | None = None
    stated: bool = True


_FIRST_AND_LAST = Window(1, -2)
_FIRST_ONLY = Window(1, -1)
_NOT_STATED = Window(1, -2, stated=False)

# Windows the facts give in words, in percent, or not at all; all others follow from their numbers.
WINDOWS: dict[str, Window] = {
    "flux.1-dev-issue20-refit": _NOT_STATED,
    "flux.1-kontext-dev": Window(1, -1, (0.2, 0.9)),
    "cogvideox-2b": _FIRST_AND_LAST,
    "open-sora-1.2": _FIRST_AND_LAST,
    "open-sora-plan-1.1": _FIRST_AND_LAST,
    "latte-1": _FIRST_AND_LAST,
    # Its call counter runs to twice the step count plus two, so the pair of calls it forces at the end is the last step.
    "cosmos-1.0-diffusion-7b": _FIRST_AND_LAST,
    # Its timestep limit is not an index and could not be read in full.
    "cosmos-predict2.5": _NOT_STATED,
    "lumina-image-2.0-comfy": Window(1, -1, (0.2, 1.0)),
    # Read in the source's later TeaCache_Newbie.py.
    "newbie": _FIRST_AND_LAST,
    "hidream-i1-dev": _FIRST_ONLY,
    "hidream-i1-fast": Window(1, -1, (0.0, 0.9)),
    "omnigen2": _FIRST_AND_LAST,
    "qwen-image-chenpipi": _FIRST_ONLY,
    # It also has a budget (at most 5 reused, at least 35 computed steps), which the record can only describe.
    "minimax-h3-ref2va": _FIRST_ONLY,
    "sdxl-noobai-xl-vpred-1.0": Window(1, -1, (0.3, 1.0)),
    "sdxl-noobai-xl-1.1": Window(1, -1, (0.3, 1.0)),
    "anima-watayuki": _FIRST_AND_LAST,
    **dict.fromkeys(_CHINOKIKISS, _FIRST_AND_LAST),
    # The distilled Klein entries print no window; their project's other variants compute the first and the last step.
    "flux.2-klein-4b-mlx": _FIRST_AND_LAST,
    "flux.2-klein-9b-mlx": _FIRST_AND_LAST,
}


def decided(table: dict[str, tuple[str, ...]], identity: str) -> str:
    """The one value whose group lists this calibration.

    Raises:
        KeyError: nobody has decided about it yet, or twice.
    """
    values = [value for value, members in table.items() if identity in members]
    if len(values) != 1:
        raise KeyError(
            f"{identity}: listed {len(values)} times, expected once; decide about it in tools/published/meaning.py"
        )
    return values[0]


def window_of(fact: dict[str, object]) -> Window:
    """The skip window: decided by hand, or from the fact's own exclusive bounds."""
    identity = str(fact["id"])
    if identity in WINDOWS:
        return WINDOWS[identity]
    bounds = fact["skip_window"]
    assert isinstance(bounds, dict), f"{identity} has no skip window; decide about it in tools/published/meaning.py"
    return Window(_first(bounds["min_step"], fact["num_inference_steps"]), _last(bounds["max_step_exclusive"]))


def _first(value: object, num_steps: object) -> int:
    if isinstance(value, int):
        return value
    assert value == "num_inference_steps*0.1", value
    assert isinstance(num_steps, int)
    return math.ceil(num_steps / 10)


def _last(exclusive: object) -> int:
    # Exclusive bounds are step counts: "all steps but the last" (n − 1) leaves n − 2 as the last index, −2 from the end.
    if exclusive is None or exclusive == "sample_steps":
        return -1
    assert exclusive in ("sample_steps-1", "num_steps-1", "infer_steps-1"), exclusive
    return -2
