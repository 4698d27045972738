"""Put the runs side by side: cost, and closeness to the uncached sample of the same seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyteacache.compare.quality import psnr, ssim
from easyteacache.demo.sampling import CACHED, UNCACHED, VARIANTS, DemoSettings, Run, Sample
from easyteacache.policy.policy import Policy


@dataclass(frozen=True)
class Row:
    """One variant over all samples.

    Attributes:
        variant: which one.
        steps: sampler steps of a run, the mean over samples.
        computed: steps whose blocks were computed, the mean over samples and branches.
        seconds: wall time of a run, the median over samples.
        speedup: wall time of the uncached run divided by this variant's on the same seed, the median over samples: a
            moment in which the machine was busy spoils one sample and not the result.
        psnr, worst_psnr: against the uncached run of the same seed, dB: mean over samples, and the lowest; None for itself.
        ssim: the mean over samples; None for itself.
        digits_read: samples in which the digit classifier reads the digit asked for.
    """

    variant: str
    steps: float
    computed: float
    seconds: float
    speedup: float
    psnr: float | None
    worst_psnr: float | None
    ssim: float | None
    digits_read: int


def compare(samples: Sequence[Sample]) -> list[Row]:
    """One row a variant, the uncached one first.

    Raises:
        ValueError: a run gave values that are not finite.
    """
    return [_row(samples, variant) for variant in VARIANTS]


def _row(samples: Sequence[Sample], variant: str) -> Row:
    runs = [sample.runs[variant] for sample in samples]
    references = [sample.runs[UNCACHED] for sample in samples]
    itself = variant == UNCACHED
    decibels = [psnr(a.frames, b.frames) for a, b in zip(references, runs, strict=True)]
    similarity = [ssim(a.frames, b.frames) for a, b in zip(references, runs, strict=True)]
    return Row(
        variant=variant,
        steps=statistics.fmean(run.steps for run in runs),
        computed=statistics.fmean(run.computed for run in runs),
        seconds=statistics.median(run.seconds for run in runs),
        speedup=statistics.median(a.seconds / b.seconds for a, b in zip(references, runs, strict=True)),
        psnr=None if itself else statistics.fmean(decibels),
        worst_psnr=None if itself else min(decibels),
        ssim=None if itself else statistics.fmean(similarity),
        digits_read=_digits_read([sample.prompt for sample in samples], runs),
    )


def _digits_read(prompts: Sequence[str], runs: Sequence[Run]) -> int:
    import torch

    from easyteacache.reference import load_classifier
    from easyteacache.reference.prompts import parse_prompt

    # (B, F, H, W, 1) in [0, 1] → (B, 1, F, H, W) in [-1, 1], as the classifier takes them.
    videos = torch.stack([torch.from_numpy(run.frames) for run in runs]).permute(0, 4, 1, 2, 3) * 2 - 1
    asked = torch.tensor([parse_prompt(prompt).digit for prompt in prompts])
    return int((load_classifier().read(videos.float()) == asked).sum())


def as_data(
    settings: DemoSettings, policy: Policy, rows: Sequence[Row], samples: Sequence[Sample], *, files: Mapping[str, Path]
) -> dict[str, Any]:
    """Everything that was asked for and found, as plain data for JSON; an infinite PSNR is null there."""
    named = ("model_key", "revision", "layer", "threshold", "schedule", "forecaster", "notes")
    return {
        "settings": vars(settings),
        "policy": {name: getattr(policy, name) for name in named},
        "rows": [{name: _finite(value) for name, value in vars(row).items()} for row in rows],
        "samples": [
            {"prompt": one.prompt, "seed": one.seed, "patterns": dict(one.runs[CACHED].patterns)} for one in samples
        ],
        "files": {kind: str(path) for kind, path in files.items()},
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and math.isinf(value) else value
