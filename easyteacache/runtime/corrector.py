"""Make good at a computed step what forecasts since the last one got wrong, for an Euler sampler.

A plan with weights says where the sample should be after every step, as a combination of the outputs computed so far
(``solver/fitted.py``). Reused steps are filled by whatever predictor the plan has; the next computed output then shows what they
missed, and the sampler is handed the difference with it. One forward of one branch at a time: guidance adds branches up, and
corrections with them.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from easyteacache.runtime.predictors import PlannedRows

if TYPE_CHECKING:
    import torch


class Correction:
    """What one branch has to remember for it: the last computed outputs, and how far the sample moved since.

    Args:
        rows: per step the weights of the last computed outputs up to and including that step, oldest first.
        schedule: the computed steps they were fitted to, ascending.
    """

    def __init__(self, rows: tuple[tuple[float, ...], ...], schedule: tuple[int, ...]) -> None:
        self._plan = PlannedRows(rows, schedule)
        self._outputs: deque[tuple[int, torch.Tensor]] = deque(maxlen=self._plan.history)
        self.clear()

    def clear(self) -> None:
        """Forget the run; the next computed step is handed on as it is."""
        self._outputs.clear()
        # Σ Δσ_i · output_i over the reused steps since the last computed one, and those steps with their Δσ.
        self._moved: torch.Tensor | None = None
        self._gap: list[tuple[int, float]] = []

    @property
    def tensors(self) -> list[torch.Tensor]:
        """What is held at this moment."""
        return [tensor for _, tensor in self._outputs] + ([] if self._moved is None else [self._moved])

    def reused(self, step: int, output: torch.Tensor, size: float | None) -> None:
        """A step was filled with ``output``, any shape, which the sampler moves by ``size`` = σ of the next step − σ of this one."""
        if size is None:
            self.clear()
            return
        self._gap.append((step, size))
        if self._moved is None:
            self._moved = output.detach().to(_precise(output)) * size
        else:
            self._moved.add_(output.detach(), alpha=size)

    def computed(self, step: int, output: torch.Tensor, size: float | None) -> torch.Tensor:
        """What the sampler is handed at a computed step: ``output`` and what the steps before are short of, a new tensor."""
        handed = self._handed(step, output, size)
        self._outputs.append((step, output.detach()))
        self._moved, self._gap = None, []
        return handed

    def _handed(self, step: int, output: torch.Tensor, size: float | None) -> torch.Tensor:
        if not size or not self._outputs or not _alike(self._outputs[-1][1], output):
            return output
        total = self._wanted([*(place for place, _ in self._outputs), step], size)
        if total is None or (self._moved is None and all(w == 0.0 for w in total[:-1]) and total[-1] == size):
            return output
        handed = output.to(_precise(output)) * total[-1]
        for weight, (_, tensor) in zip(total[:-1], self._outputs, strict=True):
            handed.add_(tensor, alpha=weight)
        if self._moved is not None:
            handed.sub_(self._moved)
        return handed.div_(size).to(output.dtype)

    def _wanted(self, places: list[int], size: float) -> list[float] | None:
        """Weight of each output, at ``places``, in how far the sample should have moved since the last but one of them, this step included.

        None when other steps were computed than the weights were fitted to.
        """
        total = [0.0] * len(places)
        for step, change in [*self._gap, (places[-1], size)]:
            anchors = [float(place) for place in places if place <= step]
            row = self._plan.row(anchors, float(step))
            if row is None:
                return None
            for position, weight in enumerate(row):
                total[position] += change * weight
        return total


def _precise(tensor: torch.Tensor) -> torch.dtype:
    """Single precision at least: differences of sums are small."""
    import torch

    return torch.promote_types(tensor.dtype, torch.float32)


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
