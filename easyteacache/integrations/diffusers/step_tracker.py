"""Which sampler step a forward belongs to, and whether it begins a new run.

Three sources, best first: what the pipeline writes into the cache context, the pipeline's scheduler (plain integers, so no
device is waited for), and the timestep that the transformer is handed (which does wait for the device when it lives there).
Where a run begins is read from the device once, at its first forward: many pipelines never tell their scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.first_timestep import SPAN, place_of
from easyteacache.integrations.diffusers.scheduler_facts import SchedulerFacts, facts_of, numbers
from easyteacache.runtime.sampler_steps import SamplerSteps


@dataclass(frozen=True)
class Context:
    """What a pipeline says of a forward through ``cache_context``; every field may be missing."""

    name: str | None = None
    step: int | None = None
    num_steps: int | None = None
    sigma: float | None = None


class Clock:
    """The sampler loop as seen from one transformer.

    A step is one call of the model: a sampler that calls it twice a step has two of these.

    Args:
        scheduler: gives the pipeline's scheduler; None when only the transformer is known.
    """

    def __init__(self, scheduler: Callable[[], Any] | None) -> None:
        self._scheduler_of = scheduler
        self._timesteps: Any = None
        # What the last forward showed of the run that the next ``begin`` takes up.
        self._found_base: int | None = None
        self._next_step: int | None = None
        self._stood = False
        self.end()

    def end(self) -> None:
        """The run is over, or was broken off: the next forward begins another one."""
        self.step = -1
        self.num_steps: int | None = None
        #: What the pipeline's scheduler does in this run; None where it does not drive the loop, or nobody knows it.
        self.facts: SchedulerFacts | None = None
        self._live = False
        self._options: Any = None
        self._altered = False
        self._base = 0
        self._guessed = False
        self._standing = False
        self._index: int | None = None
        self._first: torch.Tensor | None = None
        self._value: torch.Tensor | None = None
        self._rising: bool | None = None
        self._times: list[float] = []

    @property
    def scheduler(self) -> Any:
        """The pipeline's scheduler, or None."""
        return None if self._scheduler_of is None else self._scheduler_of()

    @property
    def shift(self) -> float | None:
        """The scheduler's fixed flow-matching time shift; None where it has none, or one that depends on the resolution."""
        return None if self.facts is None else self.facts.shift

    @property
    def euler(self) -> bool:
        """True when the scheduler drives this loop from its first noise level on, each step adding Δσ · output and nothing else."""
        return self.facts is not None and self.facts.begin == 0 and self.facts.euler

    def altered(self) -> bool:
        """Have the scheduler's options been changed in the middle of the run? From there on it does something else."""
        options = getattr(self.scheduler, "config", None)
        if options is not self._options:
            self._altered = self._altered or options != self._options
            self._options = options
        return self._altered

    def restarted(self, context: Context) -> bool:
        """Does this forward belong to another run than the last one, as far as context and scheduler can tell?"""
        if self.step < 0 or getattr(self.scheduler, "timesteps", None) is not self._timesteps:
            return True
        if context.step is not None:
            return context.step < self.step
        index = self._scheduler_index()
        return self._live and index is not None and self._index is not None and index < self._index

    def begin(self, context: Context, timestep: torch.Tensor | None) -> None:
        """Learn what is known of the run that begins now: its step count, its noise levels, its sampler."""
        before, scheduler = self._timesteps, self.scheduler
        found, following, stood = self._found_base, self._next_step, self._stood
        self._found_base, self._next_step, self._stood = None, None, False
        self.end()
        self._remember(timestep)
        self._first = self._value
        self.step, self.num_steps = context.step or following or 0, context.num_steps
        self._timesteps = getattr(scheduler, "timesteps", None)
        self._options = getattr(scheduler, "config", None)
        self._index = self._scheduler_index()
        if following is not None or self._timesteps is None or not getattr(scheduler, "num_inference_steps", None):
            return
        # Another pipeline may share the transformer but not this scheduler, whose list of timesteps then stays the old one.
        if self._timesteps is before and found is None and not stood:
            return
        self._times = numbers(self._timesteps)
        if not self._times or (self._index is not None and self._index >= len(self._times)):
            return
        if not self._locate(context, timestep, found, stood=stood):
            return
        self._live = True
        if self.num_steps is None:
            self.num_steps = len(self._times) - self._base
        _note_beginning(self._timesteps, self._base)
        self.facts = facts_of(scheduler, begin=self._base)

    def _locate(self, context: Context, timestep: torch.Tensor | None, found: int | None, *, stood: bool) -> bool:
        """Find the run's first place in the scheduler's list, and the step of this forward.

        Args:
            context: what the pipeline says.
            timestep: what the transformer is handed.
            found: the run's first place, where the last forward showed it.
            stood: the last run was stepped by a copy of the scheduler, and this may be another such run.

        Returns:
            False when the scheduler does not seem to drive this run.
        """
        declared, known = getattr(self.scheduler, "begin_index", None), _beginning_of(self._timesteps)
        first = declared if found is None and isinstance(declared, int) else found
        here = self._index
        if here is None and (first is None or stood):
            here = None if timestep is None else self._place(timestep, expected=context.step or 0)
            if stood and here is None:
                return False
        if first is None and known is not None and here is not None and here >= known and not stood:
            # Another transformer did the run's first steps.
            first = known
        if first is None:
            # Where the scheduler has not stepped yet, this is the first forward, and its timestep tells.
            self._guessed = self._index is None
            first = (here or 0) - (context.step or 0) if self._guessed else 0
        self._base = max(0, first)
        if context.step is None and here is not None:
            self.step = max(0, here - self._base)
        return True

    def _place(self, timestep: torch.Tensor, *, expected: int) -> int | None:
        return place_of(timestep, self._times, span=_span(self.scheduler), expected=expected)

    def advance(self, context: Context, timestep: torch.Tensor | None, *, repeated: bool) -> bool:
        """Move on to the step of this forward.

        Args:
            context: what the pipeline says.
            timestep: what the transformer is handed.
            repeated: this branch had a forward at the current step already.

        Returns:
            False when the forward begins a new run after all, or shows that this one is another than it seemed.

        Raises:
            AttachError: a second forward of one branch at one step.
        """
        if context.step is not None:
            again = repeated and context.step == self.step
            self.step = context.step
            return not again or self._again()
        if self._standing or not (self._live and hasattr(self.scheduler, "step_index")):
            return self._by_value(timestep, repeated)
        index = self._scheduler_index()
        if index is not None and index != self._index:
            return self._by_index(index, timestep)
        if repeated:
            return self._by_itself(timestep)
        self._remember(timestep)
        return True

    def _by_index(self, index: int, timestep: torch.Tensor | None) -> bool:
        if self._guessed and self._index is None and index - 1 != self._base:
            # The run began elsewhere than its first timestep seemed to say.
            self._found_base = index - 1
            return False
        if index >= len(self._times):
            # Its run is over; this forward is of a loop that it does not drive.
            return False
        self.step, self._index = index - self._base, index
        self._remember(timestep)
        return True

    def _by_itself(self, timestep: torch.Tensor | None) -> bool:
        """The branch is called again while the scheduler stands still: it is not the one that steps."""
        if not self._differs(timestep):
            self._standing = self._stood = self._follows_its_like()
            return self._by_value(timestep, True)
        assert timestep is not None
        expected = self.step + self._base + 1
        place = self._place(timestep, expected=expected)
        if place == expected:
            # A copy of it does, over the same timesteps.
            self._standing = self._stood = True
            return self._by_value(timestep, True)
        if self._turned_back(timestep) if place is None else place < expected:
            return False
        # Something else calls the model between its steps, or instead of it: only the count of calls is known.
        self._next_step = self.step + 1
        return False

    def _turned_back(self, timestep: torch.Tensor) -> bool:
        """Does time go the other way than from the run's first forward to its last?"""
        first, last = self._first, self._value
        if first is None or last is None:
            return False
        return _rise(first, last) * _rise(last, timestep) < 0

    def _by_value(self, timestep: torch.Tensor | None, repeated: bool) -> bool:
        if timestep is None or not self._differs(timestep):
            if repeated and self._follows_its_like():
                self.step += 1
                return True
            return not repeated or self._again()
        before = self._value
        if before is not None:
            rising = _rise(before, timestep) > 0
            if self._rising is not None and rising != self._rising:
                self._remember(timestep)
                return False
            self._rising = rising
        self._remember(timestep)
        self.step += 1
        return True

    def _follows_its_like(self) -> bool:
        """Does the scheduler's list hold the present timestep twice in a row, for two calls?"""
        place = self.step + self._base + 1
        return self._live and place < len(self._times) and self._times[place] == self._times[place - 1]

    def _remember(self, timestep: torch.Tensor | None) -> None:
        # A copy, because a loop may write every timestep into one tensor.
        self._value = None if timestep is None else timestep.detach().clone()

    def _differs(self, timestep: torch.Tensor | None) -> bool:
        before = self._value
        if before is None or timestep is None:
            return False
        if before.shape != timestep.shape:
            return _rise(before, timestep) != 0
        return not torch.equal(before, timestep)

    def _again(self) -> bool:
        # Nothing was reused yet at step 0, so a run that was broken off there may simply begin again.
        if self.step == 0 and not self._live:
            return False
        raise AttachError(
            f"two forwards at step {self.step} with the same conditioning: their branches cannot be told apart, and reusing "
            "one branch's residual for another would be wrong. Wrap each forward in its own "
            "`with transformer.cache_context(name):` (any names, the same at every step), or detach the cache"
        )

    def _scheduler_index(self) -> int | None:
        index = getattr(self.scheduler, "step_index", None)
        return index if isinstance(index, int) else None

    # Noise levels ----------------------------------------------------------------------------------------------------

    def sigma(self, context: Context) -> float | None:
        """Noise level of this step in [0, 1], where context or scheduler know it."""
        return context.sigma if context.sigma is not None else _at(self._levels(), self.step)

    def _levels(self) -> Sequence[float]:
        levels = None if self.facts is None else self.facts.levels
        # Other parametrisations count sigma beyond 1; a profile over [0, 1] says nothing about them.
        return () if levels is None or max(levels) > 1.0 + 1e-6 else levels

    @property
    def sampler_steps(self) -> SamplerSteps | None:
        """What the scheduler's steps do in this run; None where it does not drive the loop, draws noise, or is not known."""
        return None if self.facts is None else self.facts.steps

    def time(self) -> float | None:
        """Timestep of this step from the scheduler's list, or None."""
        return _at(self._times, self.step + self._base) if self._live else None

    def timesteps(self) -> torch.Tensor | None:
        """Every timestep of the run ``(N,)``, or None where they are not known."""
        return self._timesteps[self._base :] if self._live else None


def _at(values: Sequence[float], position: int) -> float | None:
    return values[position] if 0 <= position < len(values) else None


#: First call of a run by its scheduler's list of timesteps, for pipelines that go on with another transformer.
_BEGINNINGS: MutableMapping[torch.Tensor, int] = WeakIdKeyDictionary()


def _beginning_of(timesteps: Any) -> int | None:
    return _BEGINNINGS[timesteps] if isinstance(timesteps, torch.Tensor) and timesteps in _BEGINNINGS else None


def _note_beginning(timesteps: Any, place: int) -> None:
    if isinstance(timesteps, torch.Tensor):
        _BEGINNINGS[timesteps] = place


def _span(scheduler: Any) -> float:
    config = getattr(scheduler, "config", None) or {}
    steps = config.get("num_train_timesteps")
    return float(steps) if isinstance(steps, int | float) and steps > 0 else SPAN


def _rise(before: torch.Tensor, now: torch.Tensor) -> float:
    """How far the timestep rose; where another batch leaves nothing to subtract, by the noisiest element of each."""
    if before.shape == now.shape:
        return float((now.double() - before.double()).sum())
    return float(now.double().max()) - float(before.double().max())
