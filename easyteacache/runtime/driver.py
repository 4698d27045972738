"""Drive a session for callers who see one quantity of a model whole: its output, the feature before its head, the residual of its blocks.

Such a driver stands between a sampler and a model. It says what is known of a run, asks before every call whether the model is computed,
and says afterwards what it gave:

    driver.begin(run)
    if driver.before(branch, step).reuse:
        output = driver.give(branch)
    else:
        output = driver.observe(branch, model(…))
    driver.end()                                     # the run is over, or was broken off

Callers who learn of a call bit by bit (hooks) or fill it themselves (the three verbs) use the ``StepDriver`` that this is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from easyteacache.errors import StepOrderError
from easyteacache.runtime.session import COMPUTED, Decision, Place, Session, StepDriver

if TYPE_CHECKING:
    import torch

    from easyteacache.policy.request import RunContext
    from easyteacache.runtime.sampler_steps import SamplerSteps


class CallDriver:
    """Drives a session for callers who see one quantity of a model whole, and replace it whole.

    What a run's policy predicts is this quantity: the caller says which by ``RunContext.can``.

    Args:
        session: whose branches are driven.
    """

    def __init__(self, session: Session) -> None:
        self._steps = StepDriver(session)
        self._levels: tuple[float, ...] = ()
        self._times: tuple[float, ...] = ()
        self._sampler: SamplerSteps | None = None
        self._open: dict[str, tuple[Place, Decision, torch.Tensor | None]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    @property
    def session(self) -> Session:
        """Whose branches are driven."""
        return self._steps.session

    def begin(self, run: RunContext, *, times: Sequence[float] = (), sampler: SamplerSteps | None = None) -> None:
        """A new run begins; the one before is over.

        Args:
            run: what is known of it; its sampler's levels tell the noise at each call.
            times: the timestep of each call, where that is known.
            sampler: what the sampler's steps do; None where that is not known, and nothing can be corrected.

        Raises:
            UnreachableTarget: in such a run the request cannot be met.
        """
        self.end()
        levels = None if run.sampler is None else run.sampler.levels
        # A profile over [0, 1] says nothing about noise levels that other parametrisations count.
        self._levels = () if levels is None or max(levels) > 1.0 + 1e-6 else levels
        self._times, self._sampler = tuple(times), sampler
        self._steps.begin(run)

    def before(
        self,
        branch: str,
        step: int,
        *,
        shape: Sequence[int] | None = None,
        signal: torch.Tensor | None = None,
        distance: float | None = None,
    ) -> Decision:
        """The model is about to be called: compute it, or give what is predicted. ``give`` or ``observe`` answers.

        A caller may compute what he is allowed to reuse.

        Args:
            branch: any text, the same at every step.
            step: zero-based index of the call among those of its branch; where it does not follow the one before, it is computed.
            shape: of what enters the model; another one than at the step before leaves nothing to reuse.
            signal: the calibration's signal at this step, where the caller has it.
            distance: the signal distance to the step before, where it is known without the signal.

        Raises:
            StepOrderError: the branch has seen this step, or a later one.
        """
        self._open.pop(branch, None)
        if not self.session.driven:
            return COMPUTED
        if shape is not None:
            if self._shapes.setdefault(branch, tuple(shape)) != tuple(shape):
                self.session.forget(branch)
            self._shapes[branch] = tuple(shape)
        place = self._steps.place(
            branch,
            step,
            sigma=lambda: _at(self._levels, step),
            time=lambda: _at(self._times, step),
            distance=lambda _: distance,
        )
        decision = self._steps.decide(place, signal)
        self._open[branch] = place, decision, signal
        return decision

    def give(self, branch: str) -> torch.Tensor:
        """The prediction is used: what the caller gives in place of the model, a new tensor.

        Raises:
            StepOrderError: no ``before`` allowed it.
        """
        place, decision, signal = self._open.pop(branch, (None, COMPUTED, None))
        if place is None or decision.forecast is None:
            raise StepOrderError(f"give() on branch {branch!r}, where no before() said that the step may be reused")
        found = self._steps.handed(place, decision.forecast.clone(), self._sampler, reused=True)
        self._steps.reused(place, signal)
        self._steps.settle()
        return found

    def observe(self, branch: str, output: torch.Tensor) -> torch.Tensor:
        """The model was computed: what the caller hands on, ``output`` itself unless the policy corrects this step.

        Args:
            branch: of the last ``before``; without one, nothing is remembered.
            output: of any shape, the same at every step; it may be changed in place afterwards.
        """
        place, _, signal = self._open.pop(branch, (None, COMPUTED, None))
        if place is None:
            return output
        kept = output.detach().clone()
        found = self._steps.handed(place, kept, self._sampler, reused=False)
        self._steps.computed(place, kept, signal)
        self._steps.settle()
        return output if found is kept else found

    def forget(self, branch: str) -> None:
        """Other weights act on a branch, or other conditioning: nothing that it remembers may be used."""
        self._open.pop(branch, None)
        self.session.forget(branch)

    def end(self) -> None:
        """The run is over, or was broken off: every tensor is let go of; what it did can still be asked for."""
        self._open.clear()
        self._shapes.clear()
        self._steps.end()


def _at(values: Sequence[float], position: int) -> float | None:
    return values[position] if 0 <= position < len(values) else None
