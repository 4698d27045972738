"""What a caller knows of a run and wants from it."""

from __future__ import annotations

import dataclasses
import math
import numbers
import operator
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """What the caller knows and wants; every field may be left open.

    Attributes:
        sequence_length: tokens of the generated stream entering the blocks, above 0.
        num_steps: sampler steps, above 0.
        shift: flow-matching time shift, above 0.
        threshold: use this threshold instead of an operating point of the record.
        speedup: steps divided by computed steps to reach, at least 1.
        max_error: error of the final sample not to exceed (relative L2).
        min_skip_step, max_skip_step, max_consecutive_skips, forecaster: override the record's. A negative ``max_skip_step``
            counts from the end, −1 is the last step; ``max_consecutive_skips`` 0 computes every step.
        block_stack_only: prefer operating points that need nothing but the block stack, that is, forecast its residual along the
            steps; set for the three verbs, which see no output and need not be told the time.
        uncorrected: leave out operating points that correct computed steps; set where the run is not known to be one of Euler's
            sampler, to which alone a correction can be handed, over the noise levels that the corrections were fitted at.

    Raises:
        ValueError: a number is out of range or not a number, or two of threshold, speedup and max_error are given.
    """

    sequence_length: int | None = None
    num_steps: int | None = None
    shift: float | None = None
    threshold: float | None = None
    speedup: float | None = None
    max_error: float | None = None
    min_skip_step: int | None = None
    max_skip_step: int | None = None
    max_consecutive_skips: int | None = None
    forecaster: str | None = None
    block_stack_only: bool = False
    uncorrected: bool = False

    def __post_init__(self) -> None:
        asked = [name for name in ("threshold", "speedup", "max_error") if getattr(self, name) is not None]
        if len(asked) > 1:
            raise ValueError(f"{' and '.join(asked)} exclude each other: give one of them")
        for name, least in (
            ("sequence_length", 1),
            ("num_steps", 1),
            ("min_skip_step", 0),
            ("max_consecutive_skips", 0),
        ):
            self._keep(name, _whole(getattr(self, name), name, least))
        self._keep("max_skip_step", _whole(self.max_skip_step, "max_skip_step", None))
        for name, least in (("threshold", 0), ("speedup", 1), ("max_error", 0), ("shift", 0)):
            self._keep(name, _real(getattr(self, name), name, least))
        if self.shift == 0:
            raise ValueError("shift is 0, expected a number above 0")

    def at(self, *, sequence_length: int | None, num_steps: int | None, shift: float | None) -> Setting:
        """The same wishes for another sequence length, step count or shift."""
        return dataclasses.replace(self, sequence_length=sequence_length, num_steps=num_steps, shift=shift)

    def _keep(self, name: str, value: float | None) -> None:
        object.__setattr__(self, name, value)


def _whole(value: object, name: str, least: int | None) -> int | None:
    """``value`` as an int: NumPy's integers count, bools and floats do not."""
    if value is None:
        return None
    expected = "expected an integer" + ("" if least is None else f" of at least {least}")
    if isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, {expected}")
    try:
        found = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"{name} is {value!r}, {expected}") from None
    if least is not None and found < least:
        raise ValueError(f"{name} is {found}, {expected}")
    return found


def _real(value: object, name: str, least: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value) or value < least:
        raise ValueError(f"{name} is {value!r}, expected a finite number of at least {least}")
    return float(value)
