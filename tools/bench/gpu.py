"""What computed and reused steps, corrections and recording cost on a GPU, at the widths of Wan 2.1 14B and FLUX.1.

    tools/bench/gpu.sh
    tools/bench/gpu.sh --model flux --budget 120 --out results
    tools/bench/gpu.sh --cpu-tiny

Weights are random, in bfloat16; sequence lengths, widths and heads are those of the real models: 81 frames of 832×480 for Wan
(32,760 tokens), 1024×1024 for FLUX (4,096 and 512 tokens). Where a whole model would not fit the memory or the time, it has fewer
blocks, and the results say how many; a share of a forward is then larger than that of the whole model. The fastest of several
steps counts, against the fastest without any cache; every step is waited for.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

#: Computed, then reused, then computed again: predictors have four anchors, and corrections something to correct.
STEPS, COMPUTED = 10, (0, 1, 2, 3, 8, 9)
#: Forwards of one model that the contenders below run, warm-up included.
FORWARDS = 90
#: How the time is shared out: a forward of Wan takes many times one of FLUX.
SHARES = {"wan": 0.8, "flux": 0.2}
#: Share of the free memory that weights may take.
MEMORY_SHARE = 0.6
#: Seconds left aside for building and compiling, in which nothing is measured.
ASIDE = 80.0
NO_GPU = (
    "No GPU is here: expected a CUDA device, found none. Run it on a machine with one, or pass --cpu-tiny for a tiny model on the CPU, "
    "whose times say nothing of a GPU."
)


@dataclass(frozen=True)
class Geometry:
    """One model's shape.

    Attributes:
        name: as ``--model`` takes it.
        title: the model it has the widths of.
        blocks: of the whole model; for FLUX double and single ones.
        arguments: of the transformer's class.
        latent: shape of what enters, without the batch.
        text: tokens and channels of the text.
    """

    name: str
    title: str
    blocks: tuple[int, ...]
    arguments: Mapping[str, Any]
    latent: tuple[int, ...]
    text: tuple[int, int]


WAN = Geometry(
    "wan",
    "Wan 2.1 14B, 832×480, 81 frames",
    (40,),
    {"num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "text_dim": 4096, "freq_dim": 256},
    (16, 21, 60, 104),
    (512, 4096),
)
FLUX = Geometry(
    "flux",
    "FLUX.1 dev, 1024×1024",
    (19, 38),
    {"num_attention_heads": 24, "attention_head_dim": 128, "joint_attention_dim": 4096, "pooled_projection_dim": 768},
    (4096, 64),
    (512, 4096),
)
TINY_WAN = Geometry(
    "wan",
    "tiny Wan",
    (3,),
    {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 48, "text_dim": 16, "freq_dim": 32},
    (16, 1, 8, 8),
    (4, 16),
)
TINY_FLUX = Geometry(
    "flux",
    "tiny FLUX",
    (1, 2),
    {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "in_channels": 8,
        "axes_dims_rope": (4, 4, 8),
    },
    (16, 8),
    (4, 32),
)


@dataclass
class Result:
    """One contender's costs.

    Attributes:
        what: the contender and the kind of step.
        milliseconds: the fastest of those steps.
        share: of the forward without a cache, 1 for as long.
        extra_mib: peak memory beyond the forward's without a cache; None where the device does not count it.
    """

    what: str
    milliseconds: float
    share: float
    extra_mib: float | None = None


@dataclass
class Measured:
    """One model's results, and the scale they were measured at."""

    model: str
    blocks: str
    dtype: str
    tokens: int
    forward_ms: float
    peak_gib: float | None
    results: list[Result] = field(default_factory=list)


@click.command(help=__doc__)
@click.option("--model", "models", multiple=True, type=click.Choice(["wan", "flux"]), default=("wan", "flux"))
@click.option("--budget", default=300.0, show_default=True, type=click.FloatRange(60), help="Seconds for all of it.")
@click.option("--out", default=".", show_default=True, type=click.Path(path_type=Path, file_okay=False), help="Folder.")
@click.option("--no-compile", is_flag=True, help="Leave compiled blocks out.")
@click.option("--cpu-tiny", is_flag=True, help="A tiny model on the CPU: whether it runs, not how fast.")
def main(models: tuple[str, ...], budget: float, out: Path, no_compile: bool, cpu_tiny: bool) -> None:
    """Entry point."""
    if not cpu_tiny and not torch.cuda.is_available():
        raise click.ClickException(NO_GPU)
    device = torch.device("cpu" if cpu_tiny else "cuda")
    dtype = torch.float32 if cpu_tiny else torch.bfloat16
    shapes = {"wan": TINY_WAN, "flux": TINY_FLUX} if cpu_tiny else {"wan": WAN, "flux": FLUX}
    if cpu_tiny:
        torch.set_num_threads(1)
    seconds, shared = max(budget - ASIDE, 0.2 * budget), sum(SHARES[name] for name in models)
    found = []
    for name in models:
        click.echo(f"{shapes[name].title} …", err=True)
        backend = None if no_compile else _backend(cpu_tiny)
        found.append(measured(shapes[name], device, dtype, seconds * SHARES[name] / shared, backend=backend))
        if device.type == "cuda":
            torch.cuda.empty_cache()
    machine = _machine(device)
    out.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "tiny": cpu_tiny, "steps": STEPS, "models": [asdict(one) for one in found]}
    (out / "gpu.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    page = table(machine, found, tiny=cpu_tiny)
    (out / "gpu.md").write_text(page, encoding="utf-8")
    click.echo(page)
    click.echo(f"Wrote {out / 'gpu.json'} and {out / 'gpu.md'}.", err=True)


def _backend(tiny: bool) -> str:
    # The tiny model needs no compiler: only that blocks are traced without a break.
    return "eager" if tiny else "inductor"


def _machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
    return f"{name}, torch {torch.__version__}"


# Models ----------------------------------------------------------------------------------------------------------------


def build(shape: Geometry, blocks: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Any:
    """A transformer of this shape with random weights and so many blocks."""
    from diffusers import FluxTransformer2DModel, WanTransformer3DModel

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            if shape.name == "wan":
                model = WanTransformer3DModel(num_layers=blocks[0], **shape.arguments)
            else:
                model = FluxTransformer2DModel(
                    num_layers=blocks[0], num_single_layers=blocks[1], guidance_embeds=True, **shape.arguments
                )
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False)


def fewer(blocks: tuple[int, ...], share: float) -> tuple[int, ...]:
    """So many of a model's blocks, at least one of each kind and two altogether."""
    kept = tuple(max(1, math.floor(count * min(1.0, share))) for count in blocks)
    return kept if sum(kept) > 1 else tuple(min(2, count) for count in blocks)


def fitting(shape: Geometry, device: torch.device, dtype: torch.dtype) -> tuple[int, ...]:
    """As many blocks as the memory takes."""
    if device.type != "cuda":
        return shape.blocks
    free, _ = torch.cuda.mem_get_info(device)
    sizes = [_numbers(shape, blocks) for blocks in (fewer(shape.blocks, 0.0), shape.blocks)]
    least, whole = (size * torch.finfo(dtype).bits // 8 for size in sizes)
    room = MEMORY_SHARE * free - least
    return shape.blocks if room >= whole - least else fewer(shape.blocks, max(0.0, room / (whole - least)))


def _numbers(shape: Geometry, blocks: tuple[int, ...]) -> int:
    """Weights of a model with so many blocks."""
    model = build(shape, blocks, torch.device("meta"), torch.bfloat16)
    return sum(weight.numel() for weight in model.parameters())


def cut(model: Any, shape: Geometry, blocks: tuple[int, ...]) -> None:
    """Take blocks off a model."""
    lists = ("blocks",) if shape.name == "wan" else ("transformer_blocks", "single_transformer_blocks")
    for name, count in zip(lists, blocks, strict=True):
        setattr(model, name, getattr(model, name)[:count])


def inputs_of(
    shape: Geometry, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The latent, and what every forward takes beside it and the timestep."""
    latent = torch.randn(1, *shape.latent, device=device, dtype=dtype)
    text = torch.randn(1, *shape.text, device=device, dtype=dtype)
    if shape.name == "wan":
        return latent, {"encoder_hidden_states": text}
    side = math.isqrt(shape.latent[0])
    ids = torch.zeros(side, side, 3, device=device)
    ids[..., 1] += torch.arange(side, device=device)[:, None]
    ids[..., 2] += torch.arange(side, device=device)[None, :]
    pooled = torch.randn(1, shape.arguments["pooled_projection_dim"], device=device, dtype=dtype)
    return latent, {
        "encoder_hidden_states": text,
        "pooled_projections": pooled,
        "guidance": torch.full((1,), 3.5, device=device),
        "txt_ids": torch.zeros(shape.text[0], 3, device=device),
        "img_ids": ids.reshape(-1, 3),
    }


def loop_of(model: Any, shape: Geometry, device: torch.device, dtype: torch.dtype) -> Any:
    """A pipeline that is nothing but the sampler's loop, and says how long each forward took."""
    from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

    class Loop(DiffusionPipeline):  # type: ignore[misc]
        def __init__(self, transformer: Any, scheduler: Any) -> None:
            super().__init__()
            self.register_modules(transformer=transformer, scheduler=scheduler)

        @torch.no_grad()
        def __call__(self) -> list[float]:
            latent, given = inputs
            self.scheduler.set_timesteps(STEPS, device=device)
            seconds = []
            for timestep in self.scheduler.timesteps:
                # As the models' own pipelines tell them.
                told = timestep.expand(1)
                told = told.to(dtype) / 1000 if shape.name == "flux" else told
                with self.transformer.cache_context("cond"):
                    _wait(device)
                    start = time.perf_counter()
                    output = self.transformer(hidden_states=latent, timestep=told, return_dict=False, **given)[0]
                    _wait(device)
                seconds.append(time.perf_counter() - start)
                latent = self.scheduler.step(output, timestep, latent, return_dict=False)[0]
            self.maybe_free_model_hooks()
            return seconds

    inputs = inputs_of(shape, device, dtype)
    return Loop(model, FlowMatchEulerDiscreteScheduler(shift=3.0))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# Measuring -------------------------------------------------------------------------------------------------------------


def measured(
    shape: Geometry, device: torch.device, dtype: torch.dtype, seconds: float, *, backend: str | None
) -> Measured:
    """All costs of one model within about so many seconds."""
    blocks = fitting(shape, device, dtype)
    model = build(shape, blocks, device, dtype)
    loop = loop_of(model, shape, device, dtype)
    once = _first_forwards(model, shape, device, dtype)
    if once * FORWARDS > seconds:
        blocks = fewer(blocks, seconds / (once * FORWARDS))
        cut(model, shape, blocks)
    loop()
    plain, peak = timed(loop, device)
    forward = min(plain)
    kinds = zip(blocks, shape.blocks, strict=True)
    found = Measured(
        model=shape.title,
        blocks=" and ".join(f"{kept} of {whole}" for kept, whole in kinds),
        dtype=str(dtype).removeprefix("torch."),
        tokens=_tokens(shape),
        forward_ms=1000 * forward,
        peak_gib=None if peak is None else peak / 2**30,
    )
    reused = [step for step in range(STEPS) if step not in COMPUTED]
    again = [step for step in COMPUTED if step]
    for name, context in contenders().items():
        with context(loop):
            taken, top = timed(loop, device)
        extra = None if top is None or peak is None else (top - peak) / 2**20
        if name == "recorder":
            found.results.append(_result("step with the recorder", taken[1:], forward, extra))
            continue
        found.results.append(_result(f"computed step, {name}", [taken[step] for step in again], forward, extra))
        found.results.append(_result(f"reused step, {name}", [taken[step] for step in reused], forward, extra))
    if backend is not None:
        found.results += compiled(loop, device, backend)
    return found


def _first_forwards(model: Any, shape: Geometry, device: torch.device, dtype: torch.dtype) -> float:
    """Seconds of the second forward: the first one warms up."""
    latent, given = inputs_of(shape, device, dtype)
    for _ in range(2):
        _wait(device)
        start = time.perf_counter()
        with torch.no_grad(), model.cache_context("cond"):
            model(
                hidden_states=latent,
                timestep=torch.full((1,), 0.9 if shape.name == "flux" else 900.0, device=device, dtype=dtype),
                return_dict=False,
                **given,
            )
        _wait(device)
    return time.perf_counter() - start


def timed(loop: Any, device: torch.device) -> tuple[list[float], int | None]:
    """Seconds of every forward of a run, and the peak of its memory in bytes."""
    if device.type != "cuda":
        return loop(), None
    torch.cuda.reset_peak_memory_stats(device)
    taken = loop()
    return taken, torch.cuda.max_memory_allocated(device)


def _result(what: str, taken: list[float], forward: float, extra: float | None = None) -> Result:
    return Result(what, 1000 * min(taken), min(taken) / forward, extra)


def _tokens(shape: Geometry) -> int:
    if shape.name == "flux":
        return shape.latent[0]
    _, frames, height, width = shape.latent
    return frames * (height // 2) * (width // 2)


Context = Callable[[Any], contextlib.AbstractContextManager[Any]]


def contenders() -> dict[str, Context]:
    """Name → what is attached to the loop while it runs."""
    from easyteacache import TeaCache
    from easyteacache.runtime.predictors import predictor

    held: dict[str, dict[str, Any]] = {
        "hold": {"forecaster": "hold"},
        "linear": {"forecaster": "linear"},
        "four rows": {"forecaster": "fitted", "weights": _rows(), "corrected": False},
        "corrector": {
            "forecaster": "fitted",
            "weights": _corrections(predictor("linear").rows(COMPUTED, STEPS)),
            "applied_to": "output",
        },
    }
    found: dict[str, Context] = {
        name: functools.partial(_attached, TeaCache.from_policy(_policy(schedule=COMPUTED, num_steps=STEPS, **plan)))
        for name, plan in held.items()
    }
    found["recorder"] = lambda loop: _recorded(loop.transformer)
    return found


@contextlib.contextmanager
def _attached(cache: Any, loop: Any) -> Iterator[None]:
    """The cache on the loop; afterwards it must have computed the plan's steps and no others, or nothing was measured."""
    with cache.attached(loop):
        yield
        for statistics in cache.statistics().values():
            computed = tuple(record.step for record in statistics.steps if not record.reused)
            if computed != COMPUTED:
                told = sorted({record.reason for record in statistics.steps if record.step not in COMPUTED})
                raise click.ClickException(f"steps {computed} were computed, expected {COMPUTED} ({', '.join(told)})")


def _rows() -> tuple[tuple[float, ...], ...]:
    """Four weights at every reused step; that they add up to 1 is all that is asked of them."""
    return tuple((1.0,) if step in COMPUTED else (0.1, -0.2, 0.3, 0.8) for step in range(STEPS))


def _corrections(rows: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """The same, and computed steps behind reused ones that correct what these got wrong."""
    return tuple((0.2, 0.8) if step in COMPUTED[-2:] else row for step, row in enumerate(rows))


def _policy(**changes: Any) -> Any:
    from easyteacache.policy.curves import Polynomial
    from easyteacache.policy.policy import Policy

    plain: dict[str, Any] = {
        "model_key": "bench/gpu",
        "revision": 1,
        "status": "draft",
        "layer": "given",
        "signal": "timestep_projection",
        "curve": Polynomial((1.0, 0.0)),
        "threshold": 0.0,
        "first_skip_step": 1,
        "last_skip_step": None,
        "max_consecutive_skips": None,
        "buckets": (),
    }
    return Policy(**{**plain, **changes})


@contextlib.contextmanager
def _recorded(model: Any) -> Iterator[None]:
    from easyteacache.integrations.diffusers.recording.probe import Probe
    from easyteacache.integrations.diffusers.recording.tap_hooks import tapped
    from easyteacache.recording.recorder import Recorder

    probe = Probe(model)
    with tapped(model, probe, Recorder(signals=probe.signals, features=True, sketch="auto"), branch_names=("cond",)):
        yield


def compiled(loop: Any, device: torch.device, backend: str) -> list[Result]:
    """Blocks compiled one by one, without a cache and with one; against the compiled forward."""
    from easyteacache import TeaCache

    loop.transformer.compile_repeated_blocks(fullgraph=True, backend=backend)
    loop()
    plain, _ = timed(loop, device)
    forward = min(plain)
    cache = TeaCache.from_policy(_policy(schedule=COMPUTED, num_steps=STEPS, forecaster="linear"))
    with _attached(cache, loop):
        loop()
        taken, _ = timed(loop, device)
    reused = [taken[step] for step in range(STEPS) if step not in COMPUTED]
    return [
        _result("compiled blocks, forward without a cache", plain, forward),
        _result("compiled blocks, computed step, linear", [taken[step] for step in COMPUTED if step], forward),
        _result("compiled blocks, reused step, linear", reused, forward),
    ]


# The page --------------------------------------------------------------------------------------------------------------


def table(machine: str, found: list[Measured], *, tiny: bool) -> str:
    """The results as Markdown, for docs/benchmarks.md."""
    lines = [f"`tools/bench/gpu.sh` on {machine}.", ""]
    if tiny:
        lines = [f"`tools/bench/gpu.sh --cpu-tiny` on {machine}: that it runs; the times say nothing of a GPU.", ""]
    for one in found:
        peak = "" if one.peak_gib is None else f"; peak memory {one.peak_gib:.1f} GiB"
        lines += [
            f"{one.model}: random weights in {one.dtype}, {one.blocks} blocks, {one.tokens:,} tokens; {one.forward_ms:.2f} ms a "
            f"forward without a cache{peak}.",
            "",
            "| step | ms | of a forward | extra peak memory |",
            "|---|---:|---:|---:|",
        ]
        for result in one.results:
            extra = "–" if result.extra_mib is None else f"{result.extra_mib:.0f} MiB"
            lines.append(f"| {result.what} | {result.milliseconds:.2f} | {100 * result.share:.2f} % | {extra} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
