"""What to record: one job is one run of a pipeline, and can be recognised in a folder of traces."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from easyteacache.records.trace_set import TraceHeader

Identity = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """One run. None leaves a setting to the pipeline.

    Attributes:
        prompt: text of the run.
        seed: of the initial noise, 0 or more.
        width: pixels.
        height: pixels.
        frames: generated frames; None for image pipelines.
        num_steps: sampler steps.
        shift: flow-matching time shift, above 0.
        guidance_scale: as the pipeline's argument of this name.
    """

    prompt: str
    seed: int = 0
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    num_steps: int = 50
    shift: float | None = None
    guidance_scale: float | None = None

    def identity(self) -> Identity:
        """What recognises this run among recorded ones; call it on a job whose defaults are resolved."""
        prompt = hashlib.sha256(self.prompt.encode()).hexdigest()
        shape = (self.width, self.height, self.frames)
        return (prompt, self.seed, shape, self.num_steps, self.shift, self.guidance_scale)


def identity_of(header: TraceHeader) -> Identity:
    """``Job.identity`` of the job that a trace was recorded for."""
    shape = (header.width, header.height, header.frames)
    steps = header.total_steps or header.num_steps
    return (header.prompt_sha256, header.seed, shape, steps, header.shift, header.guidance_scale)


def plan_jobs(
    *,
    prompts: Sequence[str],
    seeds: Sequence[int] | None = None,
    sizes: Sequence[tuple[int, int] | None] = (None,),
    frames: Sequence[int | None] = (None,),
    steps: Sequence[int] = (50,),
    shifts: Sequence[float | None] = (None,),
    guidance_scales: Sequence[float | None] = (None,),
) -> tuple[Job, ...]:
    """Every combination of the settings, each recorded once per prompt.

    Args:
        prompts: at least one.
        seeds: every prompt is run with each of them; None gives prompt number i the seed i.
        sizes: (width, height) in pixels, None for the pipeline's own.
        frames: None for image pipelines.
        steps: sampler steps.
        shifts: time shifts, None for the scheduler's own.
        guidance_scales: None for the pipeline's own.

    Raises:
        ValueError: no prompt, or a list that is empty.
    """
    lists = {"prompts": prompts, "sizes": sizes, "frames": frames, "steps": steps, "shifts": shifts}
    for name, values in {**lists, "guidance_scales": guidance_scales}.items():
        if not values:
            raise ValueError(f"{name} is empty; expected one value at least")
    pairs = list(enumerate(prompts)) if seeds is None else []
    runs = [(prompt, seed) for seed, prompt in pairs] or list(itertools.product(prompts, seeds or ()))
    both = [size or (None, None) for size in sizes]
    settings = itertools.product(both, frames, steps, shifts, guidance_scales)
    jobs = [
        Job(prompt, seed, width, height, count, num_steps, shift, guidance)
        for (width, height), count, num_steps, shift, guidance in settings
        for prompt, seed in runs
    ]
    return tuple(dict.fromkeys(jobs))
