"""What recording a run costs beside computing it, on one CPU thread.

    python tools/bench/recording_cost.py
    python tools/bench/recording_cost.py --layers 4 --width 256 --tokens 256 --json

A Wan transformer with random weights samples with nothing attached, with a cache that computes every step, and with one that records
(`calibrate=True`), in turns. Processor time is compared, which another process's load does not lengthen. The second part times what a
recorder does to one step's tokens alone, per number of the residual: that grows with tokens × channels, computing a step with
tokens × weights, so that the share falls with the model's size.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import click
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel

from easyteacache import TeaCache
from easyteacache.recording.recorder import DIMENSION, SAMPLE_SIZE
from easyteacache.recording.sketch import CountSketch, Sample
from easyteacache.reference import MovingDigitsPipeline

HEAD = 64
STEPS = 6
# Tokens and channels of Wan2.1-14B at 480p, and its weights.
LARGE = (32760, 5120, 14.0e9)


def pipeline(layers: int, width: int) -> MovingDigitsPipeline:
    """The reference pipeline around a wider transformer."""
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=max(1, width // HEAD),
        attention_head_dim=HEAD,
        in_channels=1,
        out_channels=1,
        text_dim=64,
        freq_dim=32,
        ffn_dim=4 * width,
        num_layers=layers,
        rope_max_seq_len=64,
    )
    found = MovingDigitsPipeline(transformer.eval(), FlowMatchEulerDiscreteScheduler(shift=3.0))
    found.set_progress_bar_config(disable=True)
    return found


def per_step(run: Callable[[], Any]) -> float:
    """Processor seconds of one forward of a run with one branch."""
    before = time.process_time()
    run()
    return (time.process_time() - before) / STEPS


def runs(layers: int, width: int, tokens: int, repeat: int) -> dict[str, float]:
    """Median processor seconds of a step: bare, with a cache that computes everything, and recorded."""
    pipe, side = pipeline(layers, width), 2 * round((tokens / 4) ** 0.5)
    seeds = iter(range(10**6))

    def sample() -> None:
        pipe("3", num_frames=4, height=side, width=side, num_inference_steps=STEPS, guidance_scale=1.0,
             seeds=[next(seeds)], output_type="latent")  # fmt: skip

    exact = TeaCache.from_registry("bench/model", quality="exact", calibrate=True)
    # Sixteen are recorded before anything is solved.
    recording = TeaCache.from_registry("bench/model", speedup=2.0, calibrate=True, calibrate_runs=16)
    found: dict[str, list[float]] = {"bare": [], "computing": [], "recording": []}
    sample()
    for _ in range(repeat):
        found["bare"].append(per_step(sample))
        for name, cache in (("computing", exact), ("recording", recording)):
            with cache.attached(pipe):
                # What a run's end costs is in it: the trace is made there, and written.
                found[name].append(per_step(sample))
    return {name: statistics.median(values) for name, values in found.items()}


def sketch(tokens: int, width: int, repeat: int) -> float:
    """Median processor seconds of what one step's input and output cost a recorder, bfloat16."""
    stream = torch.randn(1, tokens, width, dtype=torch.bfloat16)
    count, sample = CountSketch(DIMENSION, seed=0), Sample(SAMPLE_SIZE, seed=0)
    count(stream)
    sample(stream)
    times = []
    for _ in range(repeat):
        before = time.process_time()
        for _ in range(2):
            count(stream)
            sample(stream)
        times.append(time.process_time() - before)
    return statistics.median(times)


@click.command()
@click.option("--layers", type=click.IntRange(1), default=6, show_default=True)
@click.option("--width", type=click.IntRange(HEAD), default=512, show_default=True)
@click.option("--tokens", type=click.IntRange(16), default=1024, show_default=True)
@click.option("--repeat", type=click.IntRange(1, 15), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(layers: int, width: int, tokens: int, repeat: int, as_json: bool) -> None:
    """Print what recording costs per step."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        os.environ["EASYTEACACHE_HOME"] = home
        found = runs(layers, width, tokens, repeat)
    alone = sketch(4096, 3072, repeat)
    content = {
        **found,
        "share_computing": found["computing"] / found["bare"] - 1.0,
        "share_recording": found["recording"] / found["bare"] - 1.0,
        "sketch_nanoseconds_per_number": 1e9 * alone / (4096 * 3072),
        "sketch_seconds_of_a_14b_step": alone * LARGE[0] * LARGE[1] / (4096 * 3072),
    }
    if as_json:
        click.echo(json.dumps(content, indent=2))
        return
    click.echo(f"{layers} layers, {width} channels, {tokens} tokens, processor time of a step on one thread")
    for name in ("bare", "computing", "recording"):
        share = "" if name == "bare" else f"  {content[f'share_{name}']:+.1%}"
        click.echo(f"  {name:<10} {1e3 * found[name]:9.1f} ms{share}")
    click.echo(
        f"the sketch of one step alone, bfloat16: {content['sketch_nanoseconds_per_number']:.1f} ns a number; "
        f"{content['sketch_seconds_of_a_14b_step']:.1f} s at {LARGE[0]} x {LARGE[1]}"
    )


if __name__ == "__main__":
    main()
