"""Make good at a computed step what forecasts since the last one got wrong, for an Euler sampler.

A plan with weights says where the sample should be after every step, as a combination of the outputs computed so far
(``solver/replay/fitted_weights.py``). Reused steps are filled by whatever predictor the plan has; the next computed output then
shows what they missed, and the sampler is handed the difference with it.

One corrector, three drivers. ``Corrector`` knows steps, step sizes and weights, and no tensor. ``CorrectedOutputs`` drives it with
tensors: those of one branch in ``forward`` (guidance adds branches up, and corrections with them), or the guided outputs of many
runs while plans are measured. Replay drives it with rows of weights (``solver/replay/corrected.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from easyteacache.runtime.predictors import PlannedRows
from easyteacache.runtime.tensor_math import alike

if TYPE_CHECKING:
    import torch

#: step, Δσ, weights of the outputs at hand in how far the sample should move → weights to use instead.
Refine = Callable[[int, float, list[float]], list[float]]


class Correction(NamedTuple):
    """What the sampler is handed at one step: (Σ weight_k · output_k − moved) / size.

    ``moved`` is Σ Δσ_i · output_i over the steps since the last correction, as they were filled.

    Attributes:
        weights: of the last computed outputs, oldest first; where the step is computed, its own is the last one.
        size: Δσ of the step, not 0.
    """

    weights: tuple[float, ...]
    size: float


def wanted(plan: PlannedRows, steps: Sequence[tuple[int, float]], places: Sequence[int]) -> list[float] | None:
    """How far the sample should move over some steps, as weights of computed outputs: Σ Δσ_i · row_i.

    Args:
        plan: a row a step, and the computed steps they were fitted to.
        steps: each with its Δσ, ascending.
        places: the computed steps whose outputs are at hand, ascending; later ones than a step have no part in its row.

    Returns:
        One weight a place; None when other steps were computed than the rows were fitted to.
    """
    total = [0.0] * len(places)
    for step, size in steps:
        row = plan.row([float(place) for place in places if place <= step], float(step))
        if row is None:
            return None
        for position, weight in enumerate(row):
            total[position] += size * weight
    return total


class Corrector:
    """Which outputs make up what the sampler is handed, and how much of each: a state machine over plain floats.

    Args:
        rows: per step the weights of the last computed outputs up to and including that step, oldest first.
        schedule: the computed steps they were fitted to, ascending.
        fills: the rows fill reused steps, too; otherwise whatever is there is taken as it is, and made good later.
        refine: replaces the weights of every step that is corrected: where a fit joins in.
    """

    def __init__(
        self,
        rows: Sequence[tuple[float, ...]],
        schedule: Sequence[int],
        *,
        fills: bool = False,
        refine: Refine | None = None,
    ) -> None:
        self._plan = PlannedRows(tuple(rows), tuple(schedule))
        self._fills, self._refine = fills, refine
        self._places: deque[int] = deque(maxlen=self.history)
        #: The steps since the last corrected one, with their Δσ.
        self._gap: list[tuple[int, float]] = []

    @property
    def history(self) -> int:
        """Most computed outputs that have to be kept between steps."""
        return self._plan.history

    def clear(self) -> None:
        """Forget the run; the next computed step is handed on as it is."""
        self._places.clear()
        self._gap.clear()

    def handed(self, step: int, size: float | None, *, computed: bool) -> Correction | None:
        """What the sampler is handed at ``step``; None: what the step gives by itself.

        Args:
            step: zero-based index, above the last one.
            size: Δσ: the noise level of the next step − that of this one; None where it is not known, and nothing can be corrected.
            computed: the step's output was computed.
        """
        if not computed and not self._fills:
            if size is None:
                self.clear()
            else:
                self._gap.append((step, size))
            return None
        first = not self._places
        places = [*self._places, step] if computed else list(self._places)
        found = None if first or not size else self._correction(places, step, size)
        if computed:
            self._places.append(step)
        self._gap.clear()
        return found

    def _correction(self, places: list[int], step: int, size: float) -> Correction | None:
        total = wanted(self._plan, [*self._gap, (step, size)], places)
        if total is None:
            return None
        if self._refine is not None:
            total = self._refine(step, size, total)
        nothing = places[-1] == step and total[-1] == size and not any(total[:-1])
        return None if nothing and not self._gap else Correction(tuple(total), size)


class CorrectedOutputs:
    """Drives a corrector with tensors, and holds what it looks back at: the last computed outputs, and how far the sample moved since.

    Args:
        corrector: a fresh one.
    """

    def __init__(self, corrector: Corrector) -> None:
        self._corrector = corrector
        self._outputs: deque[torch.Tensor] = deque()
        self._moved: torch.Tensor | None = None

    def clear(self) -> None:
        """Forget the run; the next computed step is handed on as it is."""
        self._corrector.clear()
        self._outputs.clear()
        self._moved = None

    @property
    def outputs(self) -> list[torch.Tensor]:
        """The computed outputs at hand, oldest first; while a step is corrected its own, too."""
        return list(self._outputs)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Everything that is held at this moment."""
        return [*self._outputs, *([] if self._moved is None else [self._moved])]

    def handed(self, step: int, output: torch.Tensor, size: float | None, *, computed: bool) -> torch.Tensor:
        """What the sampler is handed for ``output``, any shape: a new tensor, or the same where nothing is corrected; else as ``Corrector.handed``."""
        if computed:
            if self._outputs and not alike(self._outputs[-1], output):
                self.clear()
            self._outputs.append(output.detach())
        correction = self._corrector.handed(step, size, computed=computed)
        found = output if correction is None else self._made(correction, output, computed=computed)
        if computed or correction is not None:
            self._moved = None
        elif size is None:
            self.clear()
        else:
            self._move(output.detach(), size)
        while len(self._outputs) > self._corrector.history:
            self._outputs.popleft()
        return found

    def _made(self, correction: Correction, output: torch.Tensor, *, computed: bool) -> torch.Tensor:
        kept = list(self._outputs)[-len(correction.weights) :]
        *others, (weight, newest) = zip(correction.weights, kept, strict=True)
        # What was just computed may carry a gradient; what is remembered never does.
        made = (output if computed else newest).to(_precise(newest)) * weight
        for weight, tensor in others:
            made.add_(tensor, alpha=weight)
        if self._moved is not None:
            made.sub_(self._moved)
        return made.div_(correction.size).to(output.dtype)

    def _move(self, output: torch.Tensor, size: float) -> None:
        if self._moved is None:
            self._moved = output.to(_precise(output)) * size
        else:
            self._moved.add_(output, alpha=size)


def _precise(tensor: torch.Tensor) -> torch.dtype:
    """Single precision at least: differences of sums are small."""
    import torch

    return torch.promote_types(tensor.dtype, torch.float32)
