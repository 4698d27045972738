"""Watch one run of a pipeline: what its transformers gave first, how long each forward took, whether the blocks ran."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from easyteacache.integrations.diffusers.models.registry import adapter_for, located

#: Forwards whose outputs are kept: the first step's, of as many branches as any pipeline runs.
FIRST = 4


@dataclass
class ObservedRun:
    """One run, seen from outside.

    Attributes:
        outputs: what the first ``FIRST`` forwards returned, copies on the CPU.
        seconds: of every forward, in order.
        blocks_ran: of every forward: did anything inside a middle block run? None where that cannot be watched (compiled blocks).
        final: the latents that the pipeline returned, on the CPU; None until it has.
    """

    outputs: list[Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    blocks_ran: list[bool | None] = field(default_factory=list)
    final: Tensor | None = None

    @property
    def forwards(self) -> int:
        """How often a transformer was called."""
        return len(self.seconds)

    def took(self, *, blocks_ran: bool) -> float | None:
        """Median seconds of the forwards whose blocks ran, or did not; None where there are none. The first one warms up."""
        chosen = [s for s, ran in zip(self.seconds[1:], self.blocks_ran[1:], strict=True) if ran is blocks_ran]
        return statistics.median(chosen) if chosen else None

    def returned(self, result: Any) -> None:
        """Take the latents out of what the pipeline returned with ``output_type="latent"``."""
        found = result
        while not isinstance(found, Tensor):
            found = found[0] if isinstance(found, (tuple, list)) else _first(found)
        self.final = found.detach().to("cpu", torch.float64)


def _first(output: Any) -> Any:
    for name in ("frames", "images", "latents"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    raise TypeError(f"expected latents in what the pipeline returned, found {type(output).__name__}")


@contextlib.contextmanager
def observed(transformers: Sequence[nn.Module]) -> Iterator[ObservedRun]:
    """Inside the block every forward of ``transformers`` is watched; nothing about it changes."""
    run = ObservedRun()
    with contextlib.ExitStack() as stack:
        for transformer in transformers:
            _watch(run, getattr(transformer, "_orig_mod", transformer), stack)
        yield run


def _watch(run: ObservedRun, transformer: nn.Module, stack: contextlib.ExitStack) -> None:
    inner = _inside_a_block(transformer)
    ran, began = [False], [0.0]

    def inside(*_: Any) -> None:
        ran[0] = True

    def before(*_: Any) -> None:
        ran[0] = False
        _settled(transformer)
        began[0] = time.perf_counter()

    def after(_: nn.Module, __: Any, output: Any) -> None:
        _settled(transformer)
        run.seconds.append(time.perf_counter() - began[0])
        run.blocks_ran.append(ran[0] if inner else None)
        if len(run.outputs) < FIRST:
            run.outputs.append(_tensor(output).detach().to("cpu", copy=True))

    for module in inner:
        stack.callback(module.register_forward_pre_hook(inside).remove)
    stack.callback(transformer.register_forward_pre_hook(before).remove)
    stack.callback(transformer.register_forward_hook(after).remove)


def _inside_a_block(transformer: nn.Module) -> list[nn.Module]:
    """Modules that run whenever a middle block does: a cache replaces the block's own forward, never theirs."""
    blocks = located(adapter_for(transformer), transformer)
    block = blocks[len(blocks) // 2][1]
    # A hook inside what is compiled would have it compiled again.
    if getattr(block, "_compiled_call_impl", None) is not None or getattr(transformer, "_compiled_call_impl", None):
        return []
    return [module for module in block.modules() if module is not block and not list(module.children())]


def _tensor(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        output = output[0]
    return output


def _settled(transformer: nn.Module) -> None:
    device = next(transformer.parameters()).device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
