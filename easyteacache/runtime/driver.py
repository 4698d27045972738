"""Drive a session through a run, call by call of the model: the part that all drivers share.

A driver stands between a sampler and a model. It says what is known of a run, asks before every call whether the model is computed,
and says afterwards what it gave:

    driver.begin(run)
    if driver.before(branch, step).reuse:
        output = driver.give(branch)
    else:
        output = driver.observe(branch, model(…))
    driver.end()                                     # the run is over, or was broken off

``CallDriver`` is that for callers who see one quantity of the model whole: its output, the feature before its head, the residual of its
blocks. ``StepDriver`` is what it is made of, for callers who learn of a call bit by bit (hooks) or fill it themselves (the three verbs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easyteacache.errors import StepOrderError

if TYPE_CHECKING:
    import torch

    from easyteacache.policy.policy import Policy
    from easyteacache.policy.request import RunContext
    from easyteacache.runtime.branch_state import BranchState
    from easyteacache.runtime.sampler_steps import SamplerSteps
    from easyteacache.runtime.session import Session

#: Gives a number that may not be known.
Known = Callable[[], "float | None"]


@dataclass(frozen=True)
class Place:
    """Where a call belongs, and what is known of its step before the model runs.

    Attributes:
        branch, step: of the run.
        state: the branch's state; None while it is not known under which policy the branch runs, and the call is computed.
        sigma, coordinate: noise level, and the predictor's coordinate where that is not the step.
        distance: the signal distance to the previous step where it is known without the signal.
        target: what is predicted, ``residual``, ``feature`` or ``output``; while ``state`` is None, what the run's policy says before the
            length is known.
        reads_signal: the signal's tensor has to be read.
    """

    branch: str
    step: int
    state: BranchState | None = None
    sigma: float | None = None
    coordinate: float | None = None
    distance: float | None = None
    target: str = "residual"
    reads_signal: bool = False

    @property
    def of_output(self) -> bool:
        """The model's output is predicted, and nothing of its blocks."""
        return self.target == "output"

    @property
    def known(self) -> BranchState:
        """The branch's state, where there is one."""
        assert self.state is not None
        return self.state


@dataclass(frozen=True)
class Decision:
    """What is done with a call; it does not change once it is taken.

    Attributes:
        reuse: the model, or its blocks, are not to be computed.
        forecast: what is predicted for a reused step, in the shape in which computed ones were observed; may be one of them itself.
    """

    reuse: bool
    forecast: torch.Tensor | None = None


COMPUTED = Decision(reuse=False)


class StepDriver:
    """Asks and tells a session, one call at a time.

    Args:
        session: whose branches are driven.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def begin(self, run: RunContext) -> None:
        """A new run begins; raises as ``Session.begin``, and the run before it is then over all the same."""
        self.session.begin(run)

    def place(
        self,
        branch: str,
        step: int,
        *,
        sequence_length: int | None = None,
        sigma: Known | None = None,
        time: Known | None = None,
        distance: Callable[[Policy], float | None] | None = None,
    ) -> Place:
        """Where a call belongs.

        Args:
            branch: any text, the same at every step.
            step: zero-based index of the call among those of its branch.
            sequence_length: tokens; None keeps what is known.
            sigma: gives the noise level of the step in [0, 1]; called only where the policy needs it, as all of these.
            time: gives the timestep.
            distance: gives, under the branch's policy, the signal distance to the step before.
        """
        state = self.session.branch(branch, step, sequence_length=sequence_length)
        policy = state.policy
        needs_sigma = policy.profile is not None or policy.coordinate == "sigma"
        level = sigma() if needs_sigma and sigma is not None else None
        coordinate = level if policy.coordinate == "sigma" else None
        if policy.coordinate == "timestep" and time is not None:
            coordinate = time()
        reads_signal = policy.reads_signal(level)
        measured = distance(policy) if reads_signal and distance is not None else None
        return Place(
            branch,
            step,
            state,
            sigma=level,
            coordinate=coordinate,
            distance=measured,
            target=policy.applied_to,
            reads_signal=reads_signal and measured is None,
        )

    def admits(self, place: Place, signal: torch.Tensor | None = None) -> bool:
        """May the call be reused? Nothing is remembered but the question."""
        return place.known.check(place.step, signal, sigma=place.sigma, distance=place.distance)

    def decide(self, place: Place, signal: torch.Tensor | None = None) -> Decision:
        """The same, with what is predicted."""
        if not self.admits(place, signal):
            return COMPUTED
        return Decision(True, place.known.residual(coordinate=place.coordinate))

    def handed(self, place: Place, output: torch.Tensor, sampler: SamplerSteps | None, *, reused: bool) -> torch.Tensor:
        """What the sampler is handed for ``output``: the tensor itself, unless the policy corrects this step (``BranchState.handed``)."""
        return place.known.handed(place.step, output, sampler, reused=reused)

    def reused(self, place: Place, signal: torch.Tensor | None = None) -> None:
        """The prediction was used."""
        place.known.reuse(signal, coordinate=place.coordinate)

    def computed(self, place: Place, truth: torch.Tensor, signal: torch.Tensor | None = None) -> None:
        """The step was computed, and ``truth`` is what would have been predicted, any shape."""
        place.known.store_residual(place.step, signal, truth, coordinate=place.coordinate)

    def settle(self) -> None:
        """That may have been the run's last call: where it was, compare what was reached with what was asked for."""
        self.session.settle()

    def end(self, *, judge: bool = True) -> None:
        """The run is over, or was broken off: let go of every tensor; what it did can still be asked for.

        Args:
            judge: compare what a whole run reached with what was asked for.
        """
        self.session.release(judge=judge)


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
