"""One process of a sequence-parallel recording: python sharded_recording.py RANK WORLD SYNC_FILE OUT KIND."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

from easyteacache.recording.recorder import Recorder
from easyteacache.recording.sketch import Shard
from easyteacache.records.trace_set import TraceSet

BATCH, TOKENS, CHANNELS, STEPS = 2, 30, 16, 6


def all_reduce(tensor: torch.Tensor) -> torch.Tensor:
    dist.all_reduce(tensor)
    return tensor


def record(rank: int, world: int, kind: str) -> Recorder:
    size = TOKENS // world
    shard = Shard.even(rank, world) if world > 1 else None
    sketch = None if kind == "exact" else kind
    recorder = Recorder(
        signals=("timestep_projection", "hidden_states"),
        features=True,
        sketch=sketch,
        dimension=100,
        sample=150,
        reduce=all_reduce if world > 1 else None,
        shard=shard,
    )
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(3, BATCH, TOKENS, CHANNELS, generator=generator)
    timestep_signal = torch.randn(STEPS, BATCH, 6, CHANNELS, generator=generator)
    for step in range(STEPS):
        t = step / STEPS
        here = slice(rank * size, (rank + 1) * size)
        whole = parts[0] + t * parts[1]
        recorder.observe(
            step,
            timestep=1.0 - t,
            signals={"timestep_projection": timestep_signal[step], "hidden_states": whole[:, here]},
            block_input=whole[:, here],
            block_output=(whole + parts[2] * (1 + t * t))[:, here],
        )
        recorder.observe_output(step, output=whole * t)
    return recorder


def main() -> None:
    rank, world = int(sys.argv[1]), int(sys.argv[2])
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=world)
    runs = []
    for kind in ("exact", "count", "tokens"):
        sigmas = [1.0 - step / STEPS for step in range(STEPS + 1)]
        runs.append(record(rank, world, kind).finish(model_key="a/b", sigmas=sigmas, prompt=kind))
    TraceSet(runs).save(f"{sys.argv[4]}-{rank}.safetensors")
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
