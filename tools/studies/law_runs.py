"""Runs of the law study, each sampled once and kept in a folder, so that an interrupted study goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from law_models import Models, Setting, decibels, gram, sample
from numpy.typing import NDArray

Array = NDArray[np.float64]
SEEDS = 8
# Long videos take minutes a run on one core.
FEWER_SEEDS_FROM, FEWER_SEEDS = 1024, 4
# Relative to the final sample: small enough to be answered in proportion.
DISTURBANCE = 0.01
RESPONSE_STRIDE = 3


@dataclass(frozen=True)
class Recorded:
    """Uncached runs of one setting.

    Attributes:
        gram: (S, S) inner products of the guided outputs, mean over runs.
        levels: (S + 1,) noise levels.
        final: (B, …) samples.
    """

    gram: Array
    levels: Array
    final: torch.Tensor


class Runs:
    """Samples settings uncached and by plans; remembers everything under ``folder``."""

    def __init__(self, folder: Path, models: Models) -> None:
        self._folder, self._models = folder, models
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        self._file = folder / "sampled.jsonl"
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self._known: dict[str, list[float]] = dict(json.loads(line) for line in lines)

    def recorded(self, setting: Setting) -> Recorded:
        """The uncached runs of ``setting``."""
        path = self._folder / "runs" / f"{setting.name}.npz"
        if not path.exists():
            found = sample(self._models, setting, seeds_of(setting), keep=True)
            assert found.outputs is not None
            np.savez(path, gram=gram(found.outputs), levels=found.levels, final=found.final.numpy())
        with np.load(path) as stored:
            return Recorded(stored["gram"].mean(axis=0), stored["levels"], torch.from_numpy(stored["final"]))

    def decibels(self, setting: Setting, plan: Sequence[int], *, fill: str = "linear") -> Array:
        """PSNR of every run's sample under ``plan``, (B,)."""
        key = f"{setting.name} {fill} {' '.join(map(str, plan))}"
        if key not in self._known:
            exact = self.recorded(setting).final
            found = sample(self._models, setting, seeds_of(setting), plan=plan, fill=fill)
            self._known[key] = [round(float(value), 3) for value in decibels(found.final, exact)]
            with self._file.open("a") as file:
                file.write(json.dumps([key, self._known[key]]) + "\n")
        return np.array(self._known[key])

    def response(self, setting: Setting) -> Array:
        """How much of a small error before a step is left in the final sample, (J, 2): log(σ/(1 − σ)) and the mean ratio of norms.

        Errors point as those of a linear forecast do, along the second difference of the outputs; geometric mean over runs.
        """
        path = self._folder / "runs" / f"response-{setting.name}.npy"
        if not path.exists():
            np.save(path, np.array(list(self._responses(setting))))
        return np.asarray(np.load(path))

    def _responses(self, setting: Setting) -> Iterator[tuple[float, float]]:
        seeds = seeds_of(setting)
        full = sample(self._models, setting, seeds, keep=True)
        assert full.outputs is not None
        size = DISTURBANCE * full.final.flatten(1).norm(dim=1)
        for step in range(2, setting.steps, RESPONSE_STRIDE):
            change = full.outputs[step] - 2.0 * full.outputs[step - 1] + full.outputs[step - 2]
            change = change * (size / change.flatten(1).norm(dim=1)).view(-1, 1, 1, 1, 1)
            disturbed = sample(self._models, setting, seeds, disturb=(step, change))
            ratio = (disturbed.final - full.final).flatten(1).norm(dim=1) / size
            sigma = float(full.levels[step])
            yield math.log(sigma / (1.0 - sigma)), float(ratio.log().mean().exp())


def seeds_of(setting: Setting) -> range:
    """The seeds that a setting is sampled with."""
    return range(FEWER_SEEDS if setting.tokens >= FEWER_SEEDS_FROM else SEEDS)
