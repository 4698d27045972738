"""Run this package's wrappers and nodes in a real ComfyUI, on a CPU and on tiny models of its own classes; prints what happened as JSON.

A script, not a test module: ComfyUI wants a process of its own (it reads the command line, and sets up devices when it is imported).
``test_real_comfyui.py`` starts it with the folder that ``EASYTEACACHE_COMFYUI`` names.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.machinery
import json
import os
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
sys.argv = ["comfyui", "--cpu"]
sys.path.insert(0, os.environ["EASYTEACACHE_COMFYUI"])


def _stand_in(name: str) -> types.ModuleType:
    """ComfyUI imports torchvision's name for models that are not used here."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []
    sys.modules[name] = module
    return module


try:
    import torchvision  # noqa: F401
except ImportError:
    _stand_in("torchvision").transforms = _stand_in("torchvision.transforms")

import torch

torch.set_num_threads(1)

import comfy.options

comfy.options.enable_args_parsing()

import comfy.model_patcher
import comfy.sample
import comfy.samplers
import comfy.supported_models

from easyteacache.files import atomic_write
from easyteacache.integrations.comfyui.cached_model import cached
from easyteacache.integrations.comfyui.report import RunReport
from easyteacache.integrations.comfyui.run_recorder import recorded_model
from easyteacache.integrations.comfyui.sampled_run import SampledRun
from easyteacache.integrations.comfyui.sampler_facts import facts_of
from easyteacache.integrations.comfyui.wrappers import DIFFUSION_MODEL, KEY, ModelWrappers
from easyteacache.integrations.wish import Wish
from easyteacache.policy.curves import Polynomial
from easyteacache.policy.policy import Policy
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.source import FixedPolicy
from easyteacache.records import trace_file
from easyteacache.runtime.session import Session

STEPS = 8
ASKED = ("euler", "euler_ancestral", "dpmpp_2m", "uni_pc", "res_multistep", "lcm")
PLAN = (0, 1, 2, 4, 6)
CPU = torch.device("cpu")


# Models ----------------------------------------------------------------------------------------------------------------


def flux() -> Any:
    config = comfy.supported_models.Flux(
        {"image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 8, "context_in_dim": 8, "hidden_size": 32,
         "mlp_ratio": 2.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "axes_dim": [4, 6, 6], "theta": 10000, "patch_size": 2,
         "qkv_bias": True, "guidance_embed": True, "dtype": torch.float32}
    )  # fmt: skip
    return patcher_of(config)


def wan() -> Any:
    config = comfy.supported_models.WAN21_T2V(
        {"image_model": "wan2.1", "model_type": "t2v", "dim": 32, "out_dim": 16, "num_heads": 2, "ffn_dim": 64, "num_layers": 2,
         "patch_size": (1, 2, 2), "freq_dim": 16, "window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True, "eps": 1e-6,
         "in_dim": 16, "text_dim": 8, "dtype": torch.float32}
    )  # fmt: skip
    return patcher_of(config)


def patcher_of(config: Any) -> Any:
    config.custom_operations = None
    torch.manual_seed(0)
    model = config.get_model({}, "")
    for parameter in model.diffusion_model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.manual_cast_dtype = None
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def conditioning(seed: int, **more: Any) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    pooled = {"pooled_output": torch.randn(1, 8, generator=generator), **more}
    return [[torch.randn(1, 4, 8, generator=generator), pooled]]


SHAPES = {"flux": (1, 16, 8, 8), "wan": (1, 16, 3, 8, 8)}
MODELS: dict[str, Callable[[], Any]] = {"flux": flux, "wan": wan}


def sample(
    model: Any,
    name: str = "flux",
    sampler: str = "euler",
    *,
    steps: int = STEPS,
    cfg: float = 3.0,
    seed: int = 1,
    **more: Any,
) -> torch.Tensor:
    shape = SHAPES[name]
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    arguments = {"positive": conditioning(1), "negative": conditioning(2), **more}
    found = comfy.sample.sample(
        model,
        noise,
        steps,
        cfg,
        sampler,
        "simple",
        arguments.pop("positive"),
        arguments.pop("negative"),
        torch.zeros(shape),
        seed=seed,
        disable_pbar=True,
        **arguments,
    )
    return found.detach()


# What is watched --------------------------------------------------------------------------------------------------------


class Spy:
    """Sees the model's calls outside and inside this package's wrapper."""

    def __init__(self) -> None:
        self.outside: list[tuple[float, tuple[int, ...], torch.Tensor]] = []
        self.inside: list[tuple[float, tuple[int, ...], torch.Tensor]] = []

    def around(self, model: Any, put_on: Callable[[Any], Any]) -> Any:
        outer = model.clone()
        outer.add_wrapper_with_key(
            DIFFUSION_MODEL, "a-spy", lambda *args, **kwargs: self._see(self.outside, *args, **kwargs)
        )
        inner = put_on(outer)
        inner.add_wrapper_with_key(
            DIFFUSION_MODEL, "z-spy", lambda *args, **kwargs: self._see(self.inside, *args, **kwargs)
        )
        return inner

    def _see(self, seen: list[Any], executor: Any, *args: Any, **kwargs: Any) -> Any:
        options = next(
            value
            for value in reversed((*args, *kwargs.values()))
            if isinstance(value, dict) and "cond_or_uncond" in value
        )
        output = executor(*args, **kwargs)
        seen.append((float(options["sigmas"][0]), tuple(options["cond_or_uncond"]), output.detach().clone()))
        return output

    def computed(self) -> list[int]:
        """The steps at which the model was computed."""
        levels = list(dict.fromkeys(level for level, _, _ in self.outside))
        return sorted({levels.index(level) for level, _, _ in self.inside})


def fixed(**changes: Any) -> Callable[[RunContext], Session]:
    base: dict[str, Any] = {
        "model_key": "toy", "revision": 1, "status": "draft", "layer": "given", "signal": "none", "curve": Polynomial((0.0,)),
        "threshold": 0.0, "first_skip_step": 0, "last_skip_step": None, "max_consecutive_skips": None, "buckets": (),
        "schedule": PLAN, "applied_to": "output", "num_steps": STEPS,
    }  # fmt: skip
    policy = Policy(**{**base, **changes})
    return lambda run: Session(FixedPolicy(policy), Request(), run)


class Cache:
    """The wrappers with a plan, and what they report."""

    def __init__(self, make: Callable[[RunContext], Session] | None) -> None:
        self.reports: list[RunReport] = []
        self.wrappers = ModelWrappers(make, report=self.reports.append)

    def on(self, model: Any) -> Any:
        return self.wrappers.put_on(model)

    @property
    def last(self) -> RunReport:
        return self.reports[-1]


def told(report: RunReport) -> dict[str, Any]:
    return {**report.content(), "text": report.text}


# What is shown ----------------------------------------------------------------------------------------------------------


def exact(found: dict[str, Any]) -> None:
    """Exact, by the wish and by a plan that computes every step."""
    for name, make in MODELS.items():
        model = make()
        for sampler in (*ASKED, "heun", "dpm_adaptive"):
            plain = sample(model, name, sampler)
            node = sample(cached(model, plan="exact", model_key="auto", speedup=2.0)[0], name, sampler)
            whole = Cache(fixed(schedule=tuple(range(64))))
            planned = sample(whole.on(model), name, sampler)
            found[f"{name} {sampler}"] = {
                "exact": bool(torch.equal(plain, node)),
                "all computed": bool(torch.equal(plain, planned)),
                "moves": bool(plain.std() > 0),
            }


def plans(found: dict[str, Any]) -> None:
    for name, make in MODELS.items():
        model = make()
        for sampler in (*ASKED, "heun"):
            spy, cache = Spy(), Cache(fixed())
            result = sample(spy.around(model, cache.on), name, sampler)
            found[f"{name} {sampler}"] = {
                "computed": spy.computed(),
                "calls": len(spy.outside),
                "as without": bool(torch.equal(result, sample(model, name, sampler))),
                "report": told(cache.last),
            }


def branches(found: dict[str, Any]) -> None:
    """At a reused step each part of the batch is that of its own conditioning at the last computed step."""
    spy, cache = Spy(), Cache(fixed())
    sample(spy.around(flux(), cache.on))
    computed = {
        (level, kind): part
        for level, kinds, out in spy.inside
        for kind, part in zip(kinds, out.chunk(len(kinds)), strict=True)
    }
    own, other, latest = True, False, dict[int, torch.Tensor]()
    for level, kinds, out in spy.outside:
        for kind, part in zip(kinds, out.chunk(len(kinds)), strict=True):
            latest[kind] = computed.get((level, kind), latest.get(kind, part))
            own = own and torch.equal(part, latest[kind])
        if len(kinds) == 2 and (level, 0) not in computed:
            other = other or torch.equal(out.chunk(2)[0], latest[kinds[1]])
    found["batched"] = sorted({len(kinds) for _, kinds, _ in spy.outside}) == [2]
    found["own"], found["another's"] = own, other


def unbatched(found: dict[str, Any]) -> None:
    """Where memory is short both branches come in calls of their own."""
    model = flux()
    together = sample(Cache(fixed(forecaster="linear")).on(model))
    needed, model.model.memory_required = model.model.memory_required, lambda shape, **_: 1e18 if shape[0] > 1 else 0.0
    spy, cache = Spy(), Cache(fixed(forecaster="linear"))
    apart = sample(spy.around(model, cache.on))
    model.model.memory_required = needed
    found["parts"] = sorted({len(kinds) for _, kinds, _ in spy.outside})
    found["computed"] = spy.computed()
    found["difference"] = float((together - apart).norm() / together.norm())


def mixed(found: dict[str, Any]) -> None:
    """Branches with plans of their own: only those that are to be computed are in the batch."""
    spy = Spy()
    cache = Cache(fixed(branch_schedules=(("cond", (0, 1, 2, 4, 6)), ("uncond", (0, 2, 4)))))
    sample(spy.around(flux(), cache.on))
    levels = list(dict.fromkeys(level for level, _, _ in spy.outside))
    found["cond"] = [levels.index(level) for level, kinds, _ in spy.inside if 0 in kinds]
    found["uncond"] = [levels.index(level) for level, kinds, _ in spy.inside if 1 in kinds]
    found["alone"] = [levels.index(level) for level, kinds, _ in spy.inside if kinds == (0,)]


def again(found: dict[str, Any]) -> None:
    model, cache = flux(), Cache(fixed(forecaster="linear"))
    wrapped = cache.on(model)
    first, second = sample(wrapped), sample(wrapped)
    other = sample(wrapped, seed=2)
    found["second is the first"] = bool(torch.equal(first, second))
    found["patterns"] = [report.content()["pattern"] for report in cache.reports if report.over]
    found["another seed differs"] = not torch.equal(first, other)
    found["fresh model agrees"] = bool(torch.equal(other, sample(Cache(fixed(forecaster="linear")).on(flux()), seed=2)))


def interrupted(found: dict[str, Any]) -> None:
    model, cache, kept = flux(), Cache(fixed(forecaster="linear")), list[Any]()
    wrapped, expected = cache.on(model), sample(Cache(fixed(forecaster="linear")).on(flux()))
    begin = SampledRun.__init__

    def noted(self: SampledRun, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        kept.append((weakref.ref(self), self.session))

    SampledRun.__init__ = noted

    def stop(step: int, *_: Any) -> None:
        if step == 4:
            raise KeyboardInterrupt

    try:
        sample(wrapped, callback=stop)
        found["broken off"] = False
    except KeyboardInterrupt:
        found["broken off"] = True
    SampledRun.__init__ = begin
    gc.collect()
    run, session = kept[0]
    found["bytes"] = session.nbytes
    found["run is gone"] = run() is None
    found["options"] = KEY in wrapped.model_options["transformer_options"]
    found["text"] = cache.last.text
    found["next is whole"] = bool(torch.equal(sample(wrapped), expected))


def graphs(found: dict[str, Any]) -> None:
    """Two samplers in one graph share a model; another model is swapped in between; parts of a run are runs of their own."""
    cache = Cache(fixed(forecaster="linear"))
    first, second = flux(), wan()
    wrapped, other = cache.on(first), cache.on(second)
    one = sample(wrapped)
    sample(other, "wan", "dpmpp_2m")
    found["after a swap"] = bool(torch.equal(one, sample(wrapped)))
    both = Cache(Wish("even", speedup=2.0).session)
    wrapped = both.on(first)
    half = sample(wrapped, start_step=0, last_step=4)
    sample(wrapped, start_step=4, last_step=STEPS)
    found["parts"] = [report.content()["pattern"] for report in both.reports if report.over]
    found["finite"] = bool(torch.isfinite(half).all())
    twice = cache.on(cache.on(first))
    spy = Spy()
    sample(spy.around(twice, lambda model: model))
    found["put on twice"] = len(twice.wrappers[DIFFUSION_MODEL][KEY])


def guided(found: dict[str, Any]) -> None:
    """A plan for the output after guidance skips all of it, at PREDICT_NOISE."""
    spy, cache = Spy(), Cache(fixed(combined=True, forecaster="linear"))
    result = sample(spy.around(flux(), cache.on))
    levels = [
        float(level) for level in facts_of(comfy.samplers.sampler_object("euler"), sigmas(flux()), flux()).levels or ()
    ]
    found["computed"] = [min(range(STEPS), key=lambda step: abs(levels[step] - level)) for level, _, _ in spy.outside]
    found["pattern"] = cache.last.content()["pattern"]
    per_branch = sample(Cache(fixed(forecaster="linear")).on(flux()))
    found["as per branch"] = float((result - per_branch).norm() / per_branch.norm())


def corrected(found: dict[str, Any]) -> None:
    """Rows that correct are handed on under Euler's sampler, and refused under another."""
    rows = tuple(
        tuple(1.0 if place == min(step, 2) else 0.0 for place in range(min(step, 2) + 1)) for step in range(STEPS)
    )
    changes = {"weights": rows, "forecaster": "fitted", "schedule": (0, 1, 2, 5, 6, 7), "num_steps": STEPS}
    levels = facts_of(comfy.samplers.sampler_object("euler"), sigmas(flux()), flux()).levels
    for sampler in ("euler", "dpmpp_2m"):
        cache = Cache(fixed(**changes, noise_levels=levels))
        sample(cache.on(flux()), sampler=sampler)
        found[sampler] = {"refusal": cache.last.refusal, "pattern": cache.last.content()["pattern"]}


def sigmas(model: Any, sampler: str = "euler") -> torch.Tensor:
    return comfy.samplers.KSampler(
        model, steps=STEPS, device=CPU, sampler=sampler, scheduler="simple", denoise=1.0
    ).sigmas


def signatures(found: dict[str, Any]) -> None:
    from easyteacache.records.sampler import SamplerRecord

    model = flux()
    for sampler in comfy.samplers.SAMPLER_NAMES:
        before = torch.get_rng_state()
        facts = facts_of(comfy.samplers.sampler_object(sampler), sigmas(model, sampler), model)
        record = facts.record()
        found[sampler] = {
            "calls": facts.calls,
            "stochastic": facts.probe.stochastic,
            "signature": facts.probe.signature is not None,
            "euler": facts.euler,
            "as diffusers' Euler": record is not None
            and facts.levels is not None
            and bool(record.agrees(SamplerRecord.euler(facts.levels))),
            "random state untouched": bool(torch.equal(before, torch.get_rng_state())),
        }


def patched(found: dict[str, Any]) -> None:
    """Patches of the weights (LoRA) and hooks with a schedule of their own."""
    model = flux()
    name = "diffusion_model.img_in.weight"
    weight = model.model_state_dict()[name]
    lora = model.clone()
    lora.add_patches({name: ("diff", (torch.ones_like(weight) * 0.05,))}, 1.0)
    cache = Cache(Wish("registry", "flux.1/dev", 2.0).session)
    sample(cache.on(lora), steps=28)
    found["lora"] = list(cache.last.warnings)


def repeated(found: dict[str, Any]) -> None:
    """Perturbed guidance calls the model again with the same conditioning: then nothing is reused."""
    model, cache = flux(), Cache(fixed())
    wrapped = cache.on(model)

    def again_with(args: dict[str, Any]) -> torch.Tensor:
        out = comfy.samplers.calc_cond_batch(
            args["model"], [args["cond"]], args["input"], args["sigma"], args["model_options"]
        )
        return args["denoised"] + 0.1 * (args["denoised"] - out[0])

    wrapped.set_model_sampler_post_cfg_function(again_with)
    result = sample(wrapped)
    plain = flux()
    plain.set_model_sampler_post_cfg_function(again_with)
    found["text"], found["as without"] = cache.last.text, bool(torch.equal(result, sample(plain)))


def masked(found: dict[str, Any]) -> None:
    cache, mask = Cache(fixed(forecaster="linear")), torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1.0
    result = sample(cache.on(flux()), noise_mask=mask)
    found["pattern"], found["finite"] = cache.last.content()["pattern"], bool(torch.isfinite(result).all())


def recorded(found: dict[str, Any]) -> None:
    folder = Path(os.environ["EASYTEACACHE_HOME"]) / "traces"
    for name in MODELS:
        reports: list[RunReport] = []
        model = MODELS[name]()
        wrapped, _ = recorded_model(
            model, model_key=f"toy/{name}", prompt="a fox", folder=str(folder), report=reports.append
        )
        result = sample(wrapped, name)
        [path] = [report.recorded for report in reports if report.over]
        entry: dict[str, Any] = {"as without": bool(torch.equal(result, sample(model, name))), "text": reports[-1].text}
        if path is not None:
            [trace] = trace_file.decode(Path(path).read_bytes(), where=path)
            head = trace.header
            entry |= {
                "branches": list(head.branches), "grams": sorted(trace.grams), "tokens": head.sequence_length, "guidance": head.guidance_scale,
                "class": head.model.class_name if head.model else None, "map": trace.sampler_map is not None, "prompt": head.prompt,
                "hooks left": sum(len(block._forward_hooks) + len(block._forward_pre_hooks) for block in model.model.diffusion_model.modules()),
            }  # fmt: skip
        found[name] = entry
    refusals = {"lcm": "lcm", "heun": "heun"}
    for label, sampler in refusals.items():
        reports = []
        wrapped, _ = recorded_model(flux(), model_key="toy/flux", folder=str(folder), report=reports.append)
        sample(wrapped, sampler=sampler)
        found[label] = reports[-1].text


def chain(found: dict[str, Any]) -> None:
    """Record, solve, and run the calibration, all in ComfyUI."""
    from easyteacache.records.trace_set import TraceSet
    from easyteacache.registry import index
    from easyteacache.registry.registry import home
    from easyteacache.solver.solve import Labels, solve

    folder = Path(os.environ["EASYTEACACHE_HOME"]) / "chain"
    model = flux()
    wrapped, _ = recorded_model(model, model_key="toy/chain", folder=str(folder))
    for seed in range(12):
        sample(wrapped, seed=seed, positive=conditioning(seed + 10))
    traces = TraceSet.load(folder)
    solution = solve(traces, labels=Labels(title="Toy"))
    local = home() / "local"
    atomic_write.write_text(local / "toy" / "chain.json", solution.calibration.to_json())
    index.write(local, index.build(local))
    cache = Cache(Wish("registry", "toy/chain", 2.0).session)
    result, plain = sample(cache.on(model), seed=99), sample(model, seed=99)
    even = sample(Cache(Wish("even", speedup=2.0).session).on(model), seed=99)
    found["report"] = told(cache.last)
    found["error"] = float((result - plain).norm() / plain.norm())
    found["even"] = float((even - plain).norm() / plain.norm())


def nodes(found: dict[str, Any]) -> None:
    """The node pack as ComfyUI loads it: its schemas, and each node's execution."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from easyteacache.integrations.comfyui import pack

    extension = asyncio.run(pack.comfy_entrypoint())
    classes = {one.define_schema().node_id: one for one in asyncio.run(extension.get_node_list())}
    found["nodes"] = sorted(classes)
    found["v1"] = {name: sorted(one.INPUT_TYPES()["required"]) for name, one in classes.items()}
    ready = {name: one.PREPARE_CLASS_CLONE({"UNIQUE_ID": "7"}) for name, one in classes.items()}
    model = flux()
    output = ready["EasyTeaCache"].EXECUTE_NORMALIZED(model=model, plan="even", speedup=2.0, model_key="auto")
    result = sample(output.args[0])
    found["about"], found["sampled"] = output.args[1], not torch.equal(result, sample(model))
    unknown = ready["EasyTeaCache"].EXECUTE_NORMALIZED(model=model, plan="registry", speedup=2.0, model_key="auto")
    found["unknown"] = unknown.args[1]
    found["unknown computes"] = bool(torch.equal(sample(unknown.args[0]), sample(model)))
    picture = torch.rand(2, 16, 16, 3)
    compared = ready["EasyTeaCacheCompare"].EXECUTE_NORMALIZED(reference=picture, other=(picture * 0.98), gain=4.0)
    found["compare"] = [compared.args[1], list(compared.args[0].shape), compared.args[2]]
    record = ready["EasyTeaCacheRecord"].EXECUTE_NORMALIZED(
        model=model, model_key="toy/node", folder=os.environ["EASYTEACACHE_HOME"] + "/node"
    )
    sample(record.args[0])
    found["recorded"] = len(list((Path(os.environ["EASYTEACACHE_HOME"]) / "node").glob("*.safetensors")))


SHOWN: dict[str, Callable[[dict[str, Any]], None]] = {
    one.__name__: one
    for one in (exact, plans, branches, unbatched, mixed, again, interrupted, graphs, guided, corrected, signatures, patched, repeated, masked, recorded, chain, nodes)
}  # fmt: skip


def main(names: list[str]) -> Iterator[tuple[str, Any]]:
    for name in names or SHOWN:
        found: dict[str, Any] = {}
        try:
            SHOWN[name](found)
        except Exception as error:  # each is shown by itself
            import traceback

            found["error raised"] = "".join(traceback.format_exception(error)[-4:])
        yield name, found


if __name__ == "__main__":
    chosen = os.environ.get("SHOWN", "").split()
    print("\nFOUND " + json.dumps(dict(main(chosen)), default=str))
