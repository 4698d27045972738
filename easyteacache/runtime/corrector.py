"""Make good at a computed step what predictions since the last one got wrong, under any deterministic sampler.

A plan with rows says what the sampler should have been handed at every step, as a combination of the outputs computed so far
(``solver/replay/fitted_weights.py``), and so where the sample should be. Reused steps are filled by whatever predictor the plan has; the
next computed output then shows what they missed, and the sampler is handed, with it, what puts the state right that the model sees next:
that of the next computed step. How far that is follows from the sampler's map (``sampler_steps.py``), which also knows what a handed output
goes on to do through the sampler's memory.

One corrector, three drivers: tensors of a branch drive it in ``forward`` (guidance adds branches up, and corrections with them), the guided
outputs of many runs while plans are measured, rows of weights in replay (``solver/replay/handed.py``). It adds up whatever it is given.
"""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from easyteacache.runtime.predictors import PlannedRows
from easyteacache.runtime.sampler_steps import Ahead, SamplerSteps
from easyteacache.runtime.tensor_math import alike

if TYPE_CHECKING:
    import torch

Output = TypeVar("Output")
#: step, weight of its output in the state that is put right, weights of the outputs at hand in that state → weights to use instead.
Refine = Callable[[int, float, list[float]], list[float]]


class Sums(Protocol[Output]):
    """How outputs are kept and added up."""

    def kept(self, output: Output, /) -> Output:
        """What is remembered of an output."""
        ...

    def add(self, total: Output | None, value: Output, weight: float, /) -> Output:
        """total + weight · value; ``total`` may be changed in place, ``value`` is not."""
        ...

    def combined(self, terms: Sequence[tuple[float, Output]], taken: Output | None, size: float, /) -> Output:
        """(Σ weight · output − taken) / size of one or more terms, the newest last."""
        ...


class Corrector(Generic[Output]):
    """What the sampler is handed at every step of a plan with rows.

    Args:
        rows: per step the weights of the last computed outputs up to and including that step, oldest first.
        schedule: the computed steps they were fitted to, ascending.
        sums: how outputs are added up.
        fills: the rows fill reused steps, too; otherwise whatever is there is taken as it is, and made good later.
        refine: replaces the weights of every step that is corrected: where a fit joins in.
    """

    def __init__(
        self,
        rows: Sequence[tuple[float, ...]],
        schedule: Sequence[int],
        sums: Sums[Output],
        *,
        fills: bool = False,
        refine: Refine | None = None,
    ) -> None:
        self._plan, self._schedule = PlannedRows(tuple(rows), tuple(schedule)), tuple(schedule)
        self._sums, self._fills, self._refine = sums, fills, refine
        self._places: deque[int] = deque()
        self._outputs: deque[Output] = deque()
        # What was handed over, less what the rows say: the next states of the one, and of the other as weights of the outputs at hand.
        self._moved: Ahead[Output] = Ahead(sums.add)
        self._meant: Ahead[list[float]] = Ahead(_add_weights)

    @property
    def history(self) -> int:
        """Most computed outputs that are kept between steps."""
        return self._plan.history

    @property
    def outputs(self) -> list[Output]:
        """The computed outputs at hand, oldest first; while a step is corrected its own, too."""
        return list(self._outputs)

    def moved(self, weights: Sequence[float]) -> Output | None:
        """What was handed over less what the rows said, in a state that follows from the next ones by ``weights``."""
        return self._moved.sum(weights)

    @property
    def held(self) -> list[Output]:
        """Everything that is kept at this moment."""
        return [*self._outputs, *(state for state in self._moved.states if state is not None)]

    def clear(self) -> None:
        """Forget the run; the next computed step is handed on as it is."""
        self._places.clear()
        self._outputs.clear()
        self._moved.clear()
        self._meant.clear()

    def row(self, step: int) -> tuple[float, ...] | None:
        """The row of ``step`` over the outputs at hand; None where other steps were computed than the plan's."""
        return self._plan.row([float(place) for place in self._places], float(step))

    def handed(self, step: int, output: Output, sampler: SamplerSteps | None, *, computed: bool) -> Output:
        """What the sampler is handed for ``output``; the same object where nothing is corrected.

        Args:
            step: zero-based index, above the last one.
            output: computed, or made of a prediction.
            sampler: what the sampler's steps do; None where that is not known, and nothing can be corrected.
            computed: the step's output was computed.
        """
        if sampler is None or step >= len(sampler):
            self.clear()
            return output
        first = not self._places
        if computed:
            self._places.append(step)
            self._outputs.append(self._sums.kept(output))
        row = None if first else self.row(step)
        if row is None:
            # Nothing was handed over yet, or nothing that the rows know of.
            self._moved.clear()
            self._meant.clear()
            self._trim()
            return output
        found, moves, corrects = output, sampler.moves[step], computed or self._fills
        weights = sampler.reaching(step, self.next_seen(step, len(sampler))) if corrects else ()
        size = sum(a * b for a, b in zip(weights, moves, strict=True)) if corrects else 0.0
        if abs(size) > sampler.least:
            found = self._corrected(step, output, row, size, weights, computed=computed)
            self._moved.cancel(moves, weights)
            self._meant.cancel(moves, weights)
        else:
            self._moved.add(moves, self._sums.kept(output))
            self._meant.add(moves, list(row))
        if step + 1 < len(sampler):
            self._moved.advance(sampler.follows[step + 1])
            self._meant.advance(sampler.follows[step + 1])
        self._trim()
        return found

    def next_seen(self, step: int, steps: int) -> int:
        """The step whose state the model sees next, of S ``steps``; S where that is the sample."""
        if self._fills:
            return step + 1
        following = bisect.bisect_right(self._schedule, step)
        return self._schedule[following] if following < len(self._schedule) else steps

    def _corrected(
        self, step: int, output: Output, row: Sequence[float], size: float, weights: Sequence[float], *, computed: bool
    ) -> Output:
        total = _add_weights(self._meant.sum(weights), list(row), size)
        if self._refine is not None:
            total = self._refine(step, size, total)
        moved = self._moved.sum(weights)
        if moved is None and computed and total[-1] == size and not any(total[:-1]):
            return output
        # What was just computed may carry a gradient; what is remembered never does.
        outputs = [*list(self._outputs)[:-1], output if computed else self._outputs[-1]]
        return self._sums.combined(list(zip(total, outputs, strict=True)), moved, size)

    def _trim(self) -> None:
        """Let go of outputs that no row reaches; what the rows said of them becomes part of what moved."""
        while len(self._outputs) > self.history:
            oldest = self._outputs.popleft()
            self._places.popleft()
            meant = [weights[0] if weights else 0.0 for weights in self._meant.states]
            self._meant.states = [weights[1:] if weights else None for weights in self._meant.states]
            if any(meant):
                self._moved.add([-weight for weight in meant], oldest)


def _add_weights(total: list[float] | None, value: list[float], weight: float) -> list[float]:
    """total + weight · value; an output that came since counts 0 in what is older."""
    return [old + weight * each for old, each in itertools.zip_longest(total or (), value, fillvalue=0.0)]


class TensorSums:
    """Tensors of any shape, added up in single precision at least: differences of sums are small."""

    def kept(self, output: torch.Tensor, /) -> torch.Tensor:
        """Without its graph."""
        return output.detach()

    def add(self, total: torch.Tensor | None, value: torch.Tensor, weight: float, /) -> torch.Tensor:
        """In place."""
        return value.to(_precise(value)) * weight if total is None else total.add_(value, alpha=weight)

    def combined(
        self, terms: Sequence[tuple[float, torch.Tensor]], taken: torch.Tensor | None, size: float, /
    ) -> torch.Tensor:
        """In the newest one's number type."""
        *others, (weight, newest) = terms
        made = newest.to(_precise(newest)) * weight
        for weight, tensor in others:
            made.add_(tensor, alpha=weight)
        if taken is not None:
            made.sub_(taken)
        return made.div_(size).to(newest.dtype)


class CorrectedOutputs:
    """A corrector of tensors, which starts anew where their shape, number type or device changes.

    Args:
        corrector: a fresh one.
    """

    def __init__(self, corrector: Corrector[Any]) -> None:
        self._corrector: Corrector[torch.Tensor] = corrector

    def clear(self) -> None:
        """Forget the run; the next computed step is handed on as it is."""
        self._corrector.clear()

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Everything that is held at this moment."""
        return self._corrector.held

    def handed(self, step: int, output: torch.Tensor, sampler: SamplerSteps | None, *, computed: bool) -> torch.Tensor:
        """As ``Corrector.handed``, any shape: a new tensor, or the same where nothing is corrected."""
        if computed and self._corrector.outputs and not alike(self._corrector.outputs[-1], output):
            self.clear()
        return self._corrector.handed(step, output, sampler, computed=computed)


def tensor_corrector(rows: Sequence[tuple[float, ...]], schedule: Sequence[int], **options: Any) -> CorrectedOutputs:
    """A corrector of one branch's tensors; arguments as for ``Corrector``."""
    return CorrectedOutputs(Corrector(rows, schedule, TensorSums(), **options))


def _precise(tensor: torch.Tensor) -> torch.dtype:
    """Single precision at least: differences of sums are small."""
    import torch

    return torch.promote_types(tensor.dtype, torch.float32)
