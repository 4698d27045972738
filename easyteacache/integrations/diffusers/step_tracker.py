"""Which sampler step a forward belongs to, and whether it begins a new run.

Three sources, best first: what the pipeline writes into the cache context, the pipeline's scheduler (plain integers, so no
device is waited for), and the timestep that the transformer is handed (which does wait for the device when it lives there).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from easyteacache.errors import AttachError

EULER = "FlowMatchEulerDiscreteScheduler"


@dataclass(frozen=True)
class Context:
    """What a pipeline says of a forward through ``cache_context``; every field may be missing."""

    name: str | None = None
    step: int | None = None
    num_steps: int | None = None
    sigma: float | None = None


class Clock:
    """The sampler loop as seen from one transformer.

    Args:
        scheduler: gives the pipeline's scheduler; None when only the transformer is known.
    """

    def __init__(self, scheduler: Callable[[], Any] | None) -> None:
        self._scheduler_of = scheduler
        self._timesteps: Any = None
        self.end()

    def end(self) -> None:
        """The run is over, or was broken off: the next forward begins another one."""
        self.step = -1
        self.num_steps: int | None = None
        self._live = False
        self._base: int | None = None
        self._index: int | None = None
        self._value: torch.Tensor | None = None
        self._rising: bool | None = None
        self._sigmas: list[float] | None = None
        self._times: list[float] | None = None

    @property
    def scheduler(self) -> Any:
        """The pipeline's scheduler, or None."""
        return None if self._scheduler_of is None else self._scheduler_of()

    @property
    def shift(self) -> float | None:
        """The scheduler's fixed flow-matching time shift; None where it has none, or one that depends on the resolution."""
        config = getattr(self.scheduler, "config", None) or {}
        shift = config.get("shift") if self._live and not config.get("use_dynamic_shifting") else None
        return float(shift) if isinstance(shift, (int, float)) and shift > 0 else None

    @property
    def euler(self) -> bool:
        """True when the scheduler drives this loop from its first noise level on, each step adding Δσ · output and nothing else."""
        return self._live and not self._base and is_euler(self.scheduler)

    def restarted(self, context: Context) -> bool:
        """Does this forward belong to another run than the last one, as far as context and scheduler can tell?"""
        if self.step < 0 or getattr(self.scheduler, "timesteps", None) is not self._timesteps:
            return True
        if context.step is not None:
            return context.step < self.step
        index = self._scheduler_index()
        return self._live and index is not None and self._index is not None and index < self._index

    def begin(self, context: Context, timestep: torch.Tensor | None) -> None:
        """Learn what is known of the run that begins now: its step count and noise levels."""
        before, scheduler = self._timesteps, self.scheduler
        self.end()
        self._remember(timestep)
        self.step, self.num_steps = context.step or 0, context.num_steps
        self._timesteps = getattr(scheduler, "timesteps", None)
        # Another pipeline may share the transformer but not this scheduler, whose list of timesteps then stays the old one.
        if self._timesteps is None or self._timesteps is before or not getattr(scheduler, "num_inference_steps", None):
            return
        self._index, self._base = self._scheduler_index(), getattr(scheduler, "begin_index", None)
        self._live = self._index is None or self._index < len(self._timesteps)
        if self._live and context.step is None and self._index is not None:
            self.step = self._index - (self._base or 0)
        if self._live and self.num_steps is None:
            self.num_steps = len(self._timesteps) - (self._base or 0)

    def advance(self, context: Context, timestep: torch.Tensor | None, *, repeated: bool) -> bool:
        """Move on to the step of this forward.

        Args:
            context: what the pipeline says.
            timestep: what the transformer is handed.
            repeated: this branch had a forward at the current step already.

        Returns:
            False when the forward begins a new run after all.

        Raises:
            AttachError: a second forward of one branch at one step.
        """
        if context.step is not None:
            again = repeated and context.step == self.step
            self.step = context.step
            return not again or self._again()
        if not (self._live and hasattr(self.scheduler, "step_index")):
            return self._by_value(timestep, repeated)
        index = self._scheduler_index()
        if index is not None and index != self._index:
            self._base = index - 1 if self._base is None else self._base
            self.step, self._index = index - self._base, index
        elif repeated:
            # Time going on while the scheduler stands still: it is not the one that drives this loop.
            return not self._differs(timestep) and self._again()
        self._remember(timestep)
        return True

    def _by_value(self, timestep: torch.Tensor | None, repeated: bool) -> bool:
        if timestep is None or not self._differs(timestep):
            return not repeated or self._again()
        before = self._value
        self._remember(timestep)
        if before is not None:
            rising = _rise(before, timestep) > 0
            if self._rising is not None and rising != self._rising:
                return False
            self._rising = rising
        self.step += 1
        return True

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
        """Noise level of this step in [0, 1], where context or scheduler know it; read from the device once a run at most."""
        if context.sigma is not None:
            return context.sigma
        return self._at(self._levels()) if self._live else None

    def levels(self) -> list[float] | None:
        """(S + 1,) noise levels of this run in [0, 1], where the scheduler tells them; read from the device once a run at most."""
        return (self._levels() or None) if self._live else None

    def _levels(self) -> list[float]:
        if self._sigmas is None:
            sigmas = getattr(self.scheduler, "sigmas", None)
            self._sigmas = [] if sigmas is None else torch.as_tensor(sigmas).tolist()
            # Other parametrisations count sigma beyond 1; a profile over [0, 1] says nothing about them.
            if self._sigmas and max(self._sigmas) > 1.0 + 1e-6:
                self._sigmas = []
        return self._sigmas

    def step_size(self) -> float | None:
        """σ of the next step − σ of this one, where the scheduler knows both."""
        if self.sigma(Context()) is None or self._sigmas is None:
            return None
        position = self.step + (self._base or 0)
        return self._sigmas[position + 1] - self._sigmas[position] if position + 1 < len(self._sigmas) else None

    def time(self) -> float | None:
        """Timestep of this step from the scheduler's list, or None."""
        if not self._live:
            return None
        if self._times is None:
            self._times = torch.as_tensor(self._timesteps).tolist()
        return self._at(self._times)

    def timesteps(self) -> torch.Tensor | None:
        """Every timestep of the run ``(N,)``, or None where they are not known."""
        return self._timesteps[self._base or 0 :] if self._live else None

    def _at(self, values: list[float]) -> float | None:
        position = self.step + (self._base or 0)
        return values[position] if position < len(values) else None


def is_euler(scheduler: Any) -> bool:
    """Does every step of ``scheduler`` add Δσ · output to the sample, with no noise and no memory of earlier outputs?"""
    config = getattr(scheduler, "config", None) or {}
    # A subclass counts only while it steps as its parent does.
    steps = [kind.step for kind in type(scheduler).__mro__ if kind.__name__ == EULER and hasattr(kind, "step")]
    own = getattr(getattr(scheduler, "step", None), "__func__", None)
    return own is not None and own in steps and not config.get("stochastic_sampling")


def _rise(before: torch.Tensor, now: torch.Tensor) -> float:
    """How far the timestep rose; where another batch leaves nothing to subtract, by the noisiest element of each."""
    if before.shape == now.shape:
        return float((now.double() - before.double()).sum())
    return float(now.double().max()) - float(before.double().max())
