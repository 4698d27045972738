"""Record one run of a transformer that a cache is attached to, at the places where the cache's own hooks stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers import context_parallel
from easyteacache.integrations.diffusers.forward_state import Arguments
from easyteacache.integrations.diffusers.models.adapter import Output
from easyteacache.integrations.diffusers.recording.pipeline_runs import no_record_under, recordable
from easyteacache.integrations.diffusers.recording.probe import Probe
from easyteacache.integrations.diffusers.recording.recorded_forward import (
    BOTH_BRANCHES,
    FIRST_BRANCH,
    RecordedForward,
)
from easyteacache.integrations.diffusers.scheduler_facts import SchedulerFacts
from easyteacache.recording.recorder import Recorder
from easyteacache.records.model_identity import ModelIdentity
from easyteacache.records.trace_set import Trace

_NAMED = ("cond", "uncond")


def why_not(transformer: nn.Module, facts: SchedulerFacts | None) -> str | None:
    """Why a run cannot be recorded, a clause; None where it can.

    Args:
        transformer: the module that runs.
        facts: of the run's scheduler, None where it does not drive the loop or nobody knows it.
    """
    if facts is None:
        return "the sampler of the run is not known: attach the pipeline, not the transformer alone"
    if context_parallel.reduction(transformer) is not None:
        return "its tokens are spread over several processes: record such a model with one process a run"
    try:
        recordable(facts, facts.name)
    except AttachError as error:
        return str(error)
    return no_record_under(facts)


class AttachedRun:
    """One run, recorded as it goes.

    Args:
        probe: of the transformer.
        facts: of the run's scheduler.
    """

    def __init__(self, probe: Probe, facts: SchedulerFacts) -> None:
        self._probe, self._facts = probe, facts
        self._recorder = Recorder(signals=probe.signals, features=True, sketch="auto")
        self._forward = RecordedForward(self._recorder, probe)
        self._names: dict[str, str] = {}
        self._entered = False
        #: Whether the latent has frames.
        self.moves = False

    @property
    def complete(self) -> bool:
        """Did every branch do every step?"""
        counts = [self._recorder.steps(name) for name in self._names.values()]
        return bool(counts) and not self._entered and set(counts) == {self._facts.calls}

    @torch.no_grad()
    def enter(
        self,
        branch: str,
        arguments: Mapping[str, Any],
        *,
        block: nn.Module,
        inner: Mapping[str, Any],
        outputs: Mapping[Output, Any],
    ) -> None:
        """The first block was called.

        Args:
            branch: what the driver calls it.
            arguments: of the transformer.
            block: the first block.
            inner: its arguments.
            outputs: of submodules that signals are taken from.
        """
        latent = arguments.get(self._probe.adapter.latent)
        self.moves = isinstance(latent, torch.Tensor) and latent.ndim == 5 and latent.shape[2] > 1
        self._forward.begin(self._named(branch), arguments)
        self._forward.enter(Arguments(type(block), (), inner), dict(outputs))
        self._entered = True

    @torch.no_grad()
    def after_first(self, output: Any) -> None:
        """The first block returned."""
        if self._entered:
            self._forward.after_first(output)

    @torch.no_grad()
    def leave(self, output: Any) -> None:
        """The last block returned."""
        if self._entered:
            self._forward.leave(output)

    @torch.no_grad()
    def finish(self, output: Any) -> None:
        """The transformer returned."""
        if self._entered:
            self._forward.finish(output)
            self._entered = False

    def trace(self, *, model_key: str, model: ModelIdentity, guidance_scale: float | None) -> Trace:
        """The trace of a complete run. No prompt is in it, nor a hash of one: a transformer is handed embeddings.

        Args:
            model_key: what it is stored under.
            model: what ran.
            guidance_scale: of the pipeline's call; needed where two branches ran.

        Raises:
            AttachError: two branches ran and it is not known how they are combined.
            StepOrderError, InvalidSignal, InvalidTrace: as ``Recorder.finish``.
        """
        branches = tuple(self._names.values())
        if len(branches) > 1 and (guidance_scale is None or set(branches) != set(_NAMED)):
            raise AttachError(
                f"the branches {', '.join(branches)} ran, and the pipeline does not say how it combines them (guidance_scale)"
            )
        facts = self._facts
        assert facts.levels is not None
        return self._recorder.finish(
            model_key=model_key,
            sigmas=facts.levels,
            guidance_scale=guidance_scale,
            # The recorder knows the number type: that of what enters the blocks.
            model=model.model_copy(update={"dtype": None}),
            sampler=facts.record(),
            sampler_map=facts.map,
            shift=facts.shift,
        )

    def _named(self, branch: str) -> str:
        """What a recording calls a branch: pipelines that name none have one, or two that nobody can tell apart by name."""
        if branch not in self._names:
            first = FIRST_BRANCH if not self._names else f"{FIRST_BRANCH}-{len(self._names) + 1}"
            self._names[branch] = branch if branch in _NAMED and branch != BOTH_BRANCHES else first
        return self._names[branch]
