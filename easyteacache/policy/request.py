"""What a caller wishes of a cache, and what is known of the run that it is applied to.

A request is the caller's own and lasts as long as the cache. A run context is put together anew for every run: by ``attach`` from
the pipeline and its scheduler, by the three verbs from what their caller says. Only both together lead to a policy.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easyteacache.policy.quality import level
from easyteacache.records.sampler import TOLERANCE

if TYPE_CHECKING:
    from easyteacache.records.model_identity import ModelIdentity
    from easyteacache.records.sampler import SamplerRecord

#: Ways of choosing an operating point; they exclude each other.
TARGETS = ("threshold", "speedup", "max_error", "quality")


@dataclass(frozen=True)
class Request:
    """What the caller wishes; every field may be left open.

    Attributes:
        threshold: use this threshold instead of an operating point of the record.
        speedup: steps divided by computed steps to reach, at least 1.
        max_error: error of the final sample not to exceed (relative L2).
        quality: the same by name: ``exact`` (nothing is reused), ``high``, ``balanced`` or ``fast``, or what an engine calls it
            (``policy/quality.py``).
        min_skip_step, max_skip_step, max_consecutive_skips: override the record's window. A negative ``max_skip_step`` counts from
            the end, −1 is the last step; ``max_consecutive_skips`` 0 computes every step.
        predictor: name of what fills reused steps instead of the record's choice.

    Raises:
        ValueError: a number is out of range or not a number, ``quality`` is none, or two of threshold, speedup, max_error and quality
            are given.
    """

    threshold: float | None = None
    speedup: float | None = None
    max_error: float | None = None
    min_skip_step: int | None = None
    max_skip_step: int | None = None
    max_consecutive_skips: int | None = None
    predictor: str | None = None
    quality: str | None = None

    def __post_init__(self) -> None:
        asked = [name for name in TARGETS if getattr(self, name) is not None]
        if len(asked) > 1:
            raise ValueError(f"{' and '.join(asked)} exclude each other: give one of them")
        if self.quality is not None:
            object.__setattr__(self, "quality", level(self.quality).name)
        for name, least in (("min_skip_step", 0), ("max_skip_step", None), ("max_consecutive_skips", 0)):
            _keep(self, name, _whole(getattr(self, name), name, least))
        for name, smallest in (("threshold", 0), ("speedup", 1), ("max_error", 0)):
            _keep(self, name, _real(getattr(self, name), name, smallest))

    @property
    def exact(self) -> bool:
        """Nothing may be reused."""
        return self.quality == "exact"

    @property
    def budget(self) -> float | None:
        """Error of the final sample that a run is to stay within, by number or by name; None where none is asked for."""
        if self.quality is None or self.exact:
            return self.max_error
        return level(self.quality).most

    @property
    def chooses(self) -> bool:
        """Does it say which operating point is wanted?"""
        return any(getattr(self, name) is not None for name in TARGETS)


@dataclass(frozen=True)
class Capabilities:
    """What the driver of a session can apply. Without arguments: everything.

    Attributes:
        sees: the quantities of the model it can replace: ``residual`` of the block stack, ``feature`` before the head, ``output``.
        corrects: it can hand the sampler something else than the model's output, and knows what the sampler makes of it.
        euler: the sampler is Euler's, from its first noise level on: rows that name no sampler were fitted for that one.
        guided: it can replace the output after guidance, one for all branches.
    """

    sees: tuple[str, ...] = ("residual", "feature", "output")
    corrects: bool = True
    euler: bool = True
    guided: bool = False

    @property
    def block_stack_only(self) -> bool:
        """True for a driver that sees what enters and leaves the blocks, and need not be told the time."""
        return self.sees == ("residual",)

    @property
    def alone(self) -> str | None:
        """The one quantity that a driver sees and replaces whole, where it sees no signal and no blocks; None for others.

        What was made for another quantity is done to this one.
        """
        return self.sees[0] if len(self.sees) == 1 and not self.block_stack_only else None


#: The three verbs: their caller stands around the blocks.
VERBS = Capabilities(sees=("residual",), corrects=False, euler=False)
#: A wrapper around the whole model, under a sampler that is not known to be Euler's.
OUTPUTS = Capabilities(sees=("output",), corrects=False, euler=False)


@dataclass(frozen=True)
class RunContext:
    """What is known of one run; every field may be left open.

    Attributes:
        sequence_length: tokens of the generated stream entering the blocks, above 0.
        num_steps: sampler steps, above 0.
        shift: flow-matching time shift, above 0.
        sampler: the run's sampler with its noise levels; None where it is not known.
        model: the transformer that runs; None where it is not known.
        can: what the driver of the run can apply.
        values_per_token: numbers of the latent that a token stands for, above 0: its channels times its patch.
        guidance_scale: what the pipeline was called with, dimensionless; None where it has none, or nobody knows it.
        begun: a run goes on, and what is left open here is not known to anybody; before one it may only not have been said yet.

    Raises:
        ValueError: a number is out of range or not a number.
    """

    sequence_length: int | None = None
    num_steps: int | None = None
    shift: float | None = None
    sampler: SamplerRecord | None = None
    model: ModelIdentity | None = None
    can: Capabilities = Capabilities()
    values_per_token: int | None = None
    guidance_scale: float | None = None
    begun: bool = False

    def __post_init__(self) -> None:
        for name in ("sequence_length", "num_steps", "values_per_token"):
            _keep(self, name, _whole(getattr(self, name), name, 1))
        _keep(self, "shift", _real(self.shift, "shift", 0))
        if self.shift == 0:
            raise ValueError("shift is 0, expected a number above 0")

    def corrects_over(self, levels: Sequence[float] | None, sampler: SamplerRecord | None = None) -> bool:
        """Can corrections be handed on that were fitted for a sampler, or over noise levels?

        Args:
            levels: (S + 1,) noise levels; None: nobody says which they are.
            sampler: the sampler; None, or without a signature: Euler's over these levels.
        """
        if not self.can.corrects:
            return False
        if sampler is None or sampler.signature is None:
            return self.can.euler and (levels is None or self.over(levels) is not False)
        if self.sampler is None:
            # It may be known when the run begins.
            return self.can.euler or not sampler.is_euler
        return sampler.agrees(self.sampler) is True

    def over(self, levels: Sequence[float]) -> bool | None:
        """Are these (S + 1,) the run's noise levels? None where those are not known."""
        found = None if self.sampler is None else self.sampler.levels
        if found is None:
            return None
        apart = TOLERANCE * max(levels)
        return len(found) == len(levels) and all(abs(a - b) <= apart for a, b in zip(found, levels, strict=True))

    def after(self, known: RunContext, *, seen_steps: int | None = None) -> RunContext:
        """This context, and ``known`` where this one leaves something open; ``seen_steps`` where both do not say how many."""
        steps = next((n for n in (self.num_steps, known.num_steps, seen_steps) if n is not None), None)
        return dataclasses.replace(
            self,
            sequence_length=known.sequence_length if self.sequence_length is None else self.sequence_length,
            num_steps=steps,
            shift=known.shift if self.shift is None else self.shift,
            sampler=known.sampler if self.sampler is None else self.sampler,
            values_per_token=known.values_per_token if self.values_per_token is None else self.values_per_token,
            model=known.model if self.model is None else self.model,
        )


def request_and_run(
    *,
    sequence_length: int | None = None,
    num_steps: int | None = None,
    shift: float | None = None,
    threshold: float | None = None,
    speedup: float | None = None,
    max_error: float | None = None,
    quality: str | None = None,
    min_skip_step: int | None = None,
    max_skip_step: int | None = None,
    max_consecutive_skips: int | None = None,
    predictor: str | None = None,
) -> tuple[Request, RunContext]:
    """Both halves of what callers say in one go, as the constructors and the command line take it; raises as they do."""
    request = Request(
        threshold=threshold,
        speedup=speedup,
        max_error=max_error,
        quality=quality,
        min_skip_step=min_skip_step,
        max_skip_step=max_skip_step,
        max_consecutive_skips=max_consecutive_skips,
        predictor=predictor,
    )
    return request, RunContext(sequence_length=sequence_length, num_steps=num_steps, shift=shift)


def _keep(wishes: object, name: str, value: float | None) -> None:
    object.__setattr__(wishes, name, value)


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
    expected = f"expected a finite number of at least {least}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name} is {value!r}, {expected}")
    try:
        found = float(value)
    except OverflowError:
        raise ValueError(f"{name} is larger than any float, {expected}") from None
    if not math.isfinite(found) or found < least:
        raise ValueError(f"{name} is {value!r}, {expected}")
    return found
