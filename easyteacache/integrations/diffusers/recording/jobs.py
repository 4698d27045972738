"""What to record: one job is one run of a pipeline, and can be recognised in a folder of traces."""

from __future__ import annotations

import hashlib
import itertools
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from easyteacache.records.trace import MAX_STEPS
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
    prompts: str | Sequence[str],
    seeds: Sequence[int] | None = None,
    sizes: Sequence[tuple[int, int] | None] = (None,),
    frames: Sequence[int | None] = (None,),
    steps: Sequence[int] = (50,),
    shifts: Sequence[float | None] = (None,),
    guidance_scales: Sequence[float | None] = (None,),
) -> tuple[Job, ...]:
    """Every combination of the settings, each recorded once per prompt.

    Args:
        prompts: at least one; a text is one prompt.
        seeds: every prompt is run with each of them; None gives prompt number i the seed i.
        sizes: (width, height) in pixels, None for the pipeline's own.
        frames: None for image pipelines.
        steps: sampler steps.
        shifts: time shifts, None for the scheduler's own.
        guidance_scales: None for the pipeline's own.

    Raises:
        ValueError: no prompt, a list that is empty, or a value that no run can have.
    """
    prompts = (prompts,) if isinstance(prompts, str) else prompts
    lists = {"prompts": prompts, "seeds": seeds, "sizes": sizes, "frames": frames, "steps": steps, "shifts": shifts}
    for name, values in {**lists, "guidance_scales": guidance_scales}.items():
        if values is not None and not len(values):
            raise ValueError(f"{name} is empty; expected one value at least")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ValueError(f"prompts holds {prompt!r}; expected texts")
    both = [_pair(size) for size in sizes]
    frames, steps = _whole("frames", frames, 1), _whole("steps", steps, 2, MAX_STEPS)
    shifts = _real("shifts", shifts, above=True)
    guidance_scales = _real("guidance_scales", guidance_scales)
    pairs = list(enumerate(prompts)) if seeds is None else []
    seeds = _whole("seeds", seeds or (), 0)
    runs = [(prompt, seed) for seed, prompt in pairs] or list(itertools.product(prompts, seeds))
    settings = itertools.product(both, frames, steps, shifts, guidance_scales)
    jobs = [
        Job(prompt, seed, width, height, count, num_steps, shift, guidance)
        for (width, height), count, num_steps, shift, guidance in settings
        for prompt, seed in runs
    ]
    return tuple(dict.fromkeys(jobs))


def _pair(size: object) -> tuple[int | None, int | None]:
    if size is None:
        return None, None
    sides = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else ()
    if len(sides) != 2 or not all(isinstance(side, numbers.Integral) and int(side) >= 1 for side in sides):
        raise ValueError(f"sizes holds {size!r}; expected pairs (width, height) of pixels")
    return int(sides[0]), int(sides[1])


def _whole(name: str, values: Sequence[Any], lowest: int, highest: float = math.inf) -> list[Any]:
    """Whole numbers of whatever kind as Python's own, None as it is."""
    for value in values:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if value is not None and not (whole and lowest <= value <= highest):
            limits = f"from {lowest}" if math.isinf(highest) else f"from {lowest} to {highest:g}"
            raise ValueError(f"{name} holds {value!r}; expected whole numbers {limits}")
    return [None if value is None else int(value) for value in values]


def _real(name: str, values: Sequence[Any], *, above: bool = False) -> list[Any]:
    """Numbers of 0 and more, or above 0, as Python's own, None as it is."""
    for value in values:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not (real and (value > 0 if above else value >= 0)):
            raise ValueError(f"{name} holds {value!r}; expected numbers {'above 0' if above else 'of 0 and more'}")
    return [None if value is None else float(value) for value in values]
