"""Drive one transformer's session: find run, branch and step of each forward, decide, and commit when the forward succeeded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers import (
    active_adapters,
    context_parallel,
    gradients,
    model_identity,
    timestep_plan,
)
from easyteacache.integrations.diffusers import forward_state as forwards
from easyteacache.integrations.diffusers.branch_names import Branches, describing
from easyteacache.integrations.diffusers.calling_thread import Caller, CallingThread
from easyteacache.integrations.diffusers.forward_state import Forward
from easyteacache.integrations.diffusers.models import signals, token_layouts
from easyteacache.integrations.diffusers.models.adapter import Adapter, Blocks, FirstBlock, Output
from easyteacache.integrations.diffusers.pipeline import guidance_of
from easyteacache.integrations.diffusers.step_tracker import Clock, Context
from easyteacache.policy.request import Capabilities, RunContext
from easyteacache.runtime.session import COMPUTED, Place, StepDriver
from easyteacache.runtime.tensor_math import Reduce

if TYPE_CHECKING:
    from torch import nn

    from easyteacache.policy.policy import Policy
    from easyteacache.runtime.run_observer import RunObserver
    from easyteacache.runtime.session import Session


Method = TypeVar("Method", bound=Callable[..., Any])

_GRADIENTS = (
    "forwards with gradients on are computed in full, because skipped blocks have none; sample under torch.no_grad() or "
    "torch.inference_mode()."
)
_OTHER_THREAD = (
    "another thread is in the middle of a run of this transformer, and a cache follows one run at a time: forwards of other threads "
    "are computed in full."
)
_ALTERED = "the scheduler's options were changed in the middle of a run: the rest of it is computed in full."
_NO_CONTEXT = Context()


def _outside_graphs(reason: str) -> Callable[[Method], Method]:
    """Keeps a method out of ``torch.compile``'s graphs; ``reason`` is what its error tells when that is not allowed."""
    takes_reasons = "reason" in inspect.signature(torch.compiler.disable).parameters  # since torch 2.7
    return torch.compiler.disable(**({"reason": reason} if takes_reasons else {}))  # type: ignore[no-any-return, no-untyped-call]


def capabilities(*, corrects: bool, euler: bool) -> Capabilities:
    """What hooks can apply: they see the blocks and the output, and correct where it is known what the sampler makes of it."""
    return Capabilities(sees=("residual", "feature", "output"), corrects=corrects, euler=euler)


class Driver:
    """Everything one attached transformer has besides its hooks.

    Args:
        session: whose branches are driven.
        adapter: of the transformer's class.
        transformer: the module.
        pipe: gives the pipeline that calls; None where only the transformer is known.
        residual_device: where residuals rest between steps; None: where they are computed.
        reduction: gives the reduction over the ranks that share a sequence, or None, at the beginning of a run.
        observer: watches the runs; None: nobody does.
        look: called at the beginning of every forward, to see who calls.
    """

    def __init__(
        self,
        session: Session,
        adapter: Adapter,
        transformer: nn.Module,
        *,
        pipe: Callable[[], Any] = lambda: None,
        residual_device: torch.device | str | None = None,
        reduction: Callable[[], Reduce | None] = lambda: None,
        observer: RunObserver | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self.session, self.adapter, self.transformer = session, adapter, transformer
        self._steps = StepDriver(session)
        self._observer = observer
        self._identity = model_identity.of_class(transformer)
        self._pipe = pipe
        self.clock = Clock(lambda: getattr(pipe(), "scheduler", None))
        self._guidance: float | None = None
        kind: Any = type(transformer)
        parameters = forwards.parameter_names(kind)
        self.branches = Branches(adapter.conditioning, describing(parameters, adapter.conditioning))
        self.residual_device = residual_device
        #: The thread whose run is followed.
        self.calling = CallingThread()
        #: Whether no run is in the middle of its steps, for a pipeline's experts together.
        self.over: Callable[[], bool] = self.run_over
        self._caller = Caller()
        self._forward: Forward | None = None
        #: True while one compiled graph of the whole model runs: ``begin`` and ``finish`` are called around it.
        self.compiled_whole = False
        #: Called when a run begins, so that a pipeline's other expert lets go of its tensors.
        self.on_run: Callable[[], None] = lambda: None
        self._adapters = active_adapters.Watched(transformer)
        self._reduction, self._shared = reduction, False
        self._look = look
        self._last: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._tokens: dict[str, int] = {}
        self._distances: list[float] | None = None

    @property
    def context(self) -> Context:
        """What this thread's pipeline said last through ``cache_context``."""
        return self._caller.latest or _NO_CONTEXT

    @context.setter
    def context(self, context: Context) -> None:
        self._caller.latest = context

    @property
    def forward(self) -> Forward | None:
        """The forward that is running, or that an exception broke off; None in a thread whose run is not followed."""
        # Inside a graph of the whole model no thread is asked for: ``begin`` let no other one in.
        if self._forward is None or self.compiled_whole:
            return self._forward
        return self._forward if self.calling.mine() and self._caller.alone is None else None

    @forward.setter
    def forward(self, forward: Forward | None) -> None:
        self._forward = forward

    def run_over(self) -> bool:
        """Is there no run, or did each of its branches do the last step?"""
        if not self._last:
            return True
        last = None if self.clock.num_steps is None else self.clock.num_steps - 1
        return self._forward is None and all(step == last for step, _ in self._last.values())

    def leave_run(self) -> None:
        """The pipeline's call is over; that of another thread leaves the run alone."""
        self.context, self._caller.alone = Context(), None
        self.calling.release(self.end_run)

    # Around a forward ------------------------------------------------------------------------------------------------

    @_outside_graphs("compile the transformer before cache.attach, so that decisions stay outside the graph")
    def begin(self, arguments: Mapping[str, Any], *, whole: bool = False) -> None:
        """A forward begins: which run, branch and step; and the decision, where it needs no tensor.

        Args:
            arguments: of the transformer's forward, by name.
            whole: one graph of the whole model runs, which holds the hooks.

        Raises:
            AttachError: another thread is in the middle of a run, and ``whole``; or branches cannot be told apart.
        """
        if not self._served(arguments):
            self._leave_alone(whole)
            return
        try:
            self._look()
            self._begin(arguments)
        finally:
            self.calling.begun()

    def _begin(self, arguments: Mapping[str, Any]) -> None:
        """A forward of the run that is followed begins."""
        if self.forward is not None:
            self.end_run()
        if not self.session.driven:
            return
        if gradients.wanted(self.transformer, arguments):
            self.session.tell(_GRADIENTS)
            return
        timestep = self._timestep(arguments)
        branch = self._locate(arguments, timestep)
        if self._adapters.switched():
            self._forget_branches()
        latent = arguments.get(self.adapter.latent)
        shape = tuple(latent.shape) if isinstance(latent, torch.Tensor) else ()
        # Unnamed branches, too: they are told apart by some of their conditioning, and the rest may change.
        changed = self.branches.changed(branch, arguments)
        self._note_guidance()
        if self.clock.altered():
            self.session.tell(_ALTERED)
            self._no_longer("the scheduler's options were changed")
            changed = True
        reshaped = branch in self._last and self._last[branch][1] != shape
        if reshaped:
            self._no_longer("its latents changed their shape")
        if changed or reshaped:
            self.session.forget(branch)
            self._tokens.pop(branch, None)
        self._last[branch] = (self.clock.step, shape)
        if branch not in self._tokens:
            # The first forward of a branch in a run: there is nothing to reuse yet.
            policy = self.session.policy
            reads_signal = self._will_read_signal(policy, timestep)
            place = Place(branch, self.clock.step, target=policy.applied_to, reads_signal=reads_signal)
            self.forward = Forward(arguments, place, COMPUTED)
        else:
            self.forward = Forward(arguments, self._place(branch, self.clock.step, self._tokens[branch], arguments))
            if not self.forward.place.reads_signal:
                self._decide(self.forward)
        if self._observer is not None:
            self._observer.forward_begins(branch, arguments)

    def _served(self, arguments: Mapping[str, Any]) -> bool:
        """Is this thread's run the one that is followed, or does one begin that can be?"""
        timestep, alone = self._timestep(arguments), self._caller.alone
        if alone is not None and alone.advance(_NO_CONTEXT, timestep, repeated=False):
            return False
        if self.calling.claim(self.over, self.end_run):
            self._caller.alone = None
            return True
        self._caller.alone = alone or Clock(None)
        self._caller.alone.begin(_NO_CONTEXT, timestep)
        return False

    def _note_guidance(self) -> None:
        """Another guidance half-way changes no branch's output, and what their errors are multiplied by."""
        before, here = self._guidance, guidance_of(self._pipe())
        if before is None or here is None or here == before:
            return
        self._guidance = here
        if self.session.policy.expected_error is not None:
            self.session.tell(
                f"the guidance scale was changed from {before:g} to {here:g} in the middle of a run: its evidence is of no such run."
            )

    def _leave_alone(self, whole: bool) -> None:
        """Another thread is in the middle of a run, of which this forward is no part."""
        if whole:
            raise AttachError(
                "another thread is in the middle of a run of this compiled transformer, whose cache follows one run at a time: let "
                "one thread sample after the other, or give each a transformer and a cache of its own"
            )
        self.session.tell(_OTHER_THREAD)

    def _forget_branches(self) -> None:
        """Other weights act: the next forward of each branch is computed."""
        if self._tokens:
            self._no_longer("its adapters were switched")
        for branch in tuple(self._tokens):
            self.session.forget(branch)
        self._tokens.clear()

    def _no_longer(self, why: str) -> None:
        """The run is no longer what it began as: tell who watches."""
        if self._observer is not None:
            self._observer.changed(why)

    def _timestep(self, arguments: Mapping[str, Any]) -> torch.Tensor | None:
        timestep = arguments.get(self.adapter.timestep)
        return timestep if isinstance(timestep, torch.Tensor) else None

    def _locate(self, arguments: Mapping[str, Any], timestep: torch.Tensor | None) -> str:
        if self.clock.restarted(self.context):
            self._begin_run(timestep)
        branch = self.context.name or self.branches.name(arguments)
        repeated = branch in self._last and self._last[branch][0] == self.clock.step
        if self.clock.advance(self.context, timestep, repeated=repeated):
            return branch
        self._begin_run(timestep)
        return self.context.name or self.branches.name(arguments)

    def _begin_run(self, timestep: torch.Tensor | None) -> None:
        self.end_run()
        self.clock.begin(self.context, timestep)
        context = self._run_context()
        if self._observer is not None:
            self._observer.run_begins(context, self.clock.facts)
        try:
            self._steps.begin(context)
        except Exception:
            # Nothing was begun: a caller that goes on all the same must not find the policy of another run.
            self.clock.end()
            raise
        self._share(timestep)
        self._adapters.look()
        self.on_run()

    def _run_context(self) -> RunContext:
        """What clock and scheduler know of the run that begins."""
        facts = self.clock.facts
        sampler = None if facts is None else facts.record()
        # Of a pipeline whose scheduler does not drive this run it says nothing.
        self._guidance = None if facts is None else guidance_of(self._pipe())
        can = capabilities(corrects=self.clock.sampler_steps is not None, euler=self.clock.euler)
        return RunContext(
            num_steps=self.clock.num_steps,
            shift=self.clock.shift,
            sampler=sampler,
            model=model_identity.of_run(self.transformer, self._identity),
            can=can,
            values_per_token=token_layouts.values_per_token(self.transformer),
            guidance_scale=self._guidance,
            begun=True,
        )

    def _share(self, timestep: torch.Tensor | None) -> None:
        """Sum a sharded signal over its ranks; one that follows from a single timestep is whole on every rank."""
        whole = timestep_plan.of_timestep(self.session.policy.signal) and (timestep is None or timestep.ndim <= 1)
        reduce = None if whole else self._reduction()
        if reduce is not None or self._shared:
            self.session.reduce, self._shared = reduce, reduce is not None

    def end_run(self, *, judge: bool = True) -> None:
        """The run is over or was broken off: let go of every tensor; what it did can still be asked for.

        Args:
            judge: compare what a whole run reached with what was asked for.
        """
        if self._observer is not None:
            self._observer.run_ends()
        self.forward = None
        self.branches.clear()
        self.clock.end()
        self._last.clear()
        self._tokens.clear()
        self._distances = None
        self._steps.end(judge=judge)

    def _place(self, branch: str, step: int, tokens: int, arguments: Mapping[str, Any]) -> Place:
        """The branch's state and policy, and what a decision needs besides the signal."""
        return self._steps.place(
            branch,
            step,
            sequence_length=tokens,
            sigma=lambda: self.clock.sigma(self.context),
            time=lambda: self._time(arguments),
            distance=lambda policy: self._distance(policy, step, arguments),
        )

    def _time(self, arguments: Mapping[str, Any]) -> float | None:
        timestep, known = self._timestep(arguments), self.clock.time()
        return float(timestep.flatten()[0]) if known is None and timestep is not None else known

    def _distance(self, policy: Policy, step: int, arguments: Mapping[str, Any]) -> float | None:
        """The signal distance to the step before, where it follows from the sampler's timesteps."""
        if self._distances is None:
            self._distances = timestep_plan.distances(
                self.adapter, self.transformer, policy.signal, self.clock, arguments
            )
        return self._distances[step - 1] if 0 < step <= len(self._distances) else None

    def _will_read_signal(self, policy: Policy, timestep: torch.Tensor | None) -> bool:
        """Will the next step of this run be compared with this one's signal?"""
        if not policy.reads_signal(self.clock.sigma(self.context)):
            return False
        return not timestep_plan.plannable(self.adapter, policy.signal, self.clock, timestep)

    def _decide(self, forward: Forward) -> None:
        forward.decision = self._steps.decide(forward.place, forward.seen.signal)

    @_outside_graphs("compile the transformer before cache.attach, so that decisions stay outside the graph")
    def finish(self) -> None:
        """The forward succeeded: commit what it did."""
        if self._caller.alone is not None or not self.calling.mine():
            return
        forward = self.forward
        try:
            if forward is not None and forward.decision is not None:
                self._commit(forward)
        finally:
            # Last: where no forward runs, another thread may take a run over that has done its last step.
            self.forward = None

    def _commit(self, forward: Forward) -> None:
        """Keep what a forward decided, computed and reused."""
        place, seen = forward.place, forward.seen
        if place.state is None:
            if not seen.heads:
                return
            tokens = self._tokens[place.branch] = self._whole_length(forward)
            guessed = place.target
            place = forward.place = self._place(place.branch, place.step, tokens, forward.arguments)
            if place.of_output:
                seen.truth = forwards.outputs(seen.returned)
            elif place.target != guessed:
                # Another policy holds at this length, and what it predicts was not seen: the next step is computed.
                seen.truth = None
            # The first computed output is handed on as it is, but later ones are corrected from it.
            self.hand_on(seen.returned, forward)
            self._steps.admits(place, seen.signal)
        if seen.skipping:
            self._steps.reused(place, seen.signal)
        elif seen.truth is not None:
            truth = seen.truth.detach()
            truth = truth if self.residual_device is None else truth.to(self.residual_device)
            self._steps.computed(place, truth, seen.signal)
        if self.clock.num_steps is not None and place.step == self.clock.num_steps - 1:
            self._steps.settle()

    def _whole_length(self, forward: Forward) -> int:
        head = next(iter(forward.seen.heads.values()))
        tokens = self.adapter.tokens(head, forward.arguments, self.transformer)
        if self.adapter.tokens not in (token_layouts.token_axes, token_layouts.rows):
            # Counted from the transformer's arguments, which are split only after it was called.
            return tokens
        return context_parallel.whole_length(self.transformer, tokens, head.device)

    # Called by the block hooks; traced when the whole model is compiled ----------------------------------------------

    def collect(self, source: Output, value: Any) -> None:
        """A submodule that the signal is taken from has run."""
        if self.forward is not None:
            self.forward.seen.collected[source] = value

    def enter(self, block: nn.Module, arguments: Mapping[str, Any]) -> None:
        """The first block is about to run: remember its input, and decide unless that was done or has to wait."""
        forward = self.forward
        assert forward is not None
        seen = forward.seen
        seen.heads = forwards.entering(arguments, self.adapter.streams)
        if self._observer is not None:
            self._observer.entered(block, arguments, seen.collected)
        if forward.place.reads_signal:
            source = signals.source_of(self.adapter, self.session.policy.signal)
            seen.signal = signals.extract(source, block, arguments, seen.collected)
            if not isinstance(source, FirstBlock):
                self.decide_late()
        self._fill(forward)

    def _fill(self, forward: Forward) -> None:
        decision, seen = forward.decision, forward.seen
        if decision is None or not decision.reuse:
            return
        assert decision.forecast is not None
        streams: dict[str, torch.Tensor] | None = {}
        if not forward.place.of_output:
            fill = forwards.replaced if forward.place.target == "feature" else forwards.added
            streams = fill(seen.heads, decision.forecast)
        # None: the model joins other tokens to its stream than at the step that was computed.
        if streams is not None:
            seen.streams, seen.skipping = streams, True

    def after_first(self, blocks: Blocks, output: Any) -> None:
        """The first block has run: its residual is the signal, where that is what was waited for."""
        forward = self.forward
        assert forward is not None
        if self._observer is not None:
            self._observer.after_first(output)
        if forward.place.reads_signal and forward.seen.signal is None:
            forward.seen.signal = forwards.residuals(blocks, output, forward.seen.heads)
            self.decide_late()
            self._fill(forward)

    @_outside_graphs(
        "this calibration's signal decides inside the model: compile the blocks (compile_repeated_blocks), or use a "
        "schedule, a sigma profile or a timestep signal, whose plan is known before"
    )
    def decide_late(self) -> None:
        """Decide by the signal, in the middle of a forward."""
        forward = self.forward
        assert forward is not None
        if forward.decision is None:
            self._decide(forward)

    def leave(self, blocks: Blocks, output: Any) -> None:
        """The last block has run."""
        forward = self.forward
        assert forward is not None
        if self._observer is not None:
            self._observer.left(output)
        # Nothing here may tell a run's first forward from later computed ones: it would be compiled apart.
        if forward.seen.heads and not forward.place.of_output:
            seen = forwards.features if forward.place.target == "feature" else forwards.residuals
            forward.seen.truth = seen(blocks, output, forward.seen.heads)

    def fill(self, blocks: Blocks, arguments: Mapping[str, Any]) -> Any:
        """What the last block returns at a reused step."""
        forward = self.forward
        assert forward is not None
        return forwards.filled(blocks, arguments, forward.seen.streams)

    def hand_on(self, output: Any, forward: Forward | None = None) -> Any:
        """The transformer's output as the sampler gets it: corrected by what it shows of the steps before, where the plan does so."""
        forward = forward or self.forward
        state = None if forward is None else forward.place.state
        if forward is None or state is None or state.policy.weights is None or not state.policy.corrected:
            return output
        sample = forwards.sample_of(output)
        held = sample if self.residual_device is None else sample.to(self.residual_device)
        handed = self._steps.handed(forward.place, held, self.clock.sampler_steps, reused=forward.seen.skipping)
        return output if handed is held else forwards.with_sample(output, handed.to(sample.device))

    def output(self, output: Any) -> Any:
        """The transformer's output; at a reused step forecast, where outputs are what is forecast."""
        forward = self.forward
        if forward is None:
            return output
        forward.seen.returned = output
        if self._observer is not None:
            self._observer.returned(output)
        if forward.place.of_output and not forward.seen.skipping:
            forward.seen.truth = forwards.outputs(output)
        elif forward.place.of_output:
            assert forward.decision is not None
            assert forward.decision.forecast is not None
            output = forwards.with_outputs(output, forward.decision.forecast)
        return output if self.compiled_whole else self.hand_on(output)
