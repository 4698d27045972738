"""``TeaCache``: the object that a transformer's ``forward`` talks to.

Three verbs, the original project's own (oneflyingfish/EasyTeacache): ``check`` asks whether a step may be reused, ``update``
fills it, ``store_truth`` reports a computed one. Where the numbers come from is the only difference between
``TeaCache.from_registry(...)`` and the original's constructor with its JSON file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from easyteacache.branch import BranchState
from easyteacache.distance import Reduce
from easyteacache.errors import InvalidCalibration, InvalidSignal, StepOrderError
from easyteacache.forecast import forecaster as _forecaster_named
from easyteacache.policy import Policy, Setting, from_end
from easyteacache.seed_mode import SeedPolicies, SeedSolver, policies_of
from easyteacache.statistics import RunStatistics, describe

if TYPE_CHECKING:
    import torch

    from easyteacache.registry import Registry
    from easyteacache.seed_file import TeaCacheConfig

DEFAULT_BRANCH = "default"


class PolicySource(Protocol):
    """Where policies come from: a registry record, an original JSON file, or one given policy."""

    def policy(self, *, sequence_length: int | None, num_steps: int | None) -> Policy:
        """The policy for one sequence length and step count."""
        ...

    def with_setting(self, setting: Setting) -> PolicySource:
        """The same source with another window or threshold."""
        ...


class TeaCache:
    """Reuse or compute each step of a diffusion transformer, and fill the reused ones.

    The constructor is the original project's, in its order and with its defaults. For a calibration of the registry use
    ``TeaCache.from_registry``; to put a cache on a diffusers pipeline use ``attach``.

    One decision is taken for the whole batch. A run begins with step 0: state of an earlier run is dropped then.

    Args:
        max_skip_step: last step that may be reused, inclusive, zero-based; negative counts from the end (−1: the last step).
        min_skip_step: first step that may be reused.
        max_consecutive_skip: most steps reused in a row.
        threshold: accumulated predicted distance at which a step must be computed; 0 computes every step.
        configs: fits to use instead of those in ``cache_path``.
        model_keys: nested keys in the file, any strings, any depth.
        cache_path: the original's JSON file; read in speed mode, written in solve mode.
        speedup_mode: False: compute everything, record, and write the fit as soon as there are enough points.
        enable: False: compute everything and remember nothing.
        enable_vt_predictor: fill a reused step with the mean of the last two residuals instead of the last one.
        num_steps: sampler steps of a run; without it a window that ends before the last step is known from the second run on.

    Raises:
        InvalidCalibration: the file is missing, unreadable or malformed.
        UnknownModelKey: the file holds nothing under ``model_keys``.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        max_skip_step: int,
        min_skip_step: int = 0,
        max_consecutive_skip: int | None = 2,
        threshold: float = 0.0,
        configs: TeaCacheConfig | Sequence[TeaCacheConfig] | None = None,
        model_keys: str | Sequence[str] | None = None,
        cache_path: str | os.PathLike[str] = "config/teacache/cache.json",
        speedup_mode: bool = True,
        enable: bool = True,
        enable_vt_predictor: bool = False,
        *,
        num_steps: int | None = None,
    ) -> None:
        setting = Setting(
            num_steps=num_steps,
            threshold=threshold,
            min_skip_step=min_skip_step,
            max_skip_step=max_skip_step,
            max_consecutive_skips=max_consecutive_skip,
            forecaster="mean" if enable_vt_predictor else "hold",
        )
        keys = [model_keys] if isinstance(model_keys, str) else list(model_keys or [])
        source = policies_of(configs, keys, cache_path, setting, needed=enable and speedup_mode and threshold > 0)
        solver = SeedSolver(Path(cache_path), keys) if enable and not speedup_mode else None
        self._begin(source, setting, enable=enable, solver=solver)

    @classmethod
    def from_registry(
        cls,
        key: str,
        *,
        threshold: float | None = None,
        speedup: float | None = None,
        max_error: float | None = None,
        num_steps: int | None = None,
        sequence_length: int | None = None,
        shift: float | None = None,
        min_skip_step: int | None = None,
        max_skip_step: int | None = None,
        max_consecutive_skips: int | None = None,
        forecaster: str | None = None,
        registry: Registry | str | os.PathLike[str] | None = None,
        allow_yanked: bool = False,
    ) -> TeaCache:
        """A cache with the calibration filed under ``key``.

        Args:
            key: a model key (``"wan2.1/t2v-14b"``) or an exact alias such as a Hub repository id.
            threshold, speedup, max_error: choose the operating point; at most one of them. Without any, the record's most
                cautious one.
            num_steps, sequence_length, shift: what is known of the run; the length is also taken from ``check``.
            min_skip_step, max_skip_step, max_consecutive_skips, forecaster: override the record's.
            registry: a folder or ``Registry`` to use instead of the default layers.
            allow_yanked: use a yanked record all the same.

        Raises:
            UnknownModelKey: no layer holds the key; the error names the nearest ones.
            InvalidCalibration: the record is damaged, or of a method this runtime does not apply.
            RetiredCalibration: the record was yanked.
            UnreachableTarget: no operating point reaches the speed-up or error asked for.
            ValueError: an argument is out of range, or two exclude each other.
        """
        from easyteacache.registry import Registry
        from easyteacache.resolver import Resolver

        if registry is None:
            registry = Registry.default()
        elif not isinstance(registry, Registry):
            registry = Registry.from_folder(registry)
        setting = Setting(
            sequence_length=sequence_length,
            num_steps=num_steps,
            shift=shift,
            threshold=threshold,
            speedup=speedup,
            max_error=max_error,
            min_skip_step=min_skip_step,
            max_skip_step=max_skip_step,
            max_consecutive_skips=max_consecutive_skips,
            forecaster=None if forecaster is None else _forecaster_named(forecaster).name,
        )
        cache = cls.__new__(cls)
        cache._begin(Resolver(registry.find(key), setting, allow_yanked=allow_yanked), setting, enable=True)
        return cache

    @classmethod
    def from_policy(cls, policy: Policy) -> TeaCache:
        """A cache that applies one given policy whatever the sequence length: for experiments and validation."""
        cache = cls.__new__(cls)
        cache._begin(_FixedPolicy(policy), Setting(num_steps=policy.num_steps), enable=True)
        return cache

    def _begin(
        self, source: PolicySource | None, setting: Setting, *, enable: bool, solver: SeedSolver | None = None
    ) -> None:
        self._source, self._setting, self._solver = source, setting, solver
        #: False: compute everything and remember nothing.
        self.enable = enable
        self._branches: dict[str, BranchState] = {}
        self._seen_steps: int | None = None
        self._run_steps: int | None = None
        self._length = setting.sequence_length
        self._policy = (
            None if source is None else source.policy(sequence_length=self._length, num_steps=setting.num_steps)
        )
        self._detach: Callable[[], None] | None = None
        self._last_branch = DEFAULT_BRANCH
        #: Adds the two sums of a sharded signal up over a process group; None when every rank holds the whole signal.
        self.reduce: Reduce | None = None

    # The three verbs -------------------------------------------------------------------------------------------------

    def check(
        self,
        step: int,
        t_mod: torch.Tensor | None,
        sequence_length: int | None = 0,
        *,
        branch: str = DEFAULT_BRANCH,
        sigma: float | None = None,
    ) -> bool:
        """May this step be reused?

        Touches no disk; waits for the device at most once, and not at all when the step is outside the skip window.

        Args:
            step: zero-based index in the sampler loop; going back to 0 begins a new run.
            t_mod: the calibration's signal at this step, any shape, for example ``(B, 6, D)``. May be None when the policy
                is a fixed schedule or a sigma profile.
            sequence_length: tokens of the generated stream entering the blocks; 0 or None when not known.
            branch: which stream of forwards this is (``"cond"``, ``"uncond"``); each has its own state.
            sigma: noise level of this step, where the policy has a sigma profile.

        Returns:
            True: call ``update``. False: compute the blocks, then call ``store_truth``.

        Raises:
            StepOrderError: the same step twice on one branch, or a step before the last one.
            InvalidSignal: ``t_mod`` is not a tensor, is empty, or ``sequence_length`` is not a token count.
        """
        if not self._active:
            return False
        step = _step_index(step)
        state = self._state(branch, step, _token_count(sequence_length))
        if t_mod is not None or not _needs_no_signal(state.policy, sigma):
            _require_signal(t_mod, "t_mod")
        self._last_branch = branch
        return state.check(step, t_mod, sigma=sigma)

    def branch_state(self, branch: str, step: int, *, sequence_length: int | None = None) -> BranchState:
        """The state of one branch, ready for ``step``: what ``attach`` drives instead of the three verbs.

        A new run, another sequence length or an unknown branch gives a fresh state with the policy resolved for it.
        """
        return self._state(branch, step, sequence_length)

    def update(
        self,
        t_mod: torch.Tensor | None,
        hidden_states: torch.Tensor,
        timestep: float | None = None,
        *,
        branch: str | None = None,
    ) -> torch.Tensor:
        """Fill a reused step: block-stack input + forecast residual.

        Args:
            t_mod: the signal that ``check`` was given.
            hidden_states: block-stack input ``(B, L, D)``.
            timestep: true time of this step, where the forecaster's coordinate is the timestep.
            branch: the branch of the ``check`` this answers; by default the last one checked.

        Returns:
            The block-stack output ``(B, L, D)``, a new tensor.

        Raises:
            StepOrderError: no ``check`` admitted this step.
            InvalidSignal: ``hidden_states`` has another shape or device than the last computed step.
        """
        if not self._active:
            return hidden_states
        _require_signal(hidden_states, "hidden_states")
        state = self._known_branch(branch)
        return state.update(t_mod, hidden_states, coordinate=_coordinate(state.policy, timestep))

    def store_truth(
        self,
        step: int,
        t_mod: torch.Tensor | None,
        input_latent: torch.Tensor,
        output_latent: torch.Tensor,
        sequence_length: int | None = None,
        timestep: float | None = None,
        *,
        branch: str = DEFAULT_BRANCH,
    ) -> None:
        """Report a computed step.

        Args:
            step: zero-based index in the sampler loop.
            t_mod: the calibration's signal at this step.
            input_latent: block-stack input ``(B, L, D)``.
            output_latent: block-stack output ``(B, L, D)``.
            sequence_length: tokens; by default what ``check`` was given, in solve mode the middle axis of ``input_latent``.
            timestep: true time of this step, where the forecaster's coordinate is the timestep.
            branch: which stream of forwards this is.

        Raises:
            StepOrderError: the same step twice on one branch, or a step before the last one.
            InvalidSignal: a tensor is empty, or input and output differ in shape.
            InvalidCalibration: solve mode: the file that is there cannot be read; nothing is overwritten.
        """
        if not self.enable:
            return
        step = _step_index(step)
        _require_signal(input_latent, "input_latent")
        _require_signal(output_latent, "output_latent")
        length = _token_count(sequence_length)
        if self._solver is not None:
            _require_signal(t_mod, "t_mod")
            assert t_mod is not None
            self._solver.observe(step, t_mod, output_latent, length=length or _tokens(input_latent), branch=branch)
            return
        if not self._active:
            return
        state = self._branches.get(branch)
        if state is None or not state.pending:
            state = self._state(branch, step, length)
        state.store_truth(step, t_mod, input_latent, output_latent, coordinate=_coordinate(state.policy, timestep))

    # Settings and state ----------------------------------------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        """What is applied: record, buckets, threshold, window, and a note for every choice that was made.

        Raises:
            InvalidCalibration: there is none, because the cache is disabled or in solve mode.
        """
        if self._policy is None:
            raise InvalidCalibration(
                "TeaCache", "no policy: the cache is disabled, in solve mode, or its threshold is 0"
            )
        return self._policy

    def set_range(
        self, max_skip_step: int, min_skip_step: int = 0, threshold: float = 0, max_consecutive_skip: int | None = None
    ) -> None:
        """Change window and threshold for the runs to come; the original's method. Running state is dropped.

        Args:
            max_skip_step, min_skip_step, threshold: as in the constructor.
            max_consecutive_skip: most steps reused in a row; None keeps the present limit.
        """
        changes: dict[str, Any] = {
            "max_skip_step": max_skip_step,
            "min_skip_step": min_skip_step,
            "threshold": threshold,
        }
        if max_consecutive_skip is not None:
            changes["max_consecutive_skips"] = max_consecutive_skip
        self._use(changes)

    def begin_run(self, *, num_steps: int | None = None, sequence_length: int | None = None) -> None:
        """Drop the state of an earlier run and say what is known of the next one; ``attach`` calls it for you."""
        seen = max((state.last_step + 1 for state in self._branches.values()), default=0)
        self.clear_cache()
        self._seen_steps = max(self._seen_steps or 0, seen) or None
        self._run_steps = num_steps
        self._resolve(sequence_length or self._length)

    @property
    def driven(self) -> bool:
        """True when ``attach`` has something to do: the cache is enabled, in speed mode, and has a policy."""
        return self._active

    @property
    def solving(self) -> bool:
        """True in solve mode, which records what its caller reports."""
        return self._solver is not None

    def release(self) -> None:
        """Let go of every remembered tensor; ``statistics`` and ``summary`` still tell what the run did."""
        for state in self._branches.values():
            state.release()

    def forget(self, branch: str) -> None:
        """Drop what one branch remembers, because its next forward has another shape; its record stays."""
        if branch in self._branches:
            self._branches[branch].release()

    @property
    def nbytes(self) -> int:
        """Bytes of tensors held at this moment, over all branches."""
        return sum(state.nbytes for state in self._branches.values())

    def clear_cache(self) -> None:
        """Drop every remembered tensor and decision; solve mode also writes what it has recorded."""
        if self._solver is not None:
            self._solver.end_run()
        self._branches.clear()

    def _use(self, changes: dict[str, Any]) -> None:
        self._setting = dataclasses.replace(self._setting, speedup=None, max_error=None, **changes)
        if self._source is not None:
            self._source = self._source.with_setting(self._setting)
        self.clear_cache()
        self._resolve(self._length)

    @property
    def _active(self) -> bool:
        return self.enable and self._solver is None and self._source is not None

    def _resolve(self, length: int | None) -> None:
        if self._source is not None:
            self._length = length
            known = (self._run_steps, self._setting.num_steps, self._seen_steps)
            steps = next((count for count in known if count is not None), None)
            self._policy = self._source.policy(sequence_length=length, num_steps=steps)

    def _state(self, branch: str, step: int, length: int | None) -> BranchState:
        state = self._branches.get(branch)
        if state is not None and step == 0 and state.last_step >= 0:
            self._seen_steps = (
                max(self._seen_steps or 0, state.last_step + 1) if self._setting.num_steps is None else None
            )
            del self._branches[branch]
            state = None
        if length is not None and length != self._length:
            # Another resolution: other parameters, and nothing remembered fits.
            self._resolve(length)
            state = None
        elif state is None:
            self._resolve(self._length)
        if state is None:
            assert self._policy is not None
            previous = self._branches.get(branch)
            state = self._branches[branch] = BranchState(branch, self._policy, self.reduce)
            if previous is not None and previous.last_step < step:
                state.steps.extend(previous.steps)
        return state

    def _known_branch(self, branch: str | None) -> BranchState:
        name = self._last_branch if branch is None else branch
        if name not in self._branches:
            raise StepOrderError(f"update() on branch {name!r} before any check() on it")
        return self._branches[name]

    # What happened ---------------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, RunStatistics]:
        """Per branch of the current run: computed and reused steps, hit list, distances."""
        return {name: RunStatistics(tuple(state.steps)) for name, state in self._branches.items()}

    def current_speedup_rate(self) -> float:
        """Steps divided by computed steps in the current run, over all branches; 1 before the first step."""
        runs = self.statistics().values()
        total, computed = sum(len(run.steps) for run in runs), sum(run.computed for run in runs)
        return total / computed if computed else 1.0

    def summary(self) -> str:
        """The current run in a few readable lines."""
        return describe(self._policy, self.statistics(), self.current_speedup_rate())

    def __repr__(self) -> str:
        if self._policy is None:
            return f"TeaCache({'solve mode' if self._solver else 'off'})"
        p = self._policy
        gate = f"threshold={p.threshold:g}" if p.schedule is None else f"schedule={len(p.schedule)} computed steps"
        buckets = ", ".join(f"{share.sequence_length}×{share.weight:.2f}" for share in p.buckets)
        return (
            f"TeaCache({p.model_key!r}, revision={p.revision}, layer={p.layer!r}, signal={p.signal!r}, {gate}, "
            f"forecaster={p.forecaster!r}, window=[{p.first_skip_step}, {p.last_skip_step}], buckets=[{buckets}], "
            f"notes={list(p.notes)})"
        )

    # diffusers -------------------------------------------------------------------------------------------------------

    def attach(self, pipe_or_transformer: Any, *, residual_device: torch.device | str | None = None) -> TeaCache:
        """Put the cache on a diffusers pipeline or transformer by its hooks; returns the cache itself.

        Args:
            pipe_or_transformer: better the pipeline, whose scheduler tells step count and noise levels.
            residual_device: where residuals rest between steps, for example ``"cpu"``; None: where they are computed.

        Raises:
            AttachError: no adapter for the class, another cache is active, or this one is attached already.
            SignalMismatch: the calibration's signal cannot be taken from this model.
        """
        from easyteacache.errors import AttachError
        from easyteacache.integrations.diffusers import attach

        if self._detach is not None:
            raise AttachError("this cache is attached already: detach() it first, or make a second one")
        self._detach = attach(self, pipe_or_transformer, residual_device=residual_device)
        return self

    def detach(self) -> None:
        """Take the cache off again; the model is bit for bit as before. Does nothing when it is not attached."""
        if self._detach is not None:
            detach, self._detach = self._detach, None
            detach()

    @contextlib.contextmanager
    def attached(
        self, pipe_or_transformer: Any, *, residual_device: torch.device | str | None = None
    ) -> Iterator[TeaCache]:
        """``with cache.attached(pipe): …`` attaches, and detaches whatever happens."""
        self.attach(pipe_or_transformer, residual_device=residual_device)
        try:
            yield self
        finally:
            self.detach()


class _FixedPolicy:
    """A policy source that always gives the same policy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def policy(self, *, sequence_length: int | None, num_steps: int | None) -> Policy:
        return self._policy

    def with_setting(self, setting: Setting) -> _FixedPolicy:
        changes = {
            "threshold": setting.threshold,
            "first_skip_step": setting.min_skip_step,
            "last_skip_step": None
            if setting.max_skip_step is None
            else from_end(setting.max_skip_step, setting.num_steps),
            "max_consecutive_skips": setting.max_consecutive_skips,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        return _FixedPolicy(dataclasses.replace(self._policy, schedule=None, **given))  # type: ignore[arg-type]


def _step_index(step: object) -> int:
    try:
        index = operator.index(step)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidSignal("step", f"expected an integer index in the sampler loop, found {step!r}") from None
    if index < 0:
        raise InvalidSignal("step", f"expected 0 or more, found {index}")
    return index


def _token_count(length: object) -> int | None:
    if length is None:
        return None
    try:
        count = operator.index(length)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidSignal("sequence_length", f"expected a number of tokens, found {length!r}") from None
    if count < 0:
        raise InvalidSignal("sequence_length", f"expected a number of tokens, found {count}")
    return count or None


def _require_signal(tensor: object, name: str) -> None:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise InvalidSignal(name, f"expected a torch.Tensor, found {type(tensor).__name__}")
    if tensor.numel() == 0:
        raise InvalidSignal(name, f"is empty, of shape {tuple(tensor.shape)}")


def _tokens(block_input: torch.Tensor) -> int:
    if block_input.ndim < 2:
        raise InvalidSignal(
            "input_latent", f"expected (B, L, D), found shape {tuple(block_input.shape)}; or pass sequence_length="
        )
    return int(block_input.shape[1])


def _needs_no_signal(policy: Policy, sigma: float | None) -> bool:
    return policy.schedule is not None or (policy.profile is not None and sigma is not None)


def _coordinate(policy: Policy, timestep: float | None) -> float | None:
    return timestep if policy.coordinate == "timestep" else None


__all__ = ["DEFAULT_BRANCH", "PolicySource", "SeedPolicies", "TeaCache"]
