"""What an attached cache costs at a computed step, and what a reused step costs, against diffusers' own caches, in one run.

    python tools/bench/attach.py
    python tools/bench/attach.py --size mid --steps 40 --json
    python tools/bench/attach.py --size wan-14b --device cuda --dtype bfloat16

Every contender samples the same random Wan model with the same inputs, in turns, so that a busy machine slows all of them.
`computed` makes it compute every step, `reused` makes it skip every step but the forced ones; the fastest forward of those steps,
the one least disturbed by others, is divided by the fastest forward without any cache. FirstBlockCache always runs its first block, so a reused step of it cannot cost
less than that.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
import torch
from diffusers import WanTransformer3DModel
from diffusers.hooks import FirstBlockCacheConfig, MagCacheConfig, TaylorSeerCacheConfig

from easyteacache import TeaCache
from easyteacache.policy.curves import Polynomial
from easyteacache.policy.policy import Policy

# heads, channels of a head, hidden channels, layers, latent (frames, height, width)
SIZES = {
    "tiny": (2, 12, 48, 4, (1, 16, 16)),
    "mid": (8, 64, 2048, 6, (2, 24, 24)),
    "wan-1.3b": (12, 128, 8960, 30, (21, 60, 104)),
    "wan-14b": (40, 128, 13824, 40, (21, 60, 104)),
}


@click.command(help=__doc__)
@click.option("--size", "sizes", multiple=True, type=click.Choice(list(SIZES)), default=("tiny", "mid"))
@click.option("--steps", default=30, show_default=True, type=click.IntRange(4))
@click.option("--device", default="cpu", show_default=True)
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "bfloat16"]))
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(sizes: tuple[str, ...], steps: int, device: str, dtype: str, threads: int, as_json: bool) -> None:
    """Entry point."""
    torch.set_num_threads(threads)
    found = {size: measured(size, steps, torch.device(device), getattr(torch, dtype)) for size in sizes}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for size, rows in found.items():
        click.echo(f"{size}: {rows['none']['computed_ms']:.2f} ms a forward without a cache")
        for name, row in rows.items():
            if name != "none":
                computed = f"{100 * row['computed'] - 100:+6.2f} %" if "computed" in row else "       –"
                click.echo(f"  {name:38} computed step {computed}   reused step {100 * row['reused']:6.2f} %")


def measured(size: str, steps: int, device: torch.device, dtype: torch.dtype) -> dict[str, dict[str, float]]:
    """Relative costs of every contender on one model."""
    heads, width, hidden, layers, shape = SIZES[size]
    torch.manual_seed(0)
    with torch.device(device):
        model = WanTransformer3DModel(
            num_attention_heads=heads,
            attention_head_dim=width,
            ffn_dim=hidden,
            num_layers=layers,
            text_dim=64,
            freq_dim=256,
        )
    if dtype != torch.float32:
        model = model.to(dtype)
    model = model.eval().requires_grad_(False)
    inputs = torch.randn(1, 16, *shape, device=device, dtype=dtype), torch.randn(1, 32, 64, device=device, dtype=dtype)
    times: dict[tuple[str, str], list[float]] = {}
    contenders = _contenders(steps)
    # Whole runs in turns; the first turn warms up and is not counted.
    for turn in range(4):
        for (name, kind), context in contenders.items():
            with context(model):
                seconds = _run(model, inputs, steps)
            if turn:
                # The first steps are forced to be computed by one or the other.
                times.setdefault((name, kind), []).extend(seconds[steps // 3 :])
    fastest = {key: min(values) for key, values in times.items()}
    plain = fastest["none", "computed"]
    rows: dict[str, dict[str, float]] = {"none": {"computed_ms": 1000 * plain}}
    for name, kind in fastest:
        if name != "none":
            rows.setdefault(name, {})[kind] = fastest[name, kind] / plain
    return rows


Context = Callable[[Any], contextlib.AbstractContextManager[Any]]


def _contenders(steps: int) -> dict[tuple[str, str], Context]:
    found: dict[tuple[str, str], Context] = {("none", "computed"): lambda model: contextlib.nullcontext()}
    for signal in ("timestep_projection", "modulated_input", "first_block_residual"):
        for kind, threshold in (("computed", 1e-30), ("reused", 1e30)):
            cache = TeaCache.from_policy(_policy(signal=signal, threshold=threshold))
            found[f"EasyTeaCache {signal}", kind] = cache.attached
    for kind, schedule in (("computed", tuple(range(steps))), ("reused", (0,))):
        found["EasyTeaCache schedule", kind] = TeaCache.from_policy(_policy(schedule=schedule)).attached
    # A forecast of the residual from three anchors, and of the output: what the record's plans do.
    early = tuple(range(3))
    for name, target in (("residual", "residual"), ("output", "output")):
        plan = _policy(schedule=early, forecaster="quadratic", applied_to=target)
        found[f"EasyTeaCache quadratic of the {name}", "reused"] = TeaCache.from_policy(plan).attached
    for kind, interval in (("computed", 1), ("reused", steps)):
        config = TaylorSeerCacheConfig(
            cache_interval=interval, disable_cache_before_step=3, max_order=1, use_lite_mode=True
        )
        found["diffusers TaylorSeer lite", kind] = _enabled(config)
    for kind, threshold in (("computed", 0.0), ("reused", 1e30)):
        found["diffusers FirstBlockCache", kind] = _enabled(FirstBlockCacheConfig(threshold=threshold))
    for kind, threshold in (("computed", 0.0), ("reused", 1e30)):
        config = MagCacheConfig(
            threshold=threshold,
            max_skip_steps=steps,
            retention_ratio=0.1,
            num_inference_steps=steps,
            # Ratios of exactly 1 have no error, which would skip even at threshold 0.
            mag_ratios=[1.0] + [0.9] * (steps - 1),
        )
        found["diffusers MagCache", kind] = _enabled(config)
    return found


def _policy(**changes: Any) -> Policy:
    plain: dict[str, Any] = {
        "model_key": "bench/wan",
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


def _enabled(config: Any) -> Context:
    @contextlib.contextmanager
    def enabled(model: Any) -> Iterator[None]:
        model.enable_cache(config)
        try:
            yield
        finally:
            model._reset_stateful_cache()
            model.disable_cache()

    return enabled


@torch.no_grad()
def _run(model: Any, inputs: tuple[torch.Tensor, torch.Tensor], steps: int) -> list[float]:
    latent, text = inputs
    seconds = []
    for step in range(steps):
        # A little noise per step, so that no distance is zero.
        now = latent + 0.01 * (step + 1)
        timestep = torch.tensor([1000.0 * (1 - step / steps)], device=latent.device)
        with model.cache_context("cond"):
            _wait(latent)
            start = time.perf_counter()
            model(now, timestep, text, return_dict=False)
            _wait(latent)
        seconds.append(time.perf_counter() - start)
    return seconds


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


if __name__ == "__main__":
    main()
