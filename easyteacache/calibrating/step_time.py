"""How long one sampler step takes, found by beginning a run and breaking it off."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import torch
from torch import nn

from easyteacache.integrations.diffusers.forward_state import Arguments
from easyteacache.integrations.diffusers.models.registry import adapter_for
from easyteacache.integrations.diffusers.pipeline import parts_of
from easyteacache.integrations.diffusers.recording.jobs import Job
from easyteacache.integrations.diffusers.recording.pipeline_runs import arguments_of, resolved
from easyteacache.integrations.diffusers.scheduler_facts import shifted

#: Steps that are begun: the first one of a process compiles and loads, the second one is timed.
STEPS = 2


class _Enough(Exception):
    """The steps were begun."""


class _Watch:
    """Notes when each step begins: when the transformer is handed another timestep."""

    def __init__(self, transformer: nn.Module) -> None:
        self._timestep = adapter_for(transformer).timestep
        self._last: torch.Tensor | None = None
        self.begun: list[float] = []

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        timestep = Arguments(type(module), args, kwargs).required(self._timestep)
        now = torch.as_tensor(timestep).detach().max().cpu()
        if self._last is not None and torch.equal(now, self._last):
            return
        if now.device.type == "cpu" and torch.cuda.is_available():
            torch.cuda.synchronize()
        self._last = now
        self.begun.append(time.perf_counter())
        if len(self.begun) > STEPS:
            raise _Enough


def seconds_of_a_step(pipe: Any, job: Job) -> float | None:
    """Wall time of the second step of a run of ``job``, seconds; None where the run is over before.

    Args:
        pipe: a diffusers pipeline with nothing attached to it.
        job: of the size that is asked about.

    Raises:
        Exception: whatever the pipeline raises in its first steps.
    """
    transformer = next(iter(parts_of(pipe).values()))
    watch = _Watch(transformer)
    handle = transformer.register_forward_pre_hook(watch, with_kwargs=True, prepend=True)
    job = resolved(pipe, job)
    try:
        with shifted(pipe, job.shift), contextlib.suppress(_Enough):
            pipe(**arguments_of(pipe, job))
    finally:
        handle.remove()
        # The call was broken off before it did this itself.
        if hasattr(pipe, "maybe_free_model_hooks"):
            pipe.maybe_free_model_hooks()
    return watch.begun[-1] - watch.begun[-2] if len(watch.begun) > STEPS else None


def in_words(seconds: float) -> str:
    """A duration as people say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
