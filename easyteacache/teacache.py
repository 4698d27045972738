"""``TeaCache``: the object that a transformer's ``forward`` talks to, and what users hold in their hands.

Three verbs, the original project's own (oneflyingfish/EasyTeacache): ``check`` asks whether a step may be reused, ``update``
fills it, ``store_truth`` reports a computed one. ``attach`` makes these calls for a pipeline of diffusers. Where the numbers come
from is the only difference between ``TeaCache.from_registry(...)`` and the original's constructor with its JSON file.

What decides, predicts and remembers is the ``Session`` that a cache has (``runtime/session.py``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from easyteacache.errors import (
    AmbiguousModelKey,
    AttachError,
    InvalidCalibration,
    SignalMismatch,
    StepOrderError,
    UnknownModelKey,
    UnreachableTarget,
)
from easyteacache.original.online_fit import SeedSolver, SeedSource
from easyteacache.policy.model_choice import ModelResolver, applicable
from easyteacache.policy.record_free import EVEN, UNIVERSAL, OrUniversal
from easyteacache.policy.request import VERBS, Request, RunContext, request_and_run
from easyteacache.policy.source import FixedPolicy, PolicySource, Resolver
from easyteacache.registry.family import model_of
from easyteacache.runtime import predictors, verb_arguments
from easyteacache.runtime.attachment import Attachment
from easyteacache.runtime.branch_state import DEFAULT_BRANCH
from easyteacache.runtime.session import Session, StepDriver
from easyteacache.runtime.statistics import evidence_of, gate_of

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from easyteacache.calibrating.while_working import Until
    from easyteacache.integrations.diffusers.experts import ExpertCaches
    from easyteacache.original.cache_json import TeaCacheConfig
    from easyteacache.policy.policy import Policy
    from easyteacache.records.calibration import Calibration
    from easyteacache.registry.registry import Found, Registry
    from easyteacache.runtime.session import Place
    from easyteacache.runtime.statistics import RunStatistics
    from easyteacache.runtime.tensor_math import Reduce

__all__ = ["DEFAULT_BRANCH", "TeaCache"]


def _wished(
    *, uncalibrated: bool, predictor: str | None = None, forecaster: str | None = None, **wishes: Any
) -> tuple[Request, RunContext]:
    """What a constructor's caller wishes and knows; raises as the constructors do."""
    if predictor is not None and forecaster is not None:
        raise ValueError("predictor and forecaster are two names of one argument: give one of them")
    if uncalibrated and wishes.get("speedup") is None:
        raise ValueError(
            "uncalibrated=True needs speedup=: a plan without a record has no operating points to choose from"
        )
    named = predictor if forecaster is None else forecaster
    named = None if named in (None, predictors.AUTO) else predictors.predictor(named).name
    return request_and_run(predictor=named, **wishes)


class TeaCache:
    """Reuse or compute each step of a diffusion transformer, and fill the reused ones.

    The constructor is the original project's, in its order and with its defaults. For a calibration of the registry use
    ``TeaCache.from_registry``; to put a cache on a diffusers pipeline use ``attach``.

    One decision is taken for the whole batch. A run begins with step 0: what was remembered of an earlier run is dropped then.
    One cache serves one run at a time, from one thread, unless it was attached with ``sessions="thread"``. A copy
    (``copy.deepcopy``, ``pickle``) has the same settings, is not attached, and remembers no run.

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
        _session: Session | None = None,
    ) -> None:
        # The other constructors hand a session over; what the original's arguments name is then not looked at.
        self._seed = SeedSource(configs, model_keys, cache_path) if _session is None else None
        self._session = _session or Session(
            None,
            Request(
                threshold=threshold,
                min_skip_step=min_skip_step,
                max_skip_step=max_skip_step,
                max_consecutive_skips=max_consecutive_skip,
                predictor="mean" if enable_vt_predictor else "hold",
            ),
            RunContext(num_steps=num_steps),
            enabled=enable,
            solving=not speedup_mode,
        )
        self._steps = StepDriver(self._session)
        self._solver: SeedSolver | None = None
        self._last_branch = DEFAULT_BRANCH
        self._attachment = Attachment("this cache is attached already: detach() it first, or make a second one")
        self._load()

    # Other constructors ----------------------------------------------------------------------------------------------

    @classmethod
    def from_registry(
        cls,
        key: str,
        *,
        threshold: float | None = None,
        speedup: float | None = None,
        max_error: float | None = None,
        quality: str | None = None,
        num_steps: int | None = None,
        sequence_length: int | None = None,
        shift: float | None = None,
        min_skip_step: int | None = None,
        max_skip_step: int | None = None,
        max_consecutive_skips: int | None = None,
        predictor: str | None = None,
        forecaster: str | None = None,
        registry: Registry | str | os.PathLike[str] | None = None,
        allow_yanked: bool = False,
        uncalibrated: bool = False,
        calibrate: bool = False,
        until: Until = "full",
        calibrate_runs: int = 6,
        audit_every: int = 50,
    ) -> Self:
        """A cache with the calibration of a model.

        A speed-up or error is asked of every record of the model, its own and those of its methods (``wan2.1/t2v-14b/lemica``): what
        holds for the run goes first, then the stronger evidence, then the better figure, and a note says what was chosen over what.

        Args:
            key: a model key (``"wan2.1/t2v-14b"``), the key of one method's record, which then decides alone, or an exact alias
                such as a Hub repository id.
            threshold, speedup, max_error, quality: at most one of them; without any, the most cautious operating point of the model's
                own record. ``quality`` is an error by name, ``"exact"``, ``"high"``, ``"balanced"`` or ``"fast"`` (docs/runtime.md).
            num_steps, sequence_length, shift: what is known of the run; the length is also taken from ``check``.
            min_skip_step, max_skip_step, max_consecutive_skips: override the record's.
            predictor: fills reused steps instead of the record's choice; ``"auto"``, as None, leaves it to the record.
            forecaster: the old name of ``predictor``.
            registry: a folder or ``Registry`` to use instead of the default layers.
            allow_yanked: use a yanked record all the same.
            uncalibrated: in runs for which no record offers the speed-up, use the universal plan of ``TeaCache.uncalibrated``.
            calibrate: runs for which no record holds are computed in full and recorded, and make one (docs/calibrating.md); ``attach``
                the cache to a pipeline. ``key`` may then be one that no layer holds.
            until: with ``calibrate``: what such runs do meanwhile: ``full``; or ``published`` or ``uncalibrated``, and every second
                one is recorded.
            calibrate_runs: with ``calibrate``: recorded runs that a record is made from, 6 to 16.
            audit_every: with ``calibrate``: every so many runs one is computed in full to check the record; 0: never.

        Raises:
            UnknownModelKey: no layer holds the key; the error names the nearest ones.
            InvalidCalibration: the record is damaged, or of a method this runtime does not apply.
            SignalMismatch: the record does not say which signal its numbers were fitted to.
            RetiredCalibration: the record was yanked.
            UnreachableTarget: no operating point reaches the speed-up or error asked for.
            ValueError: an argument is out of range, or two exclude each other.
        """
        from easyteacache.registry.registry import Registry

        wishes: dict[str, Any] = {
            "threshold": threshold,
            "speedup": speedup,
            "max_error": max_error,
            "quality": quality,
            "num_steps": num_steps,
            "sequence_length": sequence_length,
            "shift": shift,
            "min_skip_step": min_skip_step,
            "max_skip_step": max_skip_step,
            "max_consecutive_skips": max_consecutive_skips,
            "predictor": predictor,
            "forecaster": forecaster,
        }
        layers = Registry.opened(registry)
        if not calibrate:
            return cls._from_found(layers.meant_by(key), allow_yanked=allow_yanked, uncalibrated=uncalibrated, **wishes)
        found: tuple[Found, ...] = ()
        with contextlib.suppress(UnknownModelKey):
            found = layers.meant_by(key)
        model = model_of(found[0].calibration.model_key if found else key)
        making = {"until": until, "calibrate_runs": calibrate_runs, "audit_every": audit_every}
        return cls._calibrating(
            model, found, allow_yanked=allow_yanked, uncalibrated=uncalibrated, making=making, **wishes
        )

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **wishes: Any) -> Self:
        """A cache with the calibration in one file, such as `easyteacache solve` writes; no layer need hold it.

        Args:
            path: the file.
            **wishes: ``speedup=``, ``threshold=`` and whatever else ``from_registry`` takes, but for ``registry``.

        Raises:
            InvalidCalibration: the file is missing, unreadable or malformed, or of a method this runtime does not apply.
            SignalMismatch, RetiredCalibration, UnreachableTarget, ValueError: as ``from_registry``.
        """
        from easyteacache.registry.registry import Found

        return cls._from_found((Found.in_file(path),), **wishes)

    @classmethod
    def from_calibration(cls, calibration: Calibration, **wishes: Any) -> Self:
        """A cache with a calibration at hand, such as ``easyteacache.calibrate`` returns; no layer need hold it.

        Args:
            calibration: the record.
            **wishes: ``speedup=``, ``threshold=`` and whatever else ``from_registry`` takes, but for ``registry`` and ``calibrate``.

        Raises:
            InvalidCalibration: it is of a method this runtime does not apply.
            SignalMismatch, RetiredCalibration, UnreachableTarget, ValueError: as ``from_registry``.
        """
        from easyteacache.registry.registry import Found

        return cls._from_found((Found(calibration, "given", calibration.model_key),), **wishes)

    @classmethod
    def from_policy(cls, policy: Policy) -> Self:
        """A cache that applies one given policy whatever the sequence length: for experiments and validation."""
        run = RunContext(num_steps=policy.num_steps, shift=policy.shift)
        return cls(-1, _session=Session(FixedPolicy(policy), Request(), run))

    @classmethod
    def uncalibrated(
        cls,
        speedup: float = 2.0,
        *,
        num_steps: int | None = None,
        sequence_length: int | None = None,
        shift: float | None = None,
        values_per_token: int | None = None,
    ) -> Self:
        """A cache without any calibration: the universal plan for each run's length, noise levels and step count.

        It computes the steps that several small models, compared over matched noise, would miss most, and extends the others linearly
        (docs/transfer.md says how it does on models it never saw). Nothing is known of its quality on yours.

        Args:
            speedup: steps divided by computed steps to reach, at least 1.
            num_steps, sequence_length, shift: what is known of the run; ``attach`` finds all of it.
            values_per_token: numbers of the latent that a token stands for, channels times patch; ``attach`` finds it, else 64.

        Raises:
            ValueError: an argument is out of range.
        """
        run = RunContext(
            sequence_length=sequence_length, num_steps=num_steps, shift=shift, values_per_token=values_per_token
        )
        return cls(-1, _session=Session(UNIVERSAL, Request(speedup=speedup), run))

    @classmethod
    def even(cls, speedup: float = 2.0, *, num_steps: int | None = None) -> Self:
        """A cache without any calibration that spaces its computed steps evenly: the plain baseline.

        Args:
            speedup: steps divided by computed steps to reach, at least 1.
            num_steps: sampler steps of a run; ``attach`` finds them.

        Raises:
            ValueError: an argument is out of range.
        """
        return cls(-1, _session=Session(EVEN, Request(speedup=speedup), RunContext(num_steps=num_steps)))

    @classmethod
    def for_pipeline(
        cls,
        pipe: Any,
        *,
        registry: Registry | str | os.PathLike[str] | None = None,
        allow_borrowed: bool = False,
        uncalibrated: bool = False,
        calibrate: bool = False,
        **wishes: Any,
    ) -> TeaCache | ExpertCaches:
        """A cache for a diffusers pipeline, by the record that its checkpoint's exact name leads to; ``attach`` it next.

        Args:
            pipe: the pipeline; its Hub repository id, or its transformer's configuration, is looked up as a typed alias.
            registry: a folder or ``Registry`` to use instead of the default layers.
            allow_borrowed: accept numbers that were fitted to another model.
            uncalibrated: where no record holds, use the universal plan of ``TeaCache.uncalibrated``; needs ``speedup=``. A note of the
                policy, and the summary, say so.
            calibrate: where no record holds, runs are recorded and make one, as ``from_registry`` says; the pipeline needs no record then.
            **wishes: ``speedup=``, ``threshold=`` and whatever else ``from_registry`` takes.

        Returns:
            The cache; for a pipeline with two experts one cache each, attached together.

        Raises:
            UnknownModelKey: no record has this name; the error names the nearest keys.
            AmbiguousModelKey: several have it.
            AttachError: the pipeline has no transformer, or the numbers are borrowed; ``calibrate`` for one with two experts.
            ValueError: ``uncalibrated`` without a speed-up.
        """
        from easyteacache.integrations.diffusers.experts import ExpertCaches
        from easyteacache.integrations.diffusers.pipeline import parts_of
        from easyteacache.integrations.diffusers.record_lookup import keys_for
        from easyteacache.registry.registry import Registry

        layers = Registry.opened(registry)
        if calibrate:
            return cls._calibrating_pipeline(
                pipe, layers, allow_borrowed=allow_borrowed, uncalibrated=uncalibrated, **wishes
            )
        try:
            keys = keys_for(pipe, layers, allow_borrowed=allow_borrowed)
            caches = {
                part: cls.from_registry(key, registry=layers, uncalibrated=uncalibrated, **wishes)
                for part, key in keys.items()
            }
        except (UnknownModelKey, SignalMismatch, InvalidCalibration) as error:
            if not uncalibrated or isinstance(error, AmbiguousModelKey):
                raise
            caches = {part: cls._without_record(f"No record holds: {error}", **wishes) for part in parts_of(pipe)}
        return caches["transformer"] if list(caches) == ["transformer"] else ExpertCaches(caches)

    @classmethod
    def _from_found(
        cls, found: Sequence[Found], *, allow_yanked: bool = False, uncalibrated: bool = False, **wishes: Any
    ) -> Self:
        request, run = _wished(uncalibrated=uncalibrated, **wishes)
        if all(one.calibration.signal == "unknown" for one in found):
            raise SignalMismatch(
                "unknown", "whatever t_mod holds", f"The sources of {found[0].asked!r} do not say which signal it is."
            )
        alone = len(found) == 1
        source: PolicySource = (
            Resolver(found[0], allow_yanked=allow_yanked) if alone else ModelResolver(found, allow_yanked=allow_yanked)
        )
        if uncalibrated:
            return cls(-1, _session=Session(OrUniversal(source), request, run))
        try:
            return cls(-1, _session=Session(source, request, run))
        except UnreachableTarget as error:
            if request.speedup is None:
                raise
            advice = f"TeaCache.uncalibrated(speedup={request.speedup:g}) has a plan that needs no record"
            raise UnreachableTarget(f"{str(error).rstrip('.')}. {advice}") from None

    @classmethod
    def _calibrating_pipeline(cls, pipe: Any, layers: Registry, *, allow_borrowed: bool, **options: Any) -> Self:
        """A cache that makes the record of a pipeline's transformer, where there is none that holds."""
        from easyteacache.integrations.diffusers.pipeline import parts_of
        from easyteacache.integrations.diffusers.record_lookup import key_for_new, keys_for

        if len(parts_of(pipe)) > 1:
            raise AttachError(
                f"calibrate=True is for one transformer, and {type(pipe).__name__} has two experts that share the sampler's steps: use "
                "`easyteacache record`, and `easyteacache solve --part` for each"
            )
        found: tuple[Found, ...] = ()
        # Borrowed, ambiguous or unknown: what is made here is this pipeline's own.
        with contextlib.suppress(UnknownModelKey, InvalidCalibration, AttachError):
            found = layers.meant_by(keys_for(pipe, layers, allow_borrowed=allow_borrowed)["transformer"])
        named: tuple[str, ...] = ("until", "calibrate_runs", "audit_every")
        making: dict[str, Any] = {name: options.pop(name) for name in named if name in options}
        return cls._calibrating(key_for_new(pipe, layers), found, making=making, **options)

    @classmethod
    def _calibrating(
        cls,
        key: str,
        found: Sequence[Found],
        *,
        making: Mapping[str, Any],
        allow_yanked: bool = False,
        uncalibrated: bool = False,
        **wishes: Any,
    ) -> Self:
        from easyteacache.calibrating.while_working import WhileWorking

        if uncalibrated:
            raise ValueError('uncalibrated=True beside calibrate=True: say until="uncalibrated"')
        request, run = _wished(uncalibrated=False, **wishes)
        until = making.get("until", "full")
        if request.speedup is None and (
            until == "uncalibrated" or not request.chooses or request.threshold is not None
        ):
            raise ValueError(
                'calibrate=True needs speedup=, max_error= or quality=, and until="uncalibrated" needs speedup=: a record that is yet to be made has '
                "no operating points to choose from"
            )
        known = [one for one in found if applicable(one)]
        others = ModelResolver(known, allow_yanked=allow_yanked) if known else None
        source = WhileWorking(
            key,
            others,
            until=until,
            runs=making.get("calibrate_runs", 6),
            audit_every=making.get("audit_every", 50),
        )
        return cls(-1, _session=Session(source, request, run, observer=source))

    @classmethod
    def _without_record(cls, why: str, *, allow_yanked: bool = False, **wishes: Any) -> Self:
        request, run = _wished(uncalibrated=True, **wishes)
        return cls(-1, _session=Session(UNIVERSAL.because(why), request, run))

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
            InvalidCalibration: the operating point forecasts the model's output, which these verbs do not see.
        """
        if not self._session.driven:
            return False
        step = verb_arguments.step_index(step)
        place = self._place(branch, step, verb_arguments.token_count(sequence_length), sigma)
        if t_mod is not None or place.reads_signal:
            t_mod = verb_arguments.tensor(t_mod, "t_mod")
        self._last_branch = branch
        return self._steps.admits(place, t_mod)

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
            timestep: true time of this step, where the predictor's coordinate is the timestep.
            branch: the branch of the ``check`` this answers; by default the last one checked.

        Returns:
            The block-stack output ``(B, L, D)``, a new tensor.

        Raises:
            StepOrderError: no ``check`` admitted this step.
            InvalidSignal: ``hidden_states`` is not like the last computed step's, or the predictor's coordinate is missing.
        """
        if not self._session.driven:
            return hidden_states
        hidden_states = verb_arguments.latent(hidden_states, "hidden_states")
        name = self._last_branch if branch is None else branch
        state = self._session.known(name)
        if state is None:
            raise StepOrderError(f"update() on branch {name!r} before any check() on it: call check() first")
        filled = state.update(t_mod, hidden_states, coordinate=verb_arguments.coordinate(state, timestep))
        self._steps.settle()
        return filled

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
            timestep: true time of this step, where the predictor's coordinate is the timestep.
            branch: which stream of forwards this is.

        Raises:
            StepOrderError: the same step twice on one branch, or a step before the last one.
            InvalidSignal: a tensor is empty, input and output differ in shape, or the predictor's coordinate is missing.
            InvalidCalibration: solve mode: the file that is there cannot be read; nothing is overwritten.
        """
        if not self.enable or (self._solver is None and not self._session.driven):
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
        state = self._session.known(branch)
        if state is None or state.pending != step:
            state = self._place(branch, step, length).known
        state.store_truth(
            step, t_mod, input_latent, output_latent, coordinate=verb_arguments.coordinate(state, timestep)
        )
        self._steps.settle()

    def _place(self, branch: str, step: int, length: int | None, sigma: float | None = None) -> Place:
        """Where a call belongs, under an operating point that the verbs can apply."""
        self._session.drive(VERBS)
        place = self._steps.place(branch, step, sequence_length=length, sigma=lambda: sigma)
        verb_arguments.require_residual(place.known.policy)
        return place

    # The original's other methods ------------------------------------------------------------------------------------

    @property
    def enable(self) -> bool:
        """False: compute everything and remember nothing. May be set."""
        return self._session.enabled

    @enable.setter
    def enable(self, value: bool) -> None:
        self._session.enabled = bool(value)
        self._load()

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
        request = self._session.request
        self._session.wish(
            dataclasses.replace(
                request,
                speedup=None,
                max_error=None,
                quality=None,
                threshold=threshold,
                min_skip_step=min_skip_step,
                max_skip_step=max_skip_step,
                max_consecutive_skips=request.max_consecutive_skips
                if max_consecutive_skip is None
                else max_consecutive_skip,
            )
        )
        self._load()

    def wish(
        self,
        *,
        quality: str | None = None,
        speedup: float | None = None,
        max_error: float | None = None,
        threshold: float | None = None,
    ) -> None:
        """Ask for something else in the runs to come; window and predictor stay. Running state is dropped.

        Args:
            quality, speedup, max_error, threshold: one of them, as in ``from_registry``.

        Raises:
            ValueError: not one of them is given, or it is out of range.
            UnreachableTarget: the record does not reach it; what was asked for before holds on.
        """
        asked = {"quality": quality, "speedup": speedup, "max_error": max_error, "threshold": threshold}
        if sum(value is not None for value in asked.values()) != 1:
            raise ValueError(f"expected one of {', '.join(asked)}")
        self._session.wish(dataclasses.replace(self._session.request, **asked))  # type: ignore[arg-type]
        self._load()

    def clear_cache(self) -> None:
        """Drop every remembered tensor and decision; solve mode also writes what it has recorded.

        ``statistics``, ``summary`` and ``current_speedup_rate`` still tell of the last run until the next one begins.
        """
        if self._solver is not None:
            self._solver.end_run()
        self.session.clear()

    def _load(self) -> None:
        """What the original's arguments name is opened when it is first needed: never while disabled or at threshold 0."""
        if self._seed is None or not self._session.enabled:
            return
        if self._session.solving:
            self._solver = self._solver or SeedSolver(self._seed.path, self._seed.keys)
        elif not self._session.driven and self._session.request.threshold:
            self._session.load(self._seed.load())

    # On a pipeline ---------------------------------------------------------------------------------------------------

    def attach(
        self,
        pipe_or_transformer: Any,
        *,
        residual_device: torch.device | str | None = None,
        allow_borrowed: bool = False,
        sessions: str | None = None,
    ) -> Self:
        """Put the cache on a diffusers pipeline or transformer by its hooks; returns the cache itself.

        Args:
            pipe_or_transformer: better the pipeline, whose scheduler tells step count and noise levels.
            residual_device: where residuals rest between steps, for example ``"cpu"``; None: where they are computed.
            allow_borrowed: attach a record that was fitted to a model of another class or configuration.
            sessions: ``"thread"``: each thread has a run of its own, for pipelines that share the transformer, each with its own
                scheduler and in its own thread; what this object tells of a run is then the calling thread's. None: one run is
                followed at a time, and forwards of other threads are computed in full meanwhile.

        Raises:
            AttachError: no adapter for the class, another cache is active, or this one is attached already.
            SignalMismatch: the calibration's signal cannot be taken from this model.
            ValueError: ``sessions`` is something else.
        """
        from easyteacache.integrations.diffusers import attach

        self._attachment.put_on(
            lambda: attach(
                self._session,
                pipe_or_transformer,
                residual_device=residual_device,
                allow_borrowed=allow_borrowed,
                sessions=sessions,
            )
        )
        return self

    def detach(self) -> None:
        """Take the cache off again; the model is bit for bit as before. Does nothing when it is not attached."""
        self._attachment.take_off()

    @contextlib.contextmanager
    def attached(
        self,
        pipe_or_transformer: Any,
        *,
        residual_device: torch.device | str | None = None,
        allow_borrowed: bool = False,
        sessions: str | None = None,
    ) -> Iterator[Self]:
        """``with cache.attached(pipe): …`` attaches, and detaches whatever happens."""
        self.attach(
            pipe_or_transformer, residual_device=residual_device, allow_borrowed=allow_borrowed, sessions=sessions
        )
        try:
            yield self
        finally:
            self.detach()

    # What happens, and what happened ---------------------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """What decides, predicts and remembers; where threads have sessions of their own, the calling thread's.

        In a thread that has none it is the one whose run began last.
        """
        return self._session.here

    @property
    def thread_sessions(self) -> dict[str, Session]:
        """The sessions of the threads that live, by the thread's name; empty unless attached with ``sessions="thread"``."""
        return self._session.by_thread()

    @property
    def solving(self) -> bool:
        """True in solve mode, which records what its caller reports."""
        return self._solver is not None

    @property
    def policy(self) -> Policy:
        """What is applied: record, buckets, threshold, window, and a note for every choice that was made.

        Raises:
            InvalidCalibration: there is none, because the cache is disabled or in solve mode.
        """
        return self.session.policy

    @property
    def reduce(self) -> Reduce | None:
        """Adds the two sums of a sharded signal up over a process group; None when every rank holds the whole signal. May be set."""
        return self._session.reduce

    @reduce.setter
    def reduce(self, reduce: Reduce | None) -> None:
        self._session.reduce = reduce

    def begin_run(
        self, *, num_steps: int | None = None, sequence_length: int | None = None, shift: float | None = None
    ) -> None:
        """Drop the state of an earlier run and say what is known of the next one, in a loop that calls the three verbs.

        Args:
            num_steps: sampler steps of this run; goes before what the cache was made with.
            sequence_length: tokens; ``check`` may say otherwise later.
            shift: flow-matching time shift of this run; goes before what the cache was made with.
        """
        self._steps.begin(RunContext(num_steps=num_steps, sequence_length=sequence_length, shift=shift, can=VERBS))

    def release(self) -> None:
        """Let go of every remembered tensor; ``statistics`` and ``summary`` still tell what the run did."""
        self._steps.end()

    @property
    def sequence_length(self) -> int | None:
        """The tokens that were said last; None when nobody has."""
        return self.session.sequence_length

    @property
    def nbytes(self) -> int:
        """Bytes of tensors held at this moment, over all branches and threads."""
        return self._session.nbytes

    def statistics(self) -> dict[str, RunStatistics]:
        """Per branch of the current run, or of the last one: computed and reused steps, hit list, distances."""
        return self.session.statistics()

    def current_speedup_rate(self) -> float:
        """Steps divided by computed steps in the current run, over all branches; 1 before the first step."""
        return self.session.current_speedup_rate()

    def summary(self) -> str:
        """The current run, or the last one, in two to seven lines; ``notes`` says the rest."""
        return self.session.summary()

    @property
    def notes(self) -> tuple[str, ...]:
        """Every choice that was made for the run, one sentence each, the warnings among them; empty where nothing is decided."""
        return self.policy.notes if self.session.has_policy else ()

    def __repr__(self) -> str:
        if not self.session.has_policy:
            return f"TeaCache({'solve mode' if self.solving else 'off'})"
        p = self.session.policy
        buckets = ", ".join(f"{share.sequence_length}×{share.weight:.2f}" for share in p.buckets)
        return (
            f"TeaCache({p.model_key!r}, revision={p.revision}, layer={p.layer!r}, signal={p.signal!r},\n"
            f"         {gate_of(p)}, predictor={p.forecaster!r}, window=[{p.first_skip_step}, {p.last_skip_step}], "
            f"buckets=[{buckets}],\n"
            f"         {evidence_of(p)}, {len(p.notes)} notes)"
        )
