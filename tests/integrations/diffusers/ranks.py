"""Samplers whose sequence is split over gloo processes; prints what every rank decided as JSON.

``python ranks.py WORLD RENDEZVOUS KIND:SIGNAL:MODE …``: the tokens of every shard change by a different amount per step, so that ranks
that look at their own shard alone decide differently.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import sys
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from conftest import policy
from diffusers.hooks.context_parallel import apply_context_parallel
from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig
from tiny_case import noise, text
from tiny_transformers import build

from easyteacache import TeaCache
from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers import context_parallel

STEPS = 8
NAMES = {"wan": "WanTransformer3DModel", "flux": "FluxTransformer2DModel"}


def split(model: Any, world: int) -> None:
    """What ``enable_parallelism`` does, but for attention over all shards, which has no kernel for a CPU."""
    config = ContextParallelConfig(ulysses_degree=world)
    mesh = dist.device_mesh.init_device_mesh("cpu", config.mesh_shape, mesh_dim_names=config.mesh_dim_names)
    config.setup(dist.get_rank(), world, torch.device("cpu"), mesh=mesh)
    model._parallel_config = ParallelConfig(context_parallel_config=config)
    apply_context_parallel(model, config, model._cp_plan)


def latent(step: int, shape: tuple[int, ...], axis: int) -> torch.Tensor:
    """A latent whose first tokens stand nearly still while the last ones change a lot."""
    still = noise(*shape, seed=1)
    change = noise(*shape, seed=2 + step)
    weight = torch.linspace(0, 1, shape[axis]) ** 4
    return still + 2.0 * change * weight.reshape([-1 if position == axis else 1 for position in range(len(shape))])


def inputs(kind: str, step: int, branch: str) -> dict[str, Any]:
    sigma = 1 - step / STEPS
    if kind == "wan":
        return {
            "hidden_states": latent(step, (1, 4, 4, 8, 8), 2),
            "timestep": torch.tensor([1000 * sigma]),
            "encoder_hidden_states": text(branch, 1, 8, 8),
        }
    return {
        "hidden_states": latent(step, (1, 16, 4), 1),
        "timestep": torch.tensor([sigma]),
        "encoder_hidden_states": text(branch, 1, 8, 8),
        "pooled_projections": text(branch, 1, 8),
        "txt_ids": torch.zeros(8, 3),
        "img_ids": torch.zeros(16, 3),
    }


def sampled(kind: str, signal: str, mode: str, world: int) -> dict[str, Any]:
    """Sample as one rank: ``shared`` or ``alone`` (without the reduction) over the shards, or the ``whole`` sequence."""
    model = build(NAMES[kind])
    cache = TeaCache.from_policy(policy(signal=signal, threshold=0.5))
    calls: list[int] = []
    with mock.patch.object(dist, "all_reduce", counted(calls)), contextlib.ExitStack() as stack:
        if mode == "alone":
            stack.enter_context(mock.patch.object(context_parallel, "reduction", return_value=None))
        stack.enter_context(cache.attached(model))
        if mode != "whole":
            split(model, world)
        for step in range(STEPS):
            for branch in ("cond", "uncond"):
                with torch.no_grad(), model.cache_context(branch):
                    model(**inputs(kind, step, branch), return_dict=False)
        return {
            "patterns": {name: run.pattern for name, run in cache.statistics().items()},
            "distances": {name: run.distances for name, run in cache.statistics().items()},
            "length": cache.sequence_length,
            "collectives": calls,
        }


def counted(calls: list[int]) -> Any:
    """``all_reduce`` that notes how many numbers it sums."""
    original = dist.all_reduce

    def all_reduce(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(tensor.numel())
        return original(tensor, *args, **kwargs)

    return all_reduce


def late(kind: str, world: int) -> dict[str, Any]:
    """Attach after the sequence was split."""
    model = build(NAMES[kind])
    split(model, world)
    try:
        TeaCache.from_policy(policy(threshold=0.5)).attach(model)
    except AttachError as error:
        return {"refused": str(error)}
    return {"refused": ""}


def rank_main(rank: int, world: int, rendezvous: str, cases: list[str], results: Any) -> None:
    """Run every case as one rank, one after the other."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    found = {}
    for case in cases:
        kind, signal, mode = case.split(":")
        found[case] = late(kind, world) if mode == "late" else sampled(kind, signal, mode, world)
    results.put((rank, found))
    dist.destroy_process_group()


def main(world: int, rendezvous: str, cases: list[str]) -> list[dict[str, Any]]:
    """What every rank reports. They are forked, because importing the libraries costs far more than the sampling."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    started = [
        context.Process(target=rank_main, args=(rank, world, rendezvous, cases, results)) for rank in range(world)
    ]
    for process in started:
        process.start()
    found = dict(results.get(timeout=300) for _ in started)
    for process in started:
        process.join()
    return [found[rank] for rank in range(world)]


if __name__ == "__main__":
    print("RESULT" + json.dumps(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])))
