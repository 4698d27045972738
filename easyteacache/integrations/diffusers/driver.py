"""Drive one transformer's cache: find run, branch and step of each forward, decide, and commit when the forward succeeded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from easyteacache.integrations.diffusers import context_parallel, timestep_plan
from easyteacache.integrations.diffusers import forward_state as forwards
from easyteacache.integrations.diffusers.branch_names import Branches
from easyteacache.integrations.diffusers.forward_state import Forward
from easyteacache.integrations.diffusers.models import signals, token_layouts
from easyteacache.integrations.diffusers.models.adapter import Adapter, Blocks, FirstBlock, Output
from easyteacache.integrations.diffusers.step_tracker import Clock, Context
from easyteacache.runtime.tensor_math import Reduce

if TYPE_CHECKING:
    from torch import nn

    from easyteacache.policy.policy import Policy
    from easyteacache.runtime.driven import DrivenCache


Method = TypeVar("Method", bound=Callable[..., Any])


def _outside_graphs(reason: str) -> Callable[[Method], Method]:
    """Keeps a method out of ``torch.compile``'s graphs; ``reason`` is what its error tells when that is not allowed."""
    return torch.compiler.disable(reason=reason)  # type: ignore[no-any-return, no-untyped-call]


class Driver:
    """Everything one attached transformer has besides its hooks.

    Args:
        cache: the cache whose branches are driven.
        adapter: of the transformer's class.
        transformer: the module.
        scheduler: gives the pipeline's scheduler; None for a bare transformer.
        residual_device: where residuals rest between steps; None: where they are computed.
        reduction: gives the reduction over the ranks that share a sequence, or None, at the beginning of a run.
    """

    def __init__(
        self,
        cache: DrivenCache,
        adapter: Adapter,
        transformer: nn.Module,
        *,
        scheduler: Callable[[], Any] | None = None,
        residual_device: torch.device | str | None = None,
        reduction: Callable[[], Reduce | None] = lambda: None,
    ) -> None:
        self.cache, self.adapter, self.transformer = cache, adapter, transformer
        self.clock, self.branches = Clock(scheduler), Branches(adapter.conditioning)
        self.residual_device = residual_device
        #: What the pipeline said last through ``cache_context``.
        self.context = Context()
        #: The forward that is running, or that an exception broke off.
        self.forward: Forward | None = None
        #: True while one compiled graph of the whole model runs: ``begin`` and ``finish`` are called around it.
        self.compiled_whole = False
        #: Called when a run begins, so that a pipeline's other expert lets go of its tensors.
        self.on_run: Callable[[], None] = lambda: None
        self._reduction, self._shared = reduction, False
        self._last: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._tokens: dict[str, int] = {}
        self._distances: list[float] | None = None
        #: Noise levels of a policy → whether this run goes over them.
        self._met: dict[tuple[float, ...], bool] = {}

    # Around a forward ------------------------------------------------------------------------------------------------

    @_outside_graphs("compile the transformer before cache.attach, so that decisions stay outside the graph")
    def begin(self, arguments: Mapping[str, Any]) -> None:
        """A forward begins: which run, branch and step; and the decision, where it needs no tensor."""
        if self.forward is not None:
            self.end_run()
        if not self.cache.driven:
            return
        timestep = arguments.get(self.adapter.timestep)
        timestep = timestep if isinstance(timestep, torch.Tensor) else None
        branch = self._locate(arguments, timestep)
        latent = arguments.get(self.adapter.latent)
        shape = tuple(latent.shape) if isinstance(latent, torch.Tensor) else ()
        if branch in self._last and self._last[branch][1] != shape:
            self.cache.forget(branch)
            self._tokens.pop(branch, None)
        self._last[branch] = (self.clock.step, shape)
        forward = self.forward = Forward(arguments, branch, self.clock.step)
        if branch in self._tokens:
            self._resolve(forward, self._tokens[branch], timestep)
            forward.wants_signal = not self._planned(forward)
            if not forward.wants_signal:
                self._decide(forward)
        else:
            # The first forward of a branch in a run: there is nothing to reuse yet.
            forward.decided = True
            forward.wants_signal = not self._needs_no_signal(self.cache.policy, timestep)

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
        try:
            self.cache.begin_run(num_steps=self.clock.num_steps, shift=self.clock.shift, euler=self.clock.euler)
        except Exception:
            # Nothing was begun: a caller that goes on all the same must not find the policy of another run.
            self.clock.end()
            raise
        self._share(timestep)
        self.on_run()

    def _share(self, timestep: torch.Tensor | None) -> None:
        """Sum a sharded signal over its ranks; one that follows from a single timestep is whole on every rank."""
        whole = timestep_plan.of_timestep(self.cache.policy.signal) and (timestep is None or timestep.ndim <= 1)
        reduce = None if whole else self._reduction()
        if reduce is not None or self._shared:
            self.cache.reduce, self._shared = reduce, reduce is not None

    def end_run(self) -> None:
        """The run is over or was broken off: let go of every tensor; what it did can still be asked for."""
        self.forward = None
        self.branches.clear()
        self.clock.end()
        self._last.clear()
        self._tokens.clear()
        self._met.clear()
        self._distances = None
        self.cache.release()

    def _resolve(self, forward: Forward, tokens: int, timestep: torch.Tensor | None) -> None:
        """Find the branch's state and policy, and what a decision needs besides the signal."""
        state = self.cache.branch_state(forward.branch, forward.step, sequence_length=tokens)
        if self._strays(state.policy):
            self.cache.know_sampler(euler=False)
            state = self.cache.branch_state(forward.branch, forward.step, sequence_length=tokens)
        policy, forward.state = state.policy, state
        forward.of_output = policy.applied_to == "output"
        if policy.profile is not None or policy.coordinate == "sigma":
            forward.sigma = self.clock.sigma(self.context)
        if policy.coordinate == "sigma":
            forward.coordinate = forward.sigma
        elif policy.coordinate == "timestep":
            time = self.clock.time()
            forward.coordinate = float(timestep.flatten()[0]) if time is None and timestep is not None else time
        if policy.schedule is None and policy.threshold > 0 and self._distances is None:
            self._distances = timestep_plan.distances(
                self.adapter, self.transformer, policy.signal, self.clock, forward.arguments
            )
        if self._distances and 0 < forward.step <= len(self._distances):
            forward.distance = self._distances[forward.step - 1]

    def _strays(self, policy: Policy) -> bool:
        """Does the policy correct computed steps, and the run go over other noise levels than that was fitted at?"""
        if policy.weights is None or policy.noise_levels is None:
            return False
        if policy.noise_levels not in self._met:
            self._met[policy.noise_levels] = self.clock.runs_over(policy.noise_levels)
        return not self._met[policy.noise_levels]

    def _planned(self, forward: Forward) -> bool:
        """Is the decision known without the signal's tensor?"""
        assert forward.state is not None
        policy = forward.state.policy
        if policy.schedule is not None or policy.threshold <= 0 or forward.distance is not None:
            return True
        return policy.profile is not None and forward.sigma is not None

    def _needs_no_signal(self, policy: Policy, timestep: torch.Tensor | None) -> bool:
        """Will the later steps of this run do without this step's signal?"""
        if policy.schedule is not None or policy.threshold <= 0:
            return True
        if policy.profile is not None and self.clock.sigma(self.context) is not None:
            return True
        return timestep_plan.plannable(self.adapter, policy.signal, self.clock, timestep)

    def _decide(self, forward: Forward) -> None:
        state = forward.state
        assert state is not None
        forward.decided = True
        forward.reuse = state.check(forward.step, forward.signal, sigma=forward.sigma, distance=forward.distance)
        if forward.reuse:
            forward.forecast = state.residual(coordinate=forward.coordinate)

    @_outside_graphs("compile the transformer before cache.attach, so that decisions stay outside the graph")
    def finish(self) -> None:
        """The forward succeeded: commit what it did."""
        forward, self.forward = self.forward, None
        if forward is None or not forward.decided:
            return
        if forward.state is None:
            if not forward.heads:
                return
            tokens = self._whole_length(forward)
            self._tokens[forward.branch] = tokens
            self._resolve(forward, tokens, forward.arguments.get(self.adapter.timestep))
            assert forward.state is not None
            if forward.of_output:
                forward.truth = forwards.sample_of(forward.returned)
            # The first computed output is handed on as it is, but later ones are corrected from it.
            self.hand_on(forward.returned, forward)
            forward.state.check(forward.step, forward.signal, sigma=forward.sigma, distance=forward.distance)
        if forward.skipping:
            forward.state.reuse(forward.signal, coordinate=forward.coordinate)
        elif forward.truth is not None:
            truth = forward.truth.detach()
            truth = truth if self.residual_device is None else truth.to(self.residual_device)
            forward.state.store_residual(forward.step, forward.signal, truth, coordinate=forward.coordinate)

    def _whole_length(self, forward: Forward) -> int:
        if self.adapter.tokens not in (token_layouts.token_axes, token_layouts.rows):
            # Counted from the transformer's arguments, which are split only after it was called.
            return forward.tokens
        return context_parallel.whole_length(
            self.transformer, forward.tokens, next(iter(forward.heads.values())).device
        )

    # Called by the block hooks; traced when the whole model is compiled ----------------------------------------------

    def collect(self, source: Output, value: Any) -> None:
        """A submodule that the signal is taken from has run."""
        if self.forward is not None:
            self.forward.collected[source] = value

    def enter(self, block: nn.Module, arguments: Mapping[str, Any]) -> None:
        """The first block is about to run: remember its input, and decide unless that was done or has to wait."""
        forward = self.forward
        assert forward is not None
        forward.heads = forwards.entering(arguments, self.adapter.streams)
        forward.tokens = self.adapter.tokens(next(iter(forward.heads.values())), forward.arguments, self.transformer)
        if forward.wants_signal:
            source = signals.source_of(self.adapter, self.cache.policy.signal)
            forward.signal = signals.extract(source, block, arguments, forward.collected)
            if not isinstance(source, FirstBlock):
                self.decide_late()
        self._fill(forward)

    def _fill(self, forward: Forward) -> None:
        if not forward.reuse:
            return
        assert forward.forecast is not None
        streams = {} if forward.of_output else forwards.added(forward.heads, forward.forecast)
        # None: the model joins other tokens to its stream than at the step that was computed.
        if streams is not None:
            forward.streams, forward.skipping = streams, True

    def after_first(self, blocks: Blocks, output: Any) -> None:
        """The first block has run: its residual is the signal, where that is what was waited for."""
        forward = self.forward
        assert forward is not None
        if forward.wants_signal and forward.signal is None:
            forward.signal = forwards.residuals(blocks, output, forward.heads)
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
        if not forward.decided:
            self._decide(forward)

    def leave(self, blocks: Blocks, output: Any) -> None:
        """The last block has run."""
        forward = self.forward
        assert forward is not None
        # Nothing here may tell a run's first forward from later computed ones: it would be compiled apart.
        if forward.heads and not forward.of_output:
            forward.truth = forwards.residuals(blocks, output, forward.heads)

    def fill(self, blocks: Blocks, arguments: Mapping[str, Any]) -> Any:
        """What the last block returns at a reused step."""
        forward = self.forward
        assert forward is not None
        return forwards.filled(blocks, arguments, forward.streams)

    def hand_on(self, output: Any, forward: Forward | None = None) -> Any:
        """The transformer's output as the sampler gets it: corrected by what it shows of the steps before, where the plan does so."""
        forward = forward or self.forward
        if forward is None or forward.state is None or forward.state.policy.weights is None:
            return output
        sample = forwards.sample_of(output)
        held = sample if self.residual_device is None else sample.to(self.residual_device)
        handed = forward.state.handed(forward.step, held, self.clock.step_size(), reused=forward.skipping)
        return output if handed is held else forwards.with_sample(output, handed.to(sample.device))

    def output(self, output: Any) -> Any:
        """The transformer's output; at a reused step forecast, where outputs are what is forecast."""
        forward = self.forward
        if forward is None:
            return output
        forward.returned = output
        if forward.state is None:
            return output
        if forward.of_output and not forward.skipping:
            forward.truth = forwards.sample_of(output)
        elif forward.of_output:
            assert forward.forecast is not None
            sample = forwards.sample_of(output)
            output = forwards.with_sample(output, forward.forecast.to(sample.device).to(sample.dtype).clone())
        return output if self.compiled_whole else self.hand_on(output)
