"""One cache on one model: the current run, its branches, the policy that they follow, what they did, and what every driver asks it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easyteacache.errors import InvalidCalibration
from easyteacache.policy.policy import Policy
from easyteacache.policy.request import Capabilities, Request, RunContext
from easyteacache.policy.source import PolicySource
from easyteacache.runtime.branch_state import BranchState
from easyteacache.runtime.notices import Notices, logger, speedup_apart
from easyteacache.runtime.per_thread import PerThread
from easyteacache.runtime.run_observer import RunObserver
from easyteacache.runtime.statistics import RunStatistics, describe, speedup
from easyteacache.runtime.tensor_math import Reduce

if TYPE_CHECKING:
    import torch

    from easyteacache.runtime.sampler_steps import SamplerSteps


class Session:
    """What the drivers of a cache share, be they hooks or the three verbs.

    A run begins with ``begin``, or with step 0 on a branch that has seen steps. Every branch of the earlier run is dropped then:
    one that does not take part in the new run must not be found later with residuals of the old one.

    What a user must notice is a Python warning (``EasyTeaCacheWarning``), once a session and reason: when the first step of a run finds
    that its record does not hold, and at the end of a run whose speed-up is another one than was asked for.

    A copy (``copy.deepcopy``, ``pickle``) has the same source and request, and remembers no run.

    One session serves one run at a time. Between ``split`` and ``join`` each thread has a session of its own (``of_thread``), which
    shares with this one its source, its request and what was warned of.

    Args:
        source: where policies come from; None: there is nothing to decide, every step is computed.
        request: what the caller wishes.
        run: what the caller said of all runs; what a driver says of one goes before it.
        enabled: False: compute everything and remember nothing.
        solving: what is reported is recorded by somebody else, in the original project's solve mode; nothing is decided.
        observer: watches the runs of the transformer that this is attached to.
    """

    def __init__(
        self,
        source: PolicySource | None,
        request: Request,
        run: RunContext | None = None,
        *,
        enabled: bool = True,
        solving: bool = False,
        observer: RunObserver | None = None,
    ) -> None:
        self.observer = observer
        self._source, self._request, self._stated = source, request, run or RunContext()
        self._enabled, self.solving = enabled, solving
        #: Adds the two sums of a sharded signal up over a process group; None when every rank holds the whole signal.
        self.reduce: Reduce | None = None
        self._branches: dict[str, BranchState] = {}
        self._finished: dict[str, RunStatistics] = {}
        self._notices = Notices()
        self._judged = False
        self._sharing: tuple[Session, ...] = ()
        #: The session that this one is a thread's part of.
        self._whole: Session | None = None
        self._threads: PerThread[Session] | None = None
        #: The thread's session whose run began last.
        self._latest: Session | None = None
        #: What the driver said of this run.
        self._declared = RunContext(can=self._stated.can)
        self._seen_steps: int | None = None
        self._length = self._stated.sequence_length
        self._policy = None if source is None else self._resolved(self._declared, self._length)

    def __getstate__(self) -> dict[str, Any]:
        # A run's tensors and its process group belong to the model and process they came from.
        fresh = Session(
            self._source,
            self._request,
            self._stated,
            enabled=self.enabled,
            solving=self.solving,
            observer=self.observer,
        )
        return vars(fresh)

    # Threads ---------------------------------------------------------------------------------------------------------

    def split(self) -> None:
        """From now on each thread has a session of its own, until ``join``."""
        self.clear()
        self._threads, self._latest = PerThread(self._twin, Session._forsake), None

    def join(self) -> None:
        """No thread has a session of its own any more; this one tells of the run that ``here`` told of."""
        shown, threads = self.here, self._threads
        self._threads = self._latest = None
        if threads is not None:
            threads.close()
        if shown is not self:
            self._policy, self._finished = shown._policy, shown.statistics()
            self._branches.clear()

    def of_thread(self) -> Session:
        """The session of the calling thread, made when it asks first; this one where threads have none of their own."""
        return self if self._threads is None else self._threads.here()

    @property
    def here(self) -> Session:
        """The session that tells of the calling thread's run; in a thread that has none, of the run that began last."""
        if self._threads is None:
            return self
        return self._threads.mine or self._latest or self

    @property
    def whole(self) -> Session:
        """The session that this one is a thread's part of; itself where it is none."""
        return self if self._whole is None else self._whole

    def by_thread(self) -> dict[str, Session]:
        """The sessions of the threads that live, by the thread's name; empty where threads have none of their own."""
        return {} if self._threads is None else self._threads.living()

    def _twin(self) -> Session:
        """A session for another thread."""
        twin = copy.copy(self)
        twin._whole, twin._notices, twin.reduce = self, self._notices, self.reduce
        twin.drive(self._declared.can)
        return twin

    def _forsake(self) -> None:
        """The thread has ended: nobody goes on with its run."""
        self.release(judge=False)

    # What is decided by ----------------------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """False: compute everything and remember nothing. May be set; a thread's session has what the whole has."""
        return self.whole._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self.whole._enabled = value

    @property
    def driven(self) -> bool:
        """True when there is something to decide: it is enabled and has a policy."""
        return self.enabled and self._source is not None

    @property
    def has_policy(self) -> bool:
        """True when ``policy`` says something, be it enabled or not."""
        return self._policy is not None

    @property
    def policy(self) -> Policy:
        """What was resolved last: record, buckets, threshold, window, and a note for every choice that was made.

        Raises:
            InvalidCalibration: there is none.
        """
        if self._policy is None:
            raise InvalidCalibration(
                "TeaCache", "no policy: the cache is disabled, in solve mode, or its threshold is 0"
            )
        return self._policy

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that any policy of a run to come may need, the present one's first."""
        if self._source is None or self._policy is None:
            return ()
        return tuple(dict.fromkeys((self._policy.signal, *self._source.signals)))

    @property
    def request(self) -> Request:
        """What the caller wishes."""
        return self._request

    @property
    def sequence_length(self) -> int | None:
        """The tokens that were said last; None when nobody has."""
        return self._length

    def wish(self, request: Request) -> None:
        """Another request for the runs to come; the running one is over.

        Raises:
            UnreachableTarget: the source cannot meet it; the former one holds on.
        """
        self.clear()
        before, self._request = self._request, request
        try:
            self._adopt(self._declared)
        except Exception:
            self._request = before
            raise

    def load(self, source: PolicySource) -> None:
        """Policies come from ``source`` from now on; raises as it does, and there are none then."""
        self._source = source
        try:
            self._adopt(self._declared)
        except Exception:
            self._source = None
            raise

    # A run -----------------------------------------------------------------------------------------------------------

    def drive(self, can: Capabilities) -> None:
        """Say what the driver can apply; where that is another one than before, the running run is over.

        Raises:
            UnreachableTarget: what it can apply does not meet the request; what was known before holds on.
        """
        if can is self._declared.can or can == self._declared.can:
            return
        self.clear()
        self._adopt(dataclasses.replace(self._declared, can=can))

    def begin(self, run: RunContext) -> None:
        """A new run begins, of which ``run`` is known.

        Raises:
            UnreachableTarget: in such a run the request cannot be met; what was known before holds on.
        """
        self.clear()
        self._finished = {}
        if self._whole is not None:
            self._whole._latest = self
            self._source, self._request = self._whole._source, self._whole._request
        length = run.sequence_length or self._length
        self._adopt(dataclasses.replace(run, sequence_length=None), length)

    def branch(self, name: str, step: int, *, sequence_length: int | None = None) -> BranchState:
        """The state of branch ``name``, ready for ``step``. Only where ``driven`` is true.

        Args:
            name: any text.
            step: 0 on a branch that has seen steps begins a new run.
            sequence_length: tokens; None keeps what is known. Another length than before resolves another policy, and the state
                remembers nothing.
        """
        state = self._branches.get(name)
        if state is not None and step == 0 and state.last_step >= 0:
            self.clear()
            self._finished = {}
            state = None
        if state is None:
            self._adopt(self._declared, sequence_length or self._length)
            state = self._branches[name] = BranchState(name, self.policy, self.reduce, self._length)
            self._judged = False
            self._tell()
        elif sequence_length is not None and sequence_length != state.length:
            self._adopt(self._declared, sequence_length)
            state.follow(self.policy, length=sequence_length)
            self._tell()
        return state

    def known(self, name: str) -> BranchState | None:
        """The state of a branch that has been seen in this run."""
        return self._branches.get(name)

    def forget(self, name: str) -> None:
        """Drop what one branch remembers, because its next forward has another shape; its record stays."""
        state = self._branches.get(name)
        if state is not None:
            state.release()

    def settle(self) -> None:
        """The run may be over: where it is, compare what was reached with what was asked for."""
        steps = self._steps_of_run()
        if steps is not None and all(state.last_step == steps - 1 for state in self._branches.values()):
            self._judge()

    def share_run(self, others: Sequence[Session]) -> None:
        """Other sessions do some of each run's steps: those of a pipeline's other experts. Without any it does all of them alone."""
        self._sharing = tuple(others)

    def release(self, *, judge: bool = True) -> None:
        """Let go of every tensor; ``statistics`` and ``summary`` still tell what the run did.

        Args:
            judge: compare what a whole run reached with what was asked for.
        """
        if judge:
            self._judge()
        for state in self._branches.values():
            state.release()

    def clear(self) -> None:
        """The run is over: drop every branch; ``statistics`` still tells what it did."""
        steps = max((state.last_step + 1 for state in self._branches.values()), default=0)
        if steps:
            self._judge()
            # The latest run is the best guess at the next one; a cancelled run only makes the next one more cautious.
            self._seen_steps = steps
            self._finished = self.statistics()
        self._branches.clear()

    def tell(self, text: str | None) -> None:
        """Warn of something about the record that a user must notice, where there is something."""
        if text is not None:
            self._notices.give(f"{self.policy.model_key}: {text}")

    def _tell(self) -> None:
        """Warn of what a user must notice about the policy of this run."""
        for text in self.policy.warnings:
            self.tell(text)
        for note in self.policy.notes:
            logger.debug("%s: %s", self.policy.model_key, note)

    def _judge(self) -> None:
        """Warn where a whole run reached another speed-up than was asked for; of every run once."""
        if self._judged:
            return
        parts = self._whole_run()
        if parts is None:
            return
        self._judged = True
        self._note_disuse()
        wishes = [(part, part._request.speedup) for part in parts if part._policy is not None]
        if any(wish is None or part.policy.refusal is not None for part, wish in wishes):
            return
        runs = [(run, wish) for part, wish in wishes for run in part.statistics().values()]
        reached = speedup([run for run, _ in runs])
        # What was asked for may differ between two experts: so many steps were to be computed in all.
        asked = sum(len(run.steps) for run, _ in runs) / sum(len(run.steps) / (wish or 1.0) for run, wish in runs)
        if speedup_apart(asked, reached):
            why = "" if self.policy.decided_by == "schedule" else "; pass threshold= to choose the trade-off by hand"
            over = " over both experts" if len(parts) > 1 else ""
            self._notices.give(
                f"{self.policy.model_key}: a speed-up of {asked:g} was asked for, and the run reached {reached:.2f}{over} "
                f"({self.policy.evidence or 'no'} evidence{why}).",
                reason="speedup",
            )

    def _note_disuse(self) -> None:
        """Warn where no step was reused because the signal went where the record says nothing, and nothing was said of the run."""
        steps = [step for run in self.statistics().values() for step in run.steps]
        told = self._request.speedup is not None or self.policy.refusal is not None or self.policy.warnings
        beyond = sum(step.reason == "unpredictable" for step in steps)
        if beyond and not told and not any(step.reused for step in steps):
            self._notices.give(
                f"{self.policy.model_key}: no step of the run was reused: at {beyond} of its {len(steps)} forwards the signal changed by "
                "more, or otherwise, than the record's numbers hold for.",
                reason="disuse",
            )

    def _steps_of_run(self) -> int | None:
        """How many steps this run has, where anybody knows."""
        said = None if self._policy is None else self._policy.num_steps
        return said or self._declared.num_steps

    def _whole_run(self) -> tuple[Session, ...] | None:
        """The sessions that did a whole run, of which this one did the last step; None where it was broken off."""
        runs = self.statistics()
        if self._policy is None or not runs:
            return None
        whole = self._steps_of_run()
        if whole is None or min(len(run.steps) for run in runs.values()) >= whole:
            return (self,) if min(len(run.steps) for run in runs.values()) >= 2 else None
        parts = [one.statistics() for one in self._sharing]
        for name, run in runs.items():
            others = [step.step for part in parts if name in part for step in part[name].steps]
            own = [step.step for step in run.steps]
            if not own or own[-1] != whole - 1 or sorted([*others, *own]) != list(range(whole)):
                return None
        return (*self._sharing, self)

    # What happened ---------------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, RunStatistics]:
        """What each branch of the current run did; of the last run when none has begun since."""
        if not self._branches:
            return dict(self._finished)
        return {name: RunStatistics(tuple(state.steps)) for name, state in self._branches.items()}

    def current_speedup_rate(self) -> float:
        """Steps divided by computed steps in the current run, over all branches; 1 before the first step."""
        return speedup(self.statistics().values())

    def summary(self) -> str:
        """The current run, or the last one, in a few readable lines."""
        threads = self.whole._threads
        served = 0 if threads is None else threads.served
        return describe(self._policy, self.statistics(), self.current_speedup_rate(), threads=served)

    @property
    def nbytes(self) -> int:
        """Bytes of tensors held at this moment, over all branches, and all threads' where they have sessions of their own."""
        held = sum(state.nbytes for state in tuple(self._branches.values()))
        return held + sum(session.nbytes for session in self.by_thread().values())

    def __repr__(self) -> str:
        if self._policy is None:
            return "Session(off)"
        return f"Session({self._policy.model_key!r}, {self._request!r}, {self._declared!r})"

    # Resolving -------------------------------------------------------------------------------------------------------

    def _adopt(self, declared: RunContext, length: int | None = None) -> None:
        """Resolve, and only then take on what was said."""
        length = self._length if length is None else length
        if self._source is not None:
            self._policy = self._resolved(declared, length)
        self._declared, self._length = declared, length

    def _resolved(self, declared: RunContext, length: int | None) -> Policy:
        assert self._source is not None
        known = dataclasses.replace(declared, sequence_length=length)
        return self._source.policy(self._request, known.after(self._stated, seen_steps=self._seen_steps))


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
