"""A deterministic sampler step by step: how far each output moves the states that follow.

A sampler's map (``records/sampler.py``) says which outputs make up every state. Read along the run it is a machine with a short memory: the
next few states, were nothing more handed over, say everything that the outputs so far will ever do. Euler's needs one of them, DPM++ 2M
two, UniPC of order two three; the map itself says how many, whatever the class.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from numpy.typing import ArrayLike

#: Of the largest weight: a state that the ones before it give to within this follows from them. Samplers that keep noise levels in single
#: precision are linear to 1e-7.
FOLLOWS = 1e-5
#: Of the largest weight of any output in the sample: an output that moves a state by less cannot put it right.
LEAST_MOVE = 1e-5
#: States ahead that are tried; the longest memory of a multistep sampler of diffusers is 4.
LONGEST = 8

Sum = TypeVar("Sum")


@dataclass(frozen=True)
class SamplerSteps:
    """What a sampler's steps do, as plain numbers.

    Attributes:
        moves: (S, r) weights of output j in the states before steps j + 1 … j + r, 0 beyond the sample.
        follows: (S, r) how the state before step j + r follows from those before steps j … j + r − 1, when no output from j on is handed
            over.
        least: an output of less weight in a state cannot put it right.
    """

    moves: tuple[tuple[float, ...], ...]
    follows: tuple[tuple[float, ...], ...]
    least: float

    def __len__(self) -> int:
        return len(self.moves)

    @property
    def memory(self) -> int:
        """States ahead that have to be known, r, at least 1."""
        return len(self.moves[0])

    @classmethod
    def of(cls, sampler_map: ArrayLike) -> SamplerSteps | None:
        """The steps of a map ``(S + 1, S + 1)``; None where no short memory explains it."""
        import numpy as np

        weights = np.asarray(sampler_map, dtype=np.float64)[:, 1:]
        steps = weights.shape[1]
        for memory in range(1, min(LONGEST, steps) + 1):
            found = _recurrence(weights, memory)
            if found is not None:
                ahead = np.vstack((weights, np.zeros((memory, steps))))
                moves = tuple(tuple(map(float, ahead[j + 1 : j + 1 + memory, j])) for j in range(steps))
                return cls(moves, found, LEAST_MOVE * float(np.max(np.abs(weights[-1]))))
        return None

    @classmethod
    def euler(cls, levels: Sequence[float]) -> SamplerSteps:
        """Those of Euler's flow-matching sampler over S + 1 noise levels."""
        sizes = [float(b - a) for a, b in itertools.pairwise(levels)]
        return cls(tuple((size,) for size in sizes), ((1.0,),) * len(sizes), LEAST_MOVE * max(map(abs, sizes)))

    def reaching(self, step: int, state: int) -> tuple[float, ...]:
        """How the state before step ``state`` follows from the (r,) states after ``step``, when no output after that one is handed over.

        Args:
            step: zero-based index.
            state: above ``step``; S is the sample.
        """
        first = max(step, state - self.memory)
        found = [float(position == state - first - 1) for position in range(self.memory)]
        for later in range(first, step, -1):
            last, row = found[-1], self.follows[later]
            found = [last * row[0], *(a + last * b for a, b in zip(found[:-1], row[1:], strict=True))]
        return tuple(found)


def _recurrence(weights: object, memory: int) -> tuple[tuple[float, ...], ...] | None:
    """How every state follows from the ``memory`` ones before it, were no more outputs handed over; None where it does not."""
    import numpy as np

    rows = np.asarray(weights)
    states, steps = rows.shape
    found = [(0.0,) * memory]
    least = FOLLOWS * float(np.max(np.abs(rows)))
    for step in range(1, steps):
        if step + memory >= states:
            # Beyond the sample there is no state to know.
            found.append((0.0,) * memory)
            continue
        before, after = rows[step : step + memory, :step], rows[step + memory, :step]
        weights_of, *_ = np.linalg.lstsq(before.T, after, rcond=1e-9)
        if np.max(np.abs(weights_of @ before - after)) > least:
            return None
        found.append(tuple(map(float, weights_of)))
    return tuple(found)


class Ahead(Generic[Sum]):
    """The next states as sums of whatever is handed over, were nothing more handed over: of numbers, of rows, or of tensors.

    Args:
        add: (sum or None, value, weight) → sum + weight · value; may change the sum in place, never the value.
    """

    def __init__(self, add: Callable[[Sum | None, Sum, float], Sum]) -> None:
        self._add = add
        #: The states before the steps to come, the next one first; None: nothing was handed over. Empty before the first.
        self.states: list[Sum | None] = []

    def clear(self) -> None:
        """Forget what was handed over."""
        self.states.clear()

    def add(self, weights: Sequence[float], value: Sum) -> None:
        """Add ``value`` to every state, by its weight there."""
        states = self.states or [None] * len(weights)
        self.states = [
            state if not weight else self._add(state, value, weight)
            for state, weight in zip(states, weights, strict=True)
        ]

    def sum(self, weights: Sequence[float]) -> Sum | None:
        """Σ weight · state; one state with weight 1 is given as it is."""
        terms = [
            (weight, state) for weight, state in zip(weights, self.states, strict=False) if weight and state is not None
        ]
        if len(terms) == 1 and terms[0][0] == 1.0:
            return terms[0][1]
        total: Sum | None = None
        for weight, state in terms:
            total = self._add(total, state, weight)
        return total

    def cancel(self, moves: Sequence[float], weights: Sequence[float]) -> None:
        """Hand over what brings Σ weight · state to nothing."""
        if len(moves) == 1:
            # Of one state nothing is left.
            self.clear()
        value = self.sum(weights)
        if value is None:
            return
        size = sum(a * b for a, b in zip(weights, moves, strict=True))
        taken = self._add(None, value, 1.0)
        self.add([-move / size for move in moves], taken)

    def advance(self, follows: Sequence[float]) -> None:
        """Go on to the next step, whose ``follows`` these are."""
        if not self.states:
            return
        last: Sum | None = None
        for state, weight in zip(self.states, follows, strict=True):
            if state is not None and weight:
                last = self._add(last, state, weight)
        self.states = [*self.states[1:], last]
        if all(state is None for state in self.states):
            self.states = []
