"""Sample the reference model uncached, cached, and with as few steps as the cache computed; time each fairly.

All three run in one process on the same seeds, after a warm-up, and take turns in going first: a machine that slows down
half-way slows all of them down.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from easyteacache.registry.registry import names_file
from easyteacache.teacache import TeaCache

if TYPE_CHECKING:
    from easyteacache.reference import MovingDigitsPipeline
    from easyteacache.registry.registry import Registry

KEY = "reference/moving-digits"
UNCACHED, CACHED, FEWER = VARIANTS = ("uncached", "cached", "fewer steps")
DIGITS = 10
DIRECTIONS = ("right", "down-left", "up", "down-right", "left", "up-right", "down", "up-left")
WARM_UP_STEPS = 3


@dataclass(frozen=True)
class DemoSettings:
    """What to sample.

    Attributes:
        key: model key of the calibration, or its file.
        steps: sampler steps of the uncached run.
        frames, width, height: of each video, the last two in pixels.
        samples: videos, one prompt each.
        seed: of the first video; the others count up from it.
        threshold, speedup, max_error, quality: choose the operating point; at most one.
    """

    key: str = KEY
    steps: int = 50
    frames: int = 4
    width: int = 24
    height: int = 24
    samples: int = 4
    seed: int = 0
    threshold: float | None = None
    speedup: float | None = None
    max_error: float | None = None
    quality: str | None = None

    def prompt(self, sample: int) -> str:
        """The prompt of video number ``sample``: digits in turn, moving in changing directions."""
        number = self.seed + sample
        return f"{number % DIGITS} {DIRECTIONS[number % len(DIRECTIONS)]}"


@dataclass(frozen=True)
class Run:
    """One sampled video.

    Attributes:
        variant: ``UNCACHED``, ``CACHED`` or ``FEWER``.
        frames: (F, H, W, C) in [0, 1].
        seconds: wall time of the pipeline call.
        steps: sampler steps.
        computed: steps whose blocks were computed, the mean over branches.
        patterns: branch → one character a step, ``█`` computed and ``·`` reused; empty without a cache.
    """

    variant: str
    frames: npt.NDArray[np.float32]
    seconds: float
    steps: int
    computed: float
    patterns: Mapping[str, str]


@dataclass(frozen=True)
class Sample:
    """One prompt and seed with its three runs, by variant."""

    prompt: str
    seed: int
    runs: Mapping[str, Run]


def load(model_path: Path | None) -> MovingDigitsPipeline:
    """The packaged reference model, or the transformer that ``tools/reference/train.py`` saved in ``model_path``.

    Raises:
        ReferenceModelError: there is no transformer of a class that the reference pipeline can use.
    """
    from easyteacache.reference import load_pipeline
    from easyteacache.reference.saved import load_saved

    return load_pipeline() if model_path is None else load_saved(model_path)


def open_cache(pipe: MovingDigitsPipeline, settings: DemoSettings, registry: Registry | Path | None) -> TeaCache:
    """The calibration of ``settings`` resolved for what will be sampled; raises as ``TeaCache.from_registry`` and ``from_file`` do."""
    from easyteacache.integrations.diffusers.scheduler_facts import shift_of

    wishes: dict[str, Any] = {
        "threshold": settings.threshold,
        "speedup": settings.speedup,
        "max_error": settings.max_error,
        "quality": settings.quality,
        "num_steps": settings.steps,
        "sequence_length": pipe.sequence_length(settings.frames, settings.height, settings.width),
        "shift": shift_of(pipe.scheduler),
    }
    if names_file(settings.key):
        return TeaCache.from_file(settings.key, **wishes)
    return TeaCache.from_registry(settings.key, registry=registry, **wishes)


def sample_all(
    pipe: MovingDigitsPipeline,
    cache: TeaCache,
    settings: DemoSettings,
    *,
    threads: int = 1,
    started: Callable[[str], Any],
) -> list[Sample]:
    """Sample every prompt in all three ways.

    Args:
        pipe: the reference model; nothing attached to it.
        cache: what ``open_cache`` gave.
        settings: what to sample.
        threads: CPU threads while sampling; on a shared machine several of them wait for each other most of the time.
        started: called with a short text before each run.
    """
    pipe.set_progress_bar_config(disable=True)
    with limited_threads(threads):
        started("warm-up")
        _run(pipe, cache, settings, 0, variant=UNCACHED, steps=min(WARM_UP_STEPS, settings.steps))
        # With fewer steps a calibration need not hold: it would warn of them, and not warm up how it reuses.
        _run(pipe, cache, settings, 0, variant=CACHED, steps=settings.steps)
        return [_sample(pipe, cache, settings, number, started) for number in range(settings.samples)]


@contextlib.contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """That many CPU threads of torch inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sample(
    pipe: MovingDigitsPipeline, cache: TeaCache, settings: DemoSettings, number: int, started: Callable[[str], Any]
) -> Sample:
    runs: dict[str, Run] = {}
    # The fewer-steps run copies the cached one's cost, so it can only come after it.
    for variant in (UNCACHED, CACHED, FEWER) if number % 2 == 0 else (CACHED, FEWER, UNCACHED):
        steps = max(1, round(runs[CACHED].computed)) if variant == FEWER else settings.steps
        started(f"seed {settings.seed + number}, {variant}")
        runs[variant] = _run(pipe, cache, settings, number, variant=variant, steps=steps)
    return Sample(settings.prompt(number), settings.seed + number, runs)


def _run(
    pipe: MovingDigitsPipeline, cache: TeaCache, settings: DemoSettings, number: int, *, variant: str, steps: int
) -> Run:
    def call() -> tuple[npt.NDArray[np.float32], float]:
        begin = time.perf_counter()
        output = pipe(
            settings.prompt(number),
            settings.frames,
            settings.height,
            settings.width,
            steps,
            seeds=[settings.seed + number],
            return_dict=False,
        )
        return output[0][0], time.perf_counter() - begin

    if variant != CACHED:
        frames, seconds = call()
        return Run(variant, frames, seconds, steps, steps, {})
    with cache.attached(pipe):
        frames, seconds = call()
        branches = cache.statistics()
    computed = sum(branch.computed for branch in branches.values()) / max(1, len(branches))
    patterns = {name: branch.pattern for name, branch in branches.items()}
    return Run(variant, frames, seconds, steps, computed, patterns)
