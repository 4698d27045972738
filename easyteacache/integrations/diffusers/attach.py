"""Put sessions on the transformers of a diffusers pipeline, or on one transformer, and take them off again."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers import context_parallel, driver, model_identity
from easyteacache.integrations.diffusers.driver import Driver
from easyteacache.integrations.diffusers.hooks import NAME, Installed, step_around
from easyteacache.integrations.diffusers.model_classes import refuse_another_model, unknown_model
from easyteacache.integrations.diffusers.models import signals
from easyteacache.integrations.diffusers.models.adapter import Adapter, Source
from easyteacache.integrations.diffusers.models.registry import adapter_for, located
from easyteacache.integrations.diffusers.pipeline import is_pipeline, parts_of
from easyteacache.integrations.diffusers.scheduler_facts import is_euler, is_mapped
from easyteacache.policy.request import Capabilities
from easyteacache.runtime.attachment import Detach
from easyteacache.runtime.notices import logger
from easyteacache.runtime.session import Session


class Cache(Protocol):
    """What a ``TeaCache`` shows of itself here."""

    @property
    def session(self) -> Session:
        """What decides, predicts and remembers."""
        ...


def attach(
    cache: Session | Cache,
    target: Any,
    *,
    residual_device: torch.device | str | None = None,
    allow_borrowed: bool = False,
) -> Detach:
    """Attach to a diffusers pipeline (better: its scheduler tells step count and noise levels) or to a transformer.

    Args:
        cache: a session, or a cache that has one; in speed mode.
        target: a ``DiffusionPipeline`` with a transformer, or a transformer.
        residual_device: where residuals rest between steps, for example ``"cpu"``; None: where they are computed.
        allow_borrowed: attach a record that was fitted to a model of another class or configuration.

    Returns:
        What takes it off again.

    Raises:
        AttachError: the class has no adapter, the record is another model's, a cache is active already, or the state of the model
            does not allow it.
        SignalMismatch: the calibration's signal cannot be taken from this class.
        UnreachableTarget: what can be applied here does not meet the request.
    """
    options = {"residual_device": residual_device, "allow_borrowed": allow_borrowed}
    if isinstance(target, nn.Module):
        return _attach([(cache, target)], None, **options)
    if not is_pipeline(target):
        raise AttachError(f"expected a diffusers pipeline or a transformer, found {type(target).__name__}")
    transformers = list(parts_of(target).values())
    if len(transformers) > 1:
        raise AttachError(
            f"{type(target).__name__} has two transformers, and a cache serves one of them: use TeaCache.for_pipeline(pipe), which "
            "gives each its own where the registry knows the checkpoint, or ExpertCaches({'transformer': …, 'transformer_2': …}) with "
            "caches of your choice, which may be of one record"
        )
    return _attach([(cache, transformers[0])], functools.partial(getattr, target, "scheduler"), **options)


def attach_parts(
    caches: Mapping[str, Session | Cache],
    pipe: Any,
    *,
    residual_device: torch.device | str | None = None,
    allow_borrowed: bool = False,
) -> Detach:
    """Attach one cache to each expert of a pipeline; raises as ``attach`` does, with nothing attached then."""
    transformers = parts_of(pipe)
    if set(transformers) != set(caches):
        raise AttachError(
            f"{type(pipe).__name__} has {' and '.join(transformers)}, the caches are for {' and '.join(caches)}"
        )
    pairs = [(caches[name], transformer) for name, transformer in transformers.items()]
    return _attach(
        pairs,
        functools.partial(getattr, pipe, "scheduler"),
        residual_device=residual_device,
        allow_borrowed=allow_borrowed,
    )


def _attach(
    pairs: Sequence[tuple[Session | Cache, Any]], scheduler: Callable[[], Any] | None, **options: Any
) -> Detach:
    """All of them or none; when a run begins in one, the others let go of their tensors."""
    with contextlib.ExitStack() as undo:
        drivers = []
        for cache, transformer in pairs:
            session = cache if isinstance(cache, Session) else cache.session
            found, detach = _attach_one(session, transformer, scheduler, **options)
            undo.callback(detach)
            drivers.append(found)
        for one in drivers:
            # A run goes from one expert to the other, in one thread.
            one.calling, one.over = drivers[0].calling, functools.partial(_over, drivers)
            one.on_run = _ending([other for other in drivers if other is not one])
        return undo.pop_all().close


def _over(drivers: Sequence[Driver]) -> bool:
    return all(one.run_over() for one in drivers)


def _ending(others: Sequence[Driver]) -> Callable[[], None]:
    def end() -> None:
        for other in others:
            other.end_run()

    return end


def _capabilities(scheduler: Any) -> Capabilities:
    """What can be applied with a scheduler, as far as that is known before a run."""
    return driver.capabilities(corrects=is_mapped(scheduler), euler=is_euler(scheduler))


def _attach_one(
    session: Session,
    transformer: Any,
    scheduler: Callable[[], Any] | None,
    *,
    residual_device: torch.device | str | None,
    allow_borrowed: bool,
) -> tuple[Driver, Detach]:
    # What `torch.compile` returned holds the model itself.
    module = getattr(transformer, "_orig_mod", transformer)
    adapter = adapter_for(module)
    _refuse_other_caches(module)
    if session.solving and session.enabled:
        raise AttachError(
            "a cache in solve mode (speedup_mode=False) records what its caller reports with store_truth(); to record a "
            "pipeline use `easyteacache record`"
        )
    session.drive(_capabilities(None if scheduler is None else scheduler()))
    sources = _sources(session, adapter)
    if session.driven and not allow_borrowed:
        refuse_another_model(session.policy, model_identity.of_class(module))
        unknown = unknown_model(session.policy)
        if unknown is not None:
            logger.warning("%s: %s", session.policy.model_key, unknown)
    reason = adapter.refuses(module)
    if reason is not None:
        raise AttachError(f"this {type(module).__name__} cannot be cached: {reason}")
    blocks = located(adapter, module)
    context_parallel.refuse_split_blocks(blocks[0][1])
    driving = Driver(
        session,
        adapter,
        module,
        scheduler=scheduler,
        residual_device=residual_device,
        reduction=lambda: context_parallel.reduction(module),
    )
    watching = [handle for source in sources if (handle := signals.watch(source, module, driving.collect)) is not None]
    installed = Installed(driving, blocks, watching)
    step_back = step_around(driving, transformer)

    def detach() -> None:
        driving.end_run()
        step_back()
        installed.remove()

    return driving, detach


def _sources(session: Session, adapter: Adapter) -> tuple[Source, ...]:
    """Where the signals are found in this class that a run may need; a model's other records may decide in another run."""
    if not session.driven:
        return ()
    if session.policy.decided_by not in ("schedule", "nothing"):
        signals.source_of(adapter, session.policy.signal)
    names = ["timestep_projection" if name == signals.SEED_SIGNAL else name for name in session.signals]
    found = (adapter.source(name) for name in names)
    return tuple(dict.fromkeys(source for source in found if source is not None))


def _refuse_other_caches(module: nn.Module) -> None:
    registry = getattr(module, "_diffusers_hook", None)
    if registry is not None and NAME in registry.hooks:
        raise AttachError(
            f"this {type(module).__name__} has an EasyTeaCache attached already: detach that one first (a pipeline made with "
            "from_pipe shares its transformer, and the cache on it)"
        )
    if getattr(module, "is_cache_enabled", False):
        raise AttachError(
            f"this {type(module).__name__} has {type(module._cache_config).__name__} enabled, and two caches would reuse each "
            "other's output: call transformer.disable_cache() first"
        )
