"""How each engine decides: its own released code where a wheel or an installed package has it, its rule restated otherwise.

Every function takes an exported text and the distances of one run, ``x[k]`` from step k − 1 to step k, and gives the computed
steps. Restated rules name file, lines and commit; nothing of the engines' code is copied.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import math
import struct
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

Decide = Callable[[str, Sequence[float]], list[int]]

WHEELS = {"vllm-omni": "0.30.0", "sglang": "0.5.23", "xfuser": "0.7.0"}
# sglang has one wheel a platform and interpreter; its modules for diffusion are the same in all of them.
_PLATFORM = {"sglang": ["--platform", "manylinux_2_34_x86_64", "--python-version", "3.11"]}


def wheel(name: str, folder: Path) -> Path:
    """The unpacked release of ``name``; skips the test where the package index cannot be reached or does not have it."""
    unpacked = folder / f"{name}-{WHEELS[name]}"
    if not unpacked.is_dir():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += [*_PLATFORM.get(name, []), "--dest", str(folder), f"{name}=={WHEELS[name]}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            pytest.skip(f"{name} {WHEELS[name]} cannot be downloaded: {done.stderr.strip().splitlines()[-1:]}")
        (file,) = folder.glob(f"{name.replace('-', '_')}-*.whl")
        with zipfile.ZipFile(file) as archive:
            members = [each for each in archive.namelist() if each.endswith((".py", ".json"))]
            archive.extractall(unpacked, members)
    return unpacked


@contextlib.contextmanager
def stand_ins(modules: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Put empty modules with these attributes where an engine's file imports its runtime from."""
    before = {name: sys.modules.get(name) for name in modules}
    try:
        for name, attributes in modules.items():
            module = types.ModuleType(name)
            vars(module).update(attributes)
            module.__path__ = []  # type: ignore[attr-defined]
            sys.modules[name] = module
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def load(path: Path, name: str) -> types.ModuleType:
    """One file of an engine as a module of its own, registered under ``name`` as its siblings import it."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while it is being made.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def signals(distances: Sequence[float]) -> list[Any]:
    """Tensors (in double precision) whose relative L1 distances from one step to the next are ``distances``."""
    import torch

    values = [1.0]
    for distance in distances[1:]:
        values.append(values[-1] * (1 + distance))
    return [torch.full((1, 2, 2), value, dtype=torch.float64) for value in values]


def call(text: str, name: str) -> dict[str, Any]:
    """Keyword arguments of the one call of ``name`` in a Python text."""
    (found,) = (
        each for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Call) and ast.unparse(each.func) == name
    )
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in found.keywords if keyword.arg}


def assigned(text: str) -> dict[str, Any]:
    """Every assignment of a literal in a Python text."""
    return {
        each.targets[0].id: ast.literal_eval(each.value)
        for each in ast.parse(text).body
        if isinstance(each, ast.Assign)
    }  # type: ignore[attr-defined]


# Released code ------------------------------------------------------------------------------------------------------------


def sglang(folder: Path) -> Decide:
    """``TeaCacheParams`` and ``TeaCacheMixin`` of SGLang, asked as its Wan model asks them (dits/wanvideo.py)."""
    root = wheel("sglang", folder) / "sglang/multimodal_gen"
    parameters = "sglang.multimodal_gen.configs.sample.sampling_params"
    with stand_ins({parameters: {"CacheParams": type("CacheParams", (), {})}}):
        params = load(root / "configs/sample/teacache.py", "sglang_teacache_params")
        runtime = load(root / "runtime/cache/teacache.py", "sglang_teacache")

    def decide(text: str, distances: Sequence[float]) -> list[int]:
        config = params.TeaCacheParams(**call(text, "TeaCacheParams"))
        model = type("Model", (runtime.TeaCacheMixin,), {"prefix": "wan"})()
        model._init_teacache_state()
        start, end = config.get_skip_step_range(len(distances))
        return [
            step
            for step, signal in enumerate(signals(distances))
            if model._compute_teacache_decision(
                modulated_inp=signal,
                is_boundary_step=not start <= step < end,
                coefficients=config.get_coefficients(),
                teacache_thresh=config.teacache_thresh,
            )
        ]

    return decide


def vllm_omni(folder: Path, transformer: str) -> Decide:
    """``TeaCacheConfig`` and ``TeaCacheHook`` of vLLM-Omni."""
    root = wheel("vllm-omni", folder) / "vllm_omni/diffusion/cache/teacache"
    package = "vllm_omni.diffusion"
    groups = ("get_classifier_free_guidance_rank", "get_classifier_free_guidance_world_size", "get_sp_group")
    stands = {
        f"{package}.cache.teacache.extractors": {"get_extractor": None},
        f"{package}.distributed.parallel_state": {
            **dict.fromkeys(groups),
            "model_parallel_is_initialized": lambda: False,
        },
        f"{package}.hooks": {"HookRegistry": None, "ModelHook": object, "StateManager": lambda kind: None},
    }
    parents = {".".join(name.split(".")[:i]): {} for name in stands for i in range(1, name.count(".") + 1)}
    with stand_ins({**parents, **stands}):
        config = load(root / "config.py", f"{package}.cache.teacache.config")
        state = load(root / "state.py", f"{package}.cache.teacache.state")
        hook = load(root / "hook.py", "vllm_omni_teacache_hook")

    def decide(text: str, distances: Sequence[float]) -> list[int]:
        content = json.loads(text)
        made = config.TeaCacheConfig(
            rel_l1_thresh=content["rel_l1_thresh"], coefficients=content["coefficients"], transformer_type=transformer
        )
        asked, kept = hook.TeaCacheHook(made), state.TeaCacheState()
        computed = []
        for step, signal in enumerate(signals(distances)):
            if asked._should_compute_full_transformer(kept, signal):
                computed.append(step)
            kept.previous_modulated_input = signal
            kept.cnt += 1
        return computed

    return decide


def vllm_omni_magcache(folder: Path) -> Callable[[str, int], list[int]]:
    """``MagCacheConfig`` and ``MagCacheHeadHook`` of vLLM-Omni, with blocks that add their own number."""
    import torch

    root = wheel("vllm-omni", folder) / "vllm_omni/diffusion"
    package = "vllm_omni.diffusion"
    logger = {"init_logger": lambda name: types.SimpleNamespace(debug=print, info=print, warning=print)}
    parents = [package, f"{package}.cache", f"{package}.cache.magcache", f"{package}.hooks", "vllm_omni", "vllm"]
    with stand_ins({**{name: {} for name in parents}, "vllm.logger": logger, "vllm_omni.logger": logger}):
        config = load(root / "cache/magcache/config.py", f"{package}.cache.magcache.config")
        load(root / "cache/magcache/state.py", f"{package}.cache.magcache.state")
        load(root / "cache/magcache/strategy.py", f"{package}.cache.magcache.strategy")
        load(root / "hooks/base.py", f"{package}.hooks.base")
        hook = load(root / "cache/magcache/hook.py", "vllm_omni_magcache_hook")

    class Block(torch.nn.Module):
        def forward(self, hidden_states: Any, encoder_hidden_states: Any) -> Any:
            ran.append(True)
            return encoder_hidden_states, hidden_states + 1

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList([Block(), Block()])

        def forward(self, hidden: Any) -> Any:
            encoder = hidden
            for block in self.blocks:
                encoder, hidden = block(hidden, encoder)
            return hidden

    ran: list[bool] = []

    def decide(text: str, steps: int) -> list[int]:
        # As magcache/backend.py takes them from DiffusionCacheConfig, which has 28 where the object says nothing.
        content = json.loads(text)
        made = config.MagCacheConfig(
            threshold=content["mag_threshold"],
            max_skip_steps=content["mag_max_skip_steps"],
            retention_ratio=content["mag_retention_ratio"],
            num_inference_steps=content.get("num_inference_steps") or 28,
            mag_ratios=content["mag_ratios"],
            transformer_type="Model",
        )
        model = Model()
        hook.apply_mag_cache_hook(model, made)
        computed = []
        for step in range(steps):
            ran.clear()
            model(torch.ones(1, 2, 2))
            if ran:
                computed.append(step)
        return computed

    return decide


def xdit(folder: Path) -> Decide:
    """``TeaCachedTransformerBlocks`` of xDiT, run whole with a block whose norm is the signal."""
    import torch

    root = wheel("xfuser", folder) / "xfuser"
    stands = {
        "xfuser": {},
        "xfuser.compat": {"version_at_least": lambda *versions: True},
        "xfuser.core": {},
        "xfuser.core.distributed": {"get_sp_group": None, "get_sequence_parallel_world_size": lambda: 1},
        "xfuser.envs": {"get_device": lambda rank: "cpu"},
    }
    with stand_ins(stands):
        utils = load(root / "model_executor/cache/utils.py", "xfuser_cache_utils")

    class Block(torch.nn.Module):
        def norm1(self, hidden: Any, emb: Any) -> Any:
            return emb, None, None, None, None

        def forward(self, hidden: Any, encoder: Any, temb: Any) -> Any:
            ran.append(True)
            return hidden + 1, encoder

    ran: list[bool] = []

    def decide(text: str, distances: Sequence[float]) -> list[int]:
        content = assigned(text)
        arguments = content["TEACACHED_BLOCKS"]
        blocks = utils.TeaCachedTransformerBlocks([Block()], **arguments)
        # The buffer of this name, as an import of the file into CacheContext would set it.
        coefficients = torch.tensor(content[f"{arguments['name']}_coef"])
        blocks.rescale_func = utils.VectorizedPoly1D(coefficients)
        runs = []
        for _ in range(2):
            computed = []
            for step, signal in enumerate(signals(distances)):
                ran.clear()
                blocks(torch.ones(1, 2, 2), torch.ones(1, 1, 2), temb=signal.float())
                if ran:
                    computed.append(step)
            runs.append(computed)
        assert runs[0] == runs[1], "the second run of a pipeline is decided as the first"
        return runs[1]

    return decide


# Restated rules -----------------------------------------------------------------------------------------------------------


def tensorrt_llm(text: str, distances: Sequence[float]) -> list[int]:
    """NVIDIA/TensorRT-LLM, tensorrt_llm/_torch/visual_gen/cache/teacache.py at aaedbf926586, ``_should_compute`` and ``refresh``.

    The sum is capped at twice the threshold, which changes no decision.
    """
    section = yaml.safe_load(text)["cache_config"]
    p, threshold = np.poly1d(section["coefficients"]), section["teacache_thresh"]
    retention, steps = section["use_ret_steps"], len(distances)
    first, cutoff = (5, steps) if retention else (1, steps - 1)
    computed, total = [], 0.0
    for step, x in enumerate(distances):
        if step < first:
            total = 0.0
        elif step < cutoff:
            total = min(total + abs(float(p(x))), 2 * threshold)
            if total < threshold:
                continue
            total = 0.0
        computed.append(step)
    return computed


def comfyui(text: str, distances: Sequence[float]) -> list[int]:
    """welltop-cn/ComfyUI-TeaCache, nodes.py at 91dff8e31684: lines 91–109 (FLUX), 657–678 and 690–695 (others), 945–950 (window)."""
    content = assigned(text)
    node = content["TEACACHE_NODE"]
    name, steps = node["model_type"], len(distances)
    p = np.poly1d(content["SUPPORTED_MODELS_COEFFICIENTS"][name])
    computed, total = [], 0.0
    for step, x in enumerate(distances):
        wants = True
        if step:
            total += abs(float(p(x))) if name.startswith("flux") else float(p(x))
            wants = not total < node["rel_l1_thresh"]
            total = 0.0 if wants else total
        if wants or not node["start_percent"] <= step / steps <= node["end_percent"]:
            computed.append(step)
    return computed


def lightx2v(text: str, distances: Sequence[float]) -> list[int]:
    """ModelTC/LightX2V, lightx2v/models/networks/wan/infer/feature_caching/transformer_infer.py at c001d0a9f7e5, lines 26–80; for

    HunyuanVideo-1.5 networks/hunyuan_video/infer/feature_caching/transformer_infer.py at e91f97639b0e, lines 160–190: one list,
    first and last step computed.
    """
    content = json.loads(text)
    listed, retention = content["coefficients"], content.get("use_ret_steps", False)
    p = np.poly1d(listed[0 if retention else 1] if isinstance(listed[0], list) else listed)
    first, cutoff = (5, len(distances)) if retention else (1, len(distances) - 1)
    return _accumulated(distances, p, content["teacache_thresh"], first, cutoff)


def wan2gp(text: str, distances: Sequence[float], *, threshold: float, start_step: int, absolute: bool) -> list[int]:
    """deepbeepmeep/Wan2GP, models/wan/modules/model.py at 1a4ba715a8d4, lines 1945–1963; models/hyvideo/modules/models.py at

    1a1d9a0f471e, lines 1124–1134. Threshold and start are settings there, not in the file.
    """
    p = np.poly1d(json.loads(text)["model"]["teacache_coefficients"])
    signed = (lambda x: abs(p(x))) if absolute else p
    return _accumulated(distances, signed, threshold, start_step + 1, len(distances) - 1)


def seed(text: str, distances: Sequence[float], *, threshold: float, first: int, last: int, limit: int) -> list[int]:
    """oneflyingfish/EasyTeacache, EasyTeacache/teacache/tea_cache.py at eea6fb54d321, ``check``; the rest are its constructor's."""
    content = json.loads(text)
    content.pop("_easyteacache")
    while "meta_data" not in content:
        (content,) = content.values()
    p = np.poly1d(np.array(content["meta_data"]["coefficients"], dtype=np.float32))
    computed, total = [], 0.0
    for step, x in enumerate(distances):
        if computed and first <= step <= last and step - computed[-1] <= limit and p(x) + total < threshold:
            total += p(x)
            continue
        computed.append(step)
        total = 0.0
    return computed


def nunchaku(text: str, distances: Sequence[float], *, coefficients: Sequence[float]) -> list[int]:
    """nunchaku-tech/nunchaku, nunchaku/caching/teacache.py at 3a3cc3d0649a, lines 188–258.

    Raises:
        TypeError: a reused step finds no residual, which is what ``Tensor += None`` raises there.
    """
    arguments = assigned(text)["TEACACHE"]
    p, steps = np.poly1d(coefficients), arguments["num_steps"]
    computed, total, residual = [], 0.0, None
    for step, x in enumerate(distances):
        wants = True
        if step in (0, steps - 1):
            total = 0.0
        else:
            total += abs(float(p(x)))
            wants = not total < arguments["rel_l1_thresh"]
            total = 0.0 if wants else total
        count = (step + 1) % steps
        if count > arguments["skip_steps"] and not wants:
            if residual is None:
                raise TypeError("no residual")
            continue
        if count > arguments["skip_steps"]:
            residual = step
        computed.append(step)
    return computed


def lightx2v_magcache(text: str, branch: int) -> list[int]:
    """ModelTC/LightX2V, wan/infer/feature_caching/transformer_infer.py at c001d0a9f7e5, lines 979–1020."""
    content = json.loads(text)
    steps = content["infer_steps"]
    ratios = np.array(content["magcache_ratios"])[branch]
    computed, product, error, run = [], 1.0, 0.0, 0
    for step in range(steps):
        if step >= int(steps * content["magcache_retention_ratio"]):
            product, run = product * ratios[step], run + 1
            error += abs(1 - product)
            if error < content["magcache_thresh"] and run <= content["magcache_K"]:
                continue
            product, error, run = 1.0, 0.0, 0
        computed.append(step)
    return computed


def magcache_hook(text: str, engine: str) -> list[int]:
    """huggingface/diffusers release 0.42.1, src/diffusers/hooks/mag_cache.py, and vllm-project/vllm-omni release 0.30.0,

    vllm_omni/diffusion/cache/magcache/hook.py: ``MagCacheHeadHook.new_forward``, the same rule in both.
    """
    if engine == "diffusers":
        given = call(text, "MagCacheConfig")
    else:
        given = {name.removeprefix("mag_"): value for name, value in json.loads(text).items()}
        given["mag_ratios"] = given.pop("ratios")
    steps, ratios = given["num_inference_steps"], given["mag_ratios"]
    assert len(ratios) == steps
    kept = int(given["retention_ratio"] * steps + 0.5)
    computed, product, error, run = [], 1.0, 0.0, 0
    for step in range(steps):
        if step >= kept:
            product, run = product * ratios[step], run + 1
            error += abs(1.0 - product)
            if computed and error <= given["threshold"] and run <= given["max_skip_steps"]:
                continue
            product, error, run = 1.0, 0.0, 0
        computed.append(step)
    return computed


def _accumulated(distances: Sequence[float], p: Any, threshold: float, first: int, cutoff: int) -> list[int]:
    computed, total = [], 0.0
    for step, x in enumerate(distances):
        if first <= step < cutoff:
            total += float(p(x))
            if total < threshold:
                continue
        total = 0.0
        computed.append(step)
    return computed


def dpcache(schedule: Any) -> tuple[int, ...]:
    """SGLang's own check of a DPCache schedule, re-stated: ``validate_schedule`` with ``_validate_mandatory`` and ``_validate_max_gap``.

    sgl-project/sglang, python/sglang/multimodal_gen/runtime/cache/dpcache.py from line 448 on, and from 240 and 256, at commit
    b9810f5f784730325b2501a99b178bdc3816ec36 (after release 0.5.23). Raises ``ValueError`` where that raises.
    """

    def require(condition: bool) -> None:
        if not condition:
            raise ValueError

    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

    fields = "pipeline checkpoint num_inference_steps height width guidance_scale do_classifier_free_guidance quality"
    fields += " attention_backend dtype scheduler scheduler_config_sha256 timesteps sigmas"
    needed = (
        "schema predictor objective source_commit request mandatory_full_steps force_last_full max_gap num_full_steps"
    )
    require(
        isinstance(schedule, dict)
        and {*needed.split(), "full_steps", "calibrated_cost", "calibration"} <= set(schedule)
    )
    require(schedule["schema"] == "sglang-dpcache-schedule-v2")
    named = {"name": "final-feature-linear-extrapolation", "order": 1, "arithmetic": "feature-dtype-elementwise-v1"}
    require(isinstance(schedule["predictor"], dict) and schedule["predictor"] == named)
    require(schedule["objective"] == "pact-mean-abs-final-feature-predicted-steps-only-v1")
    require(isinstance(schedule["source_commit"], str) and schedule["source_commit"] != "")
    calibration = schedule["calibration"]
    require(isinstance(calibration, dict))
    digest = calibration.get("manifest_sha256")
    require(isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef"))
    require(whole(calibration.get("num_samples")) and calibration["num_samples"] >= 0)
    require(number(schedule["calibrated_cost"]))
    request = schedule["request"]
    require(isinstance(request, dict) and set(request) == set(fields.split()))
    steps = request["num_inference_steps"]
    require(whole(steps) and steps >= 2)
    require(all(whole(request[name]) and request[name] > 0 for name in ("height", "width")))
    for name, length in (("timesteps", steps), ("sigmas", steps + 1)):
        values = request[name]
        require(isinstance(values, list) and len(values) == length and all(map(number, values)))
    require(request["dtype"] == "bfloat16")
    mandatory, gap, full = schedule["mandatory_full_steps"], schedule["max_gap"], schedule["full_steps"]
    require(isinstance(mandatory, list) and len(mandatory) >= 2 and all(map(whole, mandatory)))
    require(mandatory == [*range(len(mandatory))] and len(mandatory) <= steps)
    require(gap is None or (whole(gap) and gap >= 1))
    require(isinstance(full, list) and all(map(whole, full)))
    require(full == sorted(set(full)) and all(0 <= step < steps for step in full))
    require(full[: len(mandatory)] == mandatory and schedule["num_full_steps"] == len(full))
    require(not schedule["force_last_full"] or full[-1] == steps - 1)
    require(gap is None or all(b - a <= gap for a, b in zip(full, [*full[1:], steps], strict=True)))
    return tuple(full)


def dpcache_matches(schedule: Any, request: Mapping[str, Any]) -> bool:
    """Whether SGLang serves a request with a schedule: all fields alike, noise levels as single-precision numbers (same file, line 560)."""
    ours, theirs = dict(schedule["request"]), dict(request)
    for name in ("timesteps", "sigmas"):
        ours[name], theirs[name] = ([struct.pack("f", value) for value in each[name]] for each in (ours, theirs))
    return ours == theirs


def sglang_mask(variables: Mapping[str, str], num_steps: int) -> list[int] | None:
    """The mask that SGLang makes of its environment for a run; None where its threshold would decide.

    sgl-project/sglang release 0.5.23, python/sglang/multimodal_gen/runtime/pipelines_core/stages/denoising.py:827 and
    runtime/cache/cache_dit_integration.py:182.
    """
    texts = [variables.get(f"SGLANG_CACHE_DIT_SCM_{which}_BINS") for which in ("COMPUTE", "CACHE")]
    if not all(texts) or variables.get("SGLANG_CACHE_DIT_ENABLED", "").lower() not in ("1", "true"):
        return None
    bins = [[int(part.strip()) for part in (text or "").split(",")] for text in texts]
    from cache_dit import steps_mask

    mask: list[int] = steps_mask(compute_bins=bins[0], cache_bins=bins[1], total_steps=num_steps, mask_policy="medium")
    return mask
