"""``TeaCache``: the object that a transformer's ``forward`` talks to.

Three verbs, the original project's own (oneflyingfish/EasyTeacache): ``check`` asks whether a step may be reused, ``update``
fills it, ``store_truth`` reports a computed one. Where the numbers come from is the only difference between
``TeaCache.from_registry(...)`` and the original's constructor with its JSON file.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from easyteacache.calibrated import CalibratedCache
from easyteacache.errors import StepOrderError
from easyteacache.original.online_fit import SeedSolver, SeedSource
from easyteacache.policy.request import Setting
from easyteacache.runtime import verb_arguments
from easyteacache.runtime.session import RunState

if TYPE_CHECKING:
    import torch

    from easyteacache.integrations.diffusers.experts import ExpertCaches
    from easyteacache.original.cache_json import TeaCacheConfig
    from easyteacache.registry.registry import Registry
    from easyteacache.runtime.branch_state import BranchState

__all__ = ["DEFAULT_BRANCH", "TeaCache"]

DEFAULT_BRANCH = "default"


class TeaCache(CalibratedCache):
    """Reuse or compute each step of a diffusion transformer, and fill the reused ones.

    The constructor is the original project's, in its order and with its defaults. For a calibration of the registry use
    ``TeaCache.from_registry``; to put a cache on a diffusers pipeline use ``attach``.

    One decision is taken for the whole batch. A run begins with step 0: what was remembered of an earlier run is dropped then.
    One cache serves one run at a time, from one thread. A copy (``copy.deepcopy``, ``pickle``) has the same settings, is not
    attached, and remembers no run.

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
        enable_vt_predictor: fill a reused step with the mean of the last two computed residuals instead of the last one.
        num_steps: sampler steps of a run; without it a window that ends before the last step is known from the second run on.

    Raises:
        InvalidCalibration: the file is missing, unreadable or malformed.
        UnknownModelKey: the file holds nothing under ``model_keys``.
        ValueError: an argument is out of range.
    """

    _seed: SeedSource | None

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
        self._prepare(setting, enable=enable)
        self._seed = SeedSource(configs, model_keys, cache_path)
        self._solves = not speedup_mode
        self._start()

    @classmethod
    def for_pipeline(
        cls,
        pipe: Any,
        *,
        registry: Registry | str | os.PathLike[str] | None = None,
        allow_borrowed: bool = False,
        **wishes: Any,
    ) -> TeaCache | ExpertCaches:
        """A cache for a diffusers pipeline, by the record that its checkpoint's exact name leads to; ``attach`` it next.

        Args:
            pipe: the pipeline; its Hub repository id, or its transformer's configuration, is looked up as a typed alias.
            registry: a folder or ``Registry`` to use instead of the default layers.
            allow_borrowed: accept numbers that were fitted to another model.
            **wishes: ``speedup=``, ``threshold=`` and whatever else ``from_registry`` takes.

        Returns:
            The cache; for a pipeline with two experts one cache each, attached together.

        Raises:
            UnknownModelKey: no record has this name; the error names the nearest keys.
            AmbiguousModelKey: several have it.
            AttachError: the pipeline has no transformer, or the numbers are borrowed.
        """
        from easyteacache.integrations.diffusers.experts import ExpertCaches
        from easyteacache.integrations.diffusers.record_lookup import keys_for
        from easyteacache.registry.registry import Registry

        layers = Registry.opened(registry)
        keys = keys_for(pipe, layers, allow_borrowed=allow_borrowed)
        caches = {part: cls.from_registry(key, registry=layers, **wishes) for part, key in keys.items()}
        return caches["transformer"] if list(caches) == ["transformer"] else ExpertCaches(caches)

    def _prepare(self, setting: Setting, *, enable: bool) -> None:
        super()._prepare(setting, enable=enable)
        self._seed = None
        self._solves = False
        self._solver: SeedSolver | None = None
        self._last_branch = DEFAULT_BRANCH

    def _start(self) -> None:
        """Load what the constructor's arguments name, once it is needed."""
        if not self._enable or self._seed is None:
            return
        if self._solves:
            self._solver = self._solver or SeedSolver(self._seed.path, self._seed.keys)
        elif self._run is None and self._setting.threshold:
            self._run = RunState(self._seed.load(self._setting), self._setting)

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
            InvalidCalibration: the operating point forecasts the model's output, which these verbs do not see.
        """
        if not self.driven:
            return False
        step = verb_arguments.step_index(step)
        state = self._verb_state(branch, step, verb_arguments.token_count(sequence_length))
        if t_mod is not None or not verb_arguments.optional_signal(state.policy, sigma):
            t_mod = verb_arguments.tensor(t_mod, "t_mod")
        self._last_branch = branch
        return state.check(step, t_mod, sigma=sigma)

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
            InvalidSignal: ``hidden_states`` is not like the last computed step's, or the forecaster's coordinate is missing.
        """
        if not self.driven:
            return hidden_states
        assert self._run is not None
        hidden_states = verb_arguments.latent(hidden_states, "hidden_states")
        name = self._last_branch if branch is None else branch
        state = self._run.known(name)
        if state is None:
            raise StepOrderError(f"update() on branch {name!r} before any check() on it: call check() first")
        return state.update(t_mod, hidden_states, coordinate=verb_arguments.coordinate(state, timestep))

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
            InvalidSignal: a tensor is empty, input and output differ in shape, or the forecaster's coordinate is missing.
            InvalidCalibration: solve mode: the file that is there cannot be read; nothing is overwritten.
        """
        if not self._enable or (self._solver is None and self._run is None):
            return
        step = verb_arguments.step_index(step)
        input_latent = verb_arguments.latent(input_latent, "input_latent")
        output_latent = verb_arguments.latent(output_latent, "output_latent")
        length = verb_arguments.token_count(sequence_length)
        if self._solver is not None:
            signal = verb_arguments.tensor(t_mod, "t_mod")
            self._solver.observe(
                step, signal, output_latent, length=length or verb_arguments.tokens(input_latent), branch=branch
            )
            return
        assert self._run is not None
        state = self._run.known(branch)
        if state is None or state.pending != step:
            state = self._verb_state(branch, step, length)
        state.store_truth(
            step, t_mod, input_latent, output_latent, coordinate=verb_arguments.coordinate(state, timestep)
        )

    def _verb_state(self, branch: str, step: int, length: int | None) -> BranchState:
        """The state of a branch, with an operating point that the verbs can apply: they see the block stack only."""
        state = self.branch_state(branch, step, sequence_length=length)
        if self._run is not None and not (state.policy.block_stack_only or self._setting.block_stack_only):
            setting = dataclasses.replace(self._setting, block_stack_only=True)
            self._run.use(setting)
            self._setting = setting
            state = self.branch_state(branch, step, sequence_length=length)
        verb_arguments.require_residual(state.policy)
        return state

    @property
    def enable(self) -> bool:
        """False: compute everything and remember nothing. May be set."""
        return self._enable

    @enable.setter
    def enable(self, value: bool) -> None:
        self._enable = bool(value)
        self._start()

    def set_range(
        self, max_skip_step: int, min_skip_step: int = 0, threshold: float = 0, max_consecutive_skip: int | None = None
    ) -> None:
        """Change window and threshold for the runs to come; the original's method. Running state is dropped.

        Args:
            max_skip_step, min_skip_step, threshold: as in the constructor; note the threshold's default, which computes
                every step.
            max_consecutive_skip: most steps reused in a row; None keeps the present limit.

        Raises:
            ValueError: an argument is out of range.
            InvalidCalibration, UnknownModelKey: as the constructor, where the fit was not needed before.
        """
        limit = self._setting.max_consecutive_skips if max_consecutive_skip is None else max_consecutive_skip
        self._setting = dataclasses.replace(
            self._setting,
            speedup=None,
            max_error=None,
            threshold=threshold,
            min_skip_step=min_skip_step,
            max_skip_step=max_skip_step,
            max_consecutive_skips=limit,
        )
        if self._run is not None:
            self._run.use(self._setting)
        self._start()

    def clear_cache(self) -> None:
        """Drop every remembered tensor and decision; solve mode also writes what it has recorded.

        ``statistics``, ``summary`` and ``current_speedup_rate`` still tell of the last run until the next one begins.
        """
        if self._solver is not None:
            self._solver.end_run()
        if self._run is not None:
            self._run.clear()

    @property
    def solving(self) -> bool:
        """True in solve mode, which records what its caller reports."""
        return self._solver is not None
