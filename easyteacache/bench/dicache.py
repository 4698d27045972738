"""DiCache (arXiv 2508.17356; Bujiazi/DiCache 3f0bd57, FLUX/run_flux_dicache.py) by its published rule, on diffusers' block hooks.

The first block is a probe that runs at every step. With p_j what leaves it, E ← E + mean|p_j − p_{j−1}| / mean|p_{j−1}| (``delta_y``), or
that minus the same of the stack's input, absolute (``delta_minus``). A step is reused while E stays below the threshold: with r the residual of
the whole stack, q that of the probe, a and b the two latest computed steps,

    r̂_j = r_a + γ (r_b − r_a),  γ = clip(mean|q_j − q_a| / mean|q_b − q_a|, 1, top).

The first steps and the last one are computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers.hooks import first_block_cache
from diffusers.hooks.hooks import HookRegistry, StateManager
from torch import Tensor

from easyteacache.bench.contender import Bed, Calibrated, Knob, Settings
from easyteacache.bench.diffusers_caches import DiffusersCache, quiet

HEAD, REST = "easyteacache_bench_dicache_probe", "easyteacache_bench_dicache_rest"


class DiCacheRule:
    """The rule over one branch of a run.

    Args:
        steps: of the run.
        threshold: E at which a step is computed.
        retained: share of the steps that is computed at the beginning.
        measure: ``delta_y`` or ``delta_minus``.
        top: largest γ.
    """

    def __init__(self, steps: int, threshold: float, retained: float, measure: str, top: float) -> None:
        self.steps, self.threshold, self.retained = steps, threshold, retained
        self.measure, self.top = measure, top
        self.step, self.error = 0, 0.0
        self._input: Tensor | None = None
        self._probe: Tensor | None = None
        self.residuals: list[Tensor] = []
        self.probes: list[Tensor] = []

    def computes(self, entering: Tensor, probe: Tensor) -> bool:
        """Must this step's other blocks run? Moves on to the next step."""
        step, self.step = self.step, self.step + 1
        found = True
        if (
            step <= int(self.retained * self.steps)
            or step == self.steps - 1
            or self._probe is None
            or self._input is None
        ):
            self.error = 0.0
        else:
            change = _relative(probe, self._probe)
            if self.measure == "delta_minus":
                change = abs(change - _relative(entering, self._input))
            self.error += change
            found = self.error >= self.threshold
            self.error = 0.0 if found else self.error
        self._input, self._probe = entering.clone(), probe.clone()
        return found

    def keep(self, residual: Tensor, probe: Tensor) -> None:
        """A computed step's residuals, of the stack and of the probe."""
        self.residuals = [*self.residuals[-1:], residual]
        self.probes = [*self.probes[-1:], probe]

    def residual(self, probe: Tensor) -> Tensor:
        """r̂ from this step's probe residual."""
        if len(self.residuals) < 2:
            return self.residuals[-1]
        (first, last), (probe_first, probe_last) = self.residuals, self.probes
        gamma = (probe - probe_first).abs().mean() / (probe_last - probe_first).abs().mean()
        return first + gamma.clip(1.0, self.top) * (last - first)


class _State(first_block_cache.FBCSharedBlockState):  # type: ignore[misc]
    """diffusers' state of a branch, with the rule."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self.rule = DiCacheRule(**options)

    def reset(self) -> None:
        super().reset()
        self.rule = DiCacheRule(**self.options)


class _Probe(first_block_cache.FBCHeadBlockHook):  # type: ignore[misc]
    """Runs the first block and decides."""

    def __init__(self, states: StateManager) -> None:
        super().__init__(states, 0.0)

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        entering = self._metadata._get_parameter_from_args_kwargs("hidden_states", args, kwargs)
        output = self.fn_ref.original_forward(*args, **kwargs)
        place = self._metadata.return_hidden_states_index
        probe = output[place] if isinstance(output, tuple) else output
        state: _State = self.state_manager.get_state()
        state.should_compute = state.rule.computes(entering, probe)
        state.head_block_output, state.head_block_residual = entering, probe - entering
        if state.should_compute:
            return output
        filled = entering + state.rule.residual(probe - entering)
        if not isinstance(output, tuple):
            return filled
        return tuple(filled if index == place else one for index, one in enumerate(output))


class _Rest(first_block_cache.FBCBlockHook):  # type: ignore[misc]
    """Runs another block, or hands its input on; the last one keeps the residual."""

    def __init__(self, states: StateManager, *, last: bool) -> None:
        # What diffusers keeps behind the last block is not this rule's.
        super().__init__(states, is_tail=False)
        self._last = last

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        state: _State = self.state_manager.get_state()
        output = super().new_forward(module, *args, **kwargs)
        if self._last and state.should_compute:
            leaving = output[self._metadata.return_hidden_states_index] if isinstance(output, tuple) else output
            state.rule.keep(leaving - state.head_block_output, state.head_block_residual)
        return output


class DiCache(DiffusersCache):
    """DiCache."""

    name = "DiCache"
    family = "published rule"
    kind = "forecast"
    knob = Knob("threshold", 1e-4, 20.0)
    note = "always runs the first block, which weighs more the fewer blocks a model has"

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """Both published settings, and shorter and longer beginnings."""
        rows = (("delta_y", 0.2), ("delta_minus", 0.0), ("delta_y", 0.0), ("delta_y", 0.35))
        return tuple({"measure": measure, "retained": share} for measure, share in rows)

    def config(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Any:
        """Options of the rule; its largest γ is 1.5 for FLUX and 2 elsewhere."""
        top = 1.5 if type(bed.transformer).__name__.startswith("Flux") else 2.0
        return {"steps": bed.case.steps, "top": top, **settings}

    @contextlib.contextmanager
    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Iterator[None]:
        """Hooks on every block inside the block."""
        states = StateManager(_State, (), self.config(bed, settings, calibrated))
        lists = [
            blocks
            for name, blocks in bed.transformer.named_children()
            if name in first_block_cache._ALL_TRANSFORMER_BLOCK_IDENTIFIERS and isinstance(blocks, torch.nn.ModuleList)
        ]
        head, *rest = [block for blocks in lists for block in blocks]
        with quiet():
            _registry(head).register_hook(_Probe(states), HEAD)
            for block in rest:
                _registry(block).register_hook(_Rest(states, last=block is rest[-1]), REST)
            try:
                yield
            finally:
                _registry(head).remove_hook(HEAD, recurse=False)
                for block in rest:
                    _registry(block).remove_hook(REST, recurse=False)


def _registry(block: torch.nn.Module) -> Any:
    return HookRegistry.check_if_exists_or_initialize(block)


def _relative(now: Tensor, before: Tensor) -> float:
    return float((now - before).abs().mean() / before.abs().mean())
