"""Run a pipeline once, without any cache, and record the run."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers import model_identity, scheduler_facts
from easyteacache.integrations.diffusers.pipeline import PARTS, parts_of
from easyteacache.integrations.diffusers.recording.jobs import Job
from easyteacache.integrations.diffusers.recording.probe import Probe
from easyteacache.integrations.diffusers.recording.tap_hooks import tapped
from easyteacache.integrations.diffusers.scheduler_facts import SchedulerFacts
from easyteacache.recording.recorder import DIMENSION, Recorder, SketchChoice
from easyteacache.recording.sketch import Shard
from easyteacache.records.calibration import Signal
from easyteacache.records.model_identity import ModelIdentity
from easyteacache.records.trace_set import Trace
from easyteacache.runtime.tensor_math import Reduce


@dataclasses.dataclass(frozen=True, slots=True)
class RecordingSettings:
    """What is the same for all runs of a recording.

    Attributes:
        model_key: ``family/variant``; with several experts each one's name is added to it.
        signals: candidates to record; None takes all that the transformer has.
        sketch: ``auto`` keeps short residuals whole and sketches long ones; None always keeps them.
        dimension: numbers kept of each residual by a sketch.
        sketch_seed: of the sketch.
        branch_names: for pipelines that name no branches: what to call them, in the order in which they run. Only branches
            called ``cond`` and ``uncond`` get a guided Gram.
        checkpoint: what to store as the checkpoint's name.
        checkpoint_commit: commit or hash of the checkpoint.
        features: record what enters the model's head, too.
        publish_prompts: store each prompt's text, not only its hash.
    """

    model_key: str
    signals: tuple[Signal, ...] | None = None
    sketch: SketchChoice = "auto"
    dimension: int = DIMENSION
    sketch_seed: int = 0
    branch_names: tuple[str, ...] = ()
    checkpoint: str | None = None
    features: bool = True
    publish_prompts: bool = True
    checkpoint_commit: str | None = None


def record_run(
    pipe: Any,
    job: Job,
    settings: RecordingSettings,
    *,
    on_step: Callable[[], None] | None = None,
    on_result: Callable[[Any], None] | None = None,
    reduce: Reduce | None = None,
    shard: Callable[[int], Shard] | None = None,
) -> tuple[Trace, ...]:
    """Run ``job`` and return its traces: one, or one per expert that ran at least two steps.

    Args:
        pipe: a diffusers pipeline with a transformer with an adapter; no cache may be enabled.
        job: as ``resolved`` returned it.
        settings: of the recording.
        on_step: called at every sampler step.
        on_result: called with what the pipeline returned, its latents.
        reduce, shard: with sequence parallelism: adds a tensor up over the group, and which tokens this process holds, for
            example ``Shard.even(rank, world_size)``.

    Raises:
        AttachError: a cache is enabled, or the transformer or the scheduler cannot be recorded.
        StepOrderError: the run ended early.
        InvalidTrace: the run's numbers break a rule, for example NaN.
    """
    recorders: dict[str, Recorder] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(scheduler_facts.shifted(pipe, job.shift))
        planned, sampler = scheduler_facts.facts_for(pipe.scheduler, job.num_steps), type(pipe.scheduler).__name__
        if planned is not None:
            # Before hours of sampling are lost to it.
            recordable(planned, sampler)
        for name, transformer in parts_of(pipe).items():
            probe = Probe(transformer)
            recorders[name] = Recorder(
                signals=settings.signals or probe.signals,
                features=settings.features,
                sketch=settings.sketch,
                dimension=settings.dimension,
                seed=settings.sketch_seed,
                reduce=reduce,
                shard=shard,
            )
            stack.enter_context(
                tapped(transformer, probe, recorders[name], branch_names=settings.branch_names, on_step=on_step)
            )
        result = pipe(**arguments_of(pipe, job))
        if on_result is not None:
            on_result(result)
        facts = recordable(scheduler_facts.facts_of(pipe.scheduler), sampler)
        return _finish(recorders, parts_of(pipe), facts, job, settings)


def resolved(pipe: Any, job: Job) -> Job:
    """``job`` with the pipeline's and scheduler's own values where it leaves them open.

    Raises:
        AttachError: the job sets a shift that the scheduler cannot have.
    """
    defaults = inspect.signature(pipe.__call__).parameters
    changes: dict[str, Any] = {}
    with scheduler_facts.shifted(pipe, job.shift):
        changes["shift"] = scheduler_facts.shift_of(pipe.scheduler)
    for field, argument in (("width", "width"), ("height", "height"), ("frames", "num_frames")):
        if getattr(job, field) is None and argument in defaults and isinstance(defaults[argument].default, int):
            changes[field] = defaults[argument].default
    guidance = defaults["guidance_scale"].default if "guidance_scale" in defaults else None
    # Some pipelines take one and use none unless it is given.
    if job.guidance_scale is None and isinstance(guidance, int | float):
        changes["guidance_scale"] = float(guidance)
    return dataclasses.replace(job, **changes)


def no_record_under(facts: SchedulerFacts | None) -> str | None:
    """Why no record is ever used in such a run, a clause that names its sampler; None where one is, or where nobody knows."""
    if facts is None or facts.map is not None:
        return None
    return f"no record is used under {facts.name}, because {facts.reason}"


def recordable(facts: SchedulerFacts | None, name: str) -> SchedulerFacts:
    """The facts of a run that can be recorded.

    Args:
        facts: of the run.
        name: class of its scheduler.

    Raises:
        AttachError: the scheduler keeps no levels, calls the model twice at one, or its levels do not fall to the end.
    """
    if facts is None or facts.levels is None:
        raise AttachError(f"{name} keeps no noise level per step; sample with another scheduler")
    *falls, last = [b - a for a, b in pairwise(facts.levels)]
    if facts.calls_per_step > 1 or 0.0 in falls:
        raise AttachError(
            f"{name} calls the model several times a step, which cannot be recorded; use another scheduler"
        )
    if max(*falls, last, -1.0) >= 0.0:
        what = "ends at the level of its last step, so that its last output changes nothing" if last == 0.0 else "rise"
        subject = name if last == 0.0 else f"the noise levels of {name}"
        raise AttachError(f"{subject} {what}; only levels that fall can be recorded: use another scheduler")
    return facts


def arguments_of(pipe: Any, job: Job) -> dict[str, Any]:
    """What ``pipe`` is called with to run ``job``; raises ``AttachError`` where it does not take one of them."""
    accepted = inspect.signature(pipe.__call__).parameters
    wanted = {
        "prompt": job.prompt,
        "width": job.width,
        "height": job.height,
        "num_frames": job.frames,
        "num_inference_steps": job.num_steps,
        "guidance_scale": job.guidance_scale,
        "generator": torch.Generator().manual_seed(job.seed),
        # Decoding is not part of what is recorded.
        "output_type": "latent",
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    unknown = [name for name in given if name not in accepted and name != "output_type"]
    if unknown:
        raise AttachError(f"{type(pipe).__name__} takes no {', '.join(unknown)}; leave it out of the recording")
    return {name: value for name, value in given.items() if name in accepted}


def _identity(transformer: nn.Module, settings: RecordingSettings, part: str | None) -> ModelIdentity:
    known = {
        "checkpoint": settings.checkpoint,
        "checkpoint_commit": settings.checkpoint_commit,
        "part": part,
        # The recorder knows the number type: that of what enters the blocks.
        "dtype": None,
    }
    return model_identity.of_run(transformer).model_copy(update=known)


def _finish(
    recorders: Mapping[str, Recorder],
    transformers: Mapping[str, nn.Module],
    facts: SchedulerFacts,
    job: Job,
    settings: RecordingSettings,
) -> tuple[Trace, ...]:
    sigmas = facts.levels
    assert sigmas is not None
    several, traces, first = len(recorders) > 1, [], 0
    for name, recorder in recorders.items():
        count = recorder.steps("cond")
        # One step has no neighbour to be compared with.
        if count > 1:
            part = PARTS[name] if several else None
            trace = recorder.finish(
                model_key=f"{settings.model_key}/{part}" if part else settings.model_key,
                sigmas=sigmas[first : first + count + 1],
                guidance_scale=job.guidance_scale,
                prompt=job.prompt,
                publish_prompt=settings.publish_prompts,
                model=_identity(transformers[name], settings, part),
                sampler=facts.record(),
                # Of the whole run: a part's states are not reached from its own outputs alone.
                sampler_map=None if several else facts.map,
                shift=facts.shift,
                part=part,
                total_steps=facts.calls if several else None,
                seed=job.seed,
                frames=job.frames,
                height=job.height,
                width=job.width,
            )
            traces.append(trace)
        first += count
    if first != len(sigmas) - 1:
        raise AttachError(
            f"{first} forwards were seen, the scheduler has {len(sigmas) - 1} noise levels; a loop with several forwards a "
            "step cannot be recorded"
        )
    return tuple(traces)
