"""Which sampler a run used, as numbers: its noise levels and its signature.

A deterministic sampler is a linear map. With x_k the sample before model call k, x_N the result and m = (noise, output of
call 0, …, output of call N − 1), x = A · m for one matrix A ``(N + 1, N + 1)``: row k holds x_k, column 0 the initial noise,
column i + 1 the output handed over at call i, and row k uses the columns 0 to k. The signature is the N + 1 states that
one fixed sequence of outputs leads to. Two samplers whose signatures agree do the same to every model, whatever their
classes are called; the same class with another order, shift, spacing or first step has another signature.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from easyteacache.records.fields import Record, ShortText

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

#: Largest difference of two signatures of one sampler, as a share of the largest state. Measured over 10 to 100 Euler steps:
#: noise levels rounded to six decimals differ by up to 7e-6, single precision by 1e-8; shift 3 from 3.05 by 4e-4 and more,
#: from 3.1 by 9e-4 and more; another solver by 2e-3 and more.
TOLERANCE = 1e-4
#: Decimals of a stored signature: finer than the single precision in which samplers keep their noise levels.
DECIMALS = 9
#: 2π / φ², radians: no two of the known outputs are ever alike.
GOLDEN_ANGLE = 2.399963229728653
#: Most calls of a run whose levels and signature are kept.
MOST_CALLS = 2000
#: What diffusers' schedulers call a constant flow-matching time shift in their configurations.
SHIFT_NAMES = ("shift", "flow_shift")

EULER = "FlowMatchEulerDiscreteScheduler"
#: End of the name of a sampler that was found to draw noise at its steps.
DRAWS_NOISE = " (stochastic)"

Prediction = Literal["velocity", "epsilon", "x0", "v", "unknown"]
Levels = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=2, max_length=MOST_CALLS + 1)]
Signature = Annotated[tuple[float, ...], Field(min_length=2, max_length=MOST_CALLS + 1)]


class SamplerRecord(Record):
    """The sampler of a run: what it is called, where it calls the model, and what it does with the outputs."""

    name: ShortText = Field(description="Class of the sampler, for people; `signature` is what is compared.")
    calls: Annotated[int, Field(ge=1, le=100_000)] = Field(description="Model calls N of one run, 1 to 100000.")
    calls_per_step: Annotated[int, Field(ge=1, le=16)] = Field(
        default=1, description="Most model calls of one sampler step, 1 to 16: 1 for most samplers, 2 for Heun's."
    )
    prediction: Prediction = Field(default="unknown", description="What the model's output is to the sampler.")
    levels: Levels | None = Field(
        default=None,
        description="N + 1 noise levels, 0 or more: at each call, and after the last one. In flow matching 1 is pure noise.",
    )
    signature: Signature | None = Field(
        default=None,
        description="N + 1 numbers, any finite ones, dimensionless: the states the sampler visits when the noise is cos(1) and call i returns "
        "cos(1 + 2.399963229728653 (i + 1)). Absent where the sampler draws noise, or nobody measured it.",
    )

    @model_validator(mode="after")
    def _one_number_a_state(self) -> SamplerRecord:
        for field in ("levels", "signature"):
            values = getattr(self, field)
            if values is not None and len(values) != self.calls + 1:
                raise ValueError(f"{len(values)} {field}; expected calls + 1 = {self.calls + 1}")
        return self

    @classmethod
    def euler(cls, levels: Sequence[float], *, name: str = EULER) -> SamplerRecord:
        """Euler's flow-matching sampler over these N + 1 noise levels."""
        levels = tuple(float(level) for level in levels)
        return cls(
            name=name,
            calls=len(levels) - 1,
            prediction="velocity",
            levels=levels,
            signature=_euler_signature(levels),
        )

    @property
    def draws_noise(self) -> bool:
        """Whether it was found to draw noise at its steps."""
        return self.signature is None and self.name.endswith(DRAWS_NOISE)

    @property
    def is_euler(self) -> bool:
        """Whether it steps as Euler's does over these noise levels, as far as it is known."""
        if self.levels is None or self.signature is None:
            return False
        return agree(_euler_signature(self.levels), self.signature)

    def agrees(self, other: SamplerRecord) -> bool | None:
        """Do both the same to every model? None where either has no signature."""
        if self.signature is None or other.signature is None:
            return None
        return agree(self.signature, other.signature)


def known_outputs(calls: int) -> Array:
    """The fixed noise and outputs of a signature ``(calls + 1,)``: cos(1 + 2.399963229728653 i), each within [−1, 1]."""
    import numpy as np

    return np.asarray(_known(calls), dtype=np.float64)


def _known(calls: int) -> list[float]:
    return [math.cos(1.0 + GOLDEN_ANGLE * i) for i in range(calls + 1)]


def signature_of(sampler_map: ArrayLike) -> tuple[float, ...]:
    """The N + 1 states that a map ``(N + 1, N + 1)`` visits on the known outputs, to ``DECIMALS`` decimals.

    Raises:
        ValueError: the map is not square.
    """
    import numpy as np

    rows = np.asarray(sampler_map, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[0] != rows.shape[1]:
        raise ValueError(f"expected a square map with one row a state, found shape {rows.shape}")
    # Row by row with exact sums, so that every machine writes the same numbers.
    known = _known(len(rows) - 1)
    return _rounded(math.fsum(a * m for a, m in zip(row, known, strict=True)) for row in rows.tolist())


def _rounded(states: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(state, DECIMALS) for state in states)


def _euler_signature(levels: Sequence[float]) -> tuple[float, ...]:
    """``signature_of(euler_map(levels))`` without numpy: an older record is read by it."""
    noise, *outputs = _known(len(levels) - 1)
    moves = [(b - a) * m for (a, b), m in zip(itertools.pairwise(levels), outputs, strict=True)]
    return _rounded(math.fsum((noise, *moves[:k])) for k in range(len(levels)))


def euler_map(levels: ArrayLike) -> Array:
    """The map ``(N + 1, N + 1)`` of Euler's flow-matching sampler over N + 1 noise levels: x ← x + (σ_{i+1} − σ_i) output_i."""
    import numpy as np

    steps = np.diff(np.asarray(levels, dtype=np.float64))
    count = len(steps) + 1
    rows = np.zeros((count, count))
    rows[:, 0] = 1.0
    rows[:, 1:] = np.tril(np.broadcast_to(steps, (count, count - 1)), -1)
    return rows


def difference(a: Sequence[float], b: Sequence[float]) -> float:
    """Largest difference of two signatures as a share of the largest state of ``a``; infinite where their lengths differ."""
    if len(a) != len(b):
        return math.inf
    largest, apart = max(map(abs, a), default=0.0), max((abs(x - y) for x, y in zip(a, b, strict=True)), default=0.0)
    return apart / largest if largest else (0.0 if apart == 0 else math.inf)


def agree(a: Sequence[float], b: Sequence[float]) -> bool:
    """Are these two signatures of one sampler, to within ``TOLERANCE``?"""
    return difference(a, b) <= TOLERANCE
