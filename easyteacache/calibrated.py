"""A cache whose numbers come from a calibration: from a registry, a file, or as one given policy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from easyteacache.attachable import AttachableCache
from easyteacache.errors import SignalMismatch
from easyteacache.policy.policy import Policy
from easyteacache.policy.request import Setting
from easyteacache.policy.source import FixedPolicy, PolicySource, Resolver
from easyteacache.runtime import predictors
from easyteacache.runtime.session import RunState

if TYPE_CHECKING:
    from typing_extensions import Self

    from easyteacache.registry.registry import Found, Registry


class CalibratedCache(AttachableCache):
    """Base of ``TeaCache``; not made by itself."""

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
        predictor: str | None = None,
        forecaster: str | None = None,
        registry: Registry | str | os.PathLike[str] | None = None,
        allow_yanked: bool = False,
    ) -> Self:
        """A cache with the calibration filed under ``key``.

        Args:
            key: a model key (``"wan2.1/t2v-14b"``) or an exact alias such as a Hub repository id.
            threshold, speedup, max_error: at most one of them; without any, the record's most cautious operating point.
            num_steps, sequence_length, shift: what is known of the run; the length is also taken from ``check``.
            min_skip_step, max_skip_step, max_consecutive_skips: override the record's.
            predictor: fills reused steps instead of the record's choice, one of ``runtime.predictors.predictors()``; ``"auto"``, as
                None, leaves it to the record.
            forecaster: the old name of ``predictor``.
            registry: a folder or ``Registry`` to use instead of the default layers.
            allow_yanked: use a yanked record all the same.

        Raises:
            UnknownModelKey: no layer holds the key; the error names the nearest ones.
            InvalidCalibration: the record is damaged, or of a method this runtime does not apply.
            SignalMismatch: the record does not say which signal its numbers were fitted to.
            RetiredCalibration: the record was yanked.
            UnreachableTarget: no operating point reaches the speed-up or error asked for.
            ValueError: an argument is out of range, or two exclude each other.
        """
        from easyteacache.registry.registry import Registry

        return cls._from_found(
            Registry.opened(registry).find(key),
            allow_yanked=allow_yanked,
            threshold=threshold,
            speedup=speedup,
            max_error=max_error,
            num_steps=num_steps,
            sequence_length=sequence_length,
            shift=shift,
            min_skip_step=min_skip_step,
            max_skip_step=max_skip_step,
            max_consecutive_skips=max_consecutive_skips,
            predictor=predictor,
            forecaster=forecaster,
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

        return cls._from_found(Found.in_file(path), **wishes)

    @classmethod
    def _from_found(
        cls,
        found: Found,
        *,
        allow_yanked: bool = False,
        predictor: str | None = None,
        forecaster: str | None = None,
        **wishes: Any,
    ) -> Self:
        if predictor is not None and forecaster not in (None, predictor):
            raise ValueError(
                f"predictor is {predictor!r} and forecaster, its old name, {forecaster!r}: give one of them"
            )
        wanted = predictor or forecaster
        named = None if wanted in (None, predictors.AUTO) else predictors.predictor(wanted).name
        setting = Setting(forecaster=named, **wishes)
        if found.calibration.signal == "unknown":
            raise SignalMismatch(
                "unknown", "whatever t_mod holds", f"The sources of {found.asked!r} do not say which signal it is."
            )
        return cls._from_source(Resolver(found, setting, allow_yanked=allow_yanked), setting)

    @classmethod
    def from_policy(cls, policy: Policy) -> Self:
        """A cache that applies one given policy whatever the sequence length: for experiments and validation."""
        return cls._from_source(FixedPolicy(policy), Setting(num_steps=policy.num_steps, shift=policy.shift))

    @classmethod
    def _from_source(cls, source: PolicySource, setting: Setting) -> Self:
        cache = cls.__new__(cls)
        cache._prepare(setting, enable=True)
        cache._run = RunState(source, setting)
        return cache
