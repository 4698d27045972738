"""Put sessions on the transformers of a diffusers pipeline, or on one transformer, and take them off again."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers import context_parallel, driver, model_identity
from easyteacache.integrations.diffusers.calling_pipeline import CallingPipeline
from easyteacache.integrations.diffusers.driver import Driver
from easyteacache.integrations.diffusers.drivers import Drivers, OneForAll, OnePerThread
from easyteacache.integrations.diffusers.hooks import NAME, Installed, step_around
from easyteacache.integrations.diffusers.model_classes import refuse_another_model, unknown_model
from easyteacache.integrations.diffusers.models import signals
from easyteacache.integrations.diffusers.models.adapter import Adapter, Blocks, Source
from easyteacache.integrations.diffusers.models.registry import adapter_for, located
from easyteacache.integrations.diffusers.pipeline import is_pipeline, parts_of
from easyteacache.integrations.diffusers.scheduler_facts import is_euler, is_mapped
from easyteacache.policy.request import Capabilities
from easyteacache.runtime.attachment import Detach
from easyteacache.runtime.notices import logger
from easyteacache.runtime.per_thread import PerThread
from easyteacache.runtime.run_observer import RunObserver
from easyteacache.runtime.session import Session

#: What ``sessions=`` may be besides None.
PER_THREAD = "thread"


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
    sessions: str | None = None,
) -> Detach:
    """Attach to a diffusers pipeline (better: its scheduler tells step count and noise levels) or to a transformer.

    Args:
        cache: a session, or a cache that has one; in speed mode.
        target: a ``DiffusionPipeline`` with a transformer, or a transformer.
        residual_device: where residuals rest between steps, for example ``"cpu"``; None: where they are computed.
        allow_borrowed: attach a record that was fitted to a model of another class or configuration.
        sessions: ``"thread"``: each thread that calls has a session of its own, for pipelines that share the transformer; None:
            one run is followed at a time, and forwards of other threads are computed meanwhile.

    Returns:
        What takes it off again.

    Raises:
        AttachError: the class has no adapter, the record is another model's, a cache is active already, or the state of the model
            does not allow it.
        SignalMismatch: the calibration's signal cannot be taken from this class.
        UnreachableTarget: what can be applied here does not meet the request.
        ValueError: ``sessions`` is something else.
    """
    options: dict[str, Any] = {
        "residual_device": residual_device,
        "allow_borrowed": allow_borrowed,
        "per_thread": _per_thread(sessions),
    }
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
    return _attach([(cache, transformers[0])], target, **options)


def attach_parts(
    caches: Mapping[str, Session | Cache],
    pipe: Any,
    *,
    residual_device: torch.device | str | None = None,
    allow_borrowed: bool = False,
    sessions: str | None = None,
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
        pipe,
        residual_device=residual_device,
        allow_borrowed=allow_borrowed,
        per_thread=_per_thread(sessions),
    )


def _per_thread(sessions: Any) -> bool:
    if sessions not in (None, PER_THREAD):
        raise ValueError(
            f"sessions: expected {PER_THREAD!r} (a run for each thread) or None (one run at a time), found {sessions!r}"
        )
    return sessions is not None


@dataclass(frozen=True)
class _Place:
    """Where one session goes, found fit for it.

    Attributes:
        session: what is attached.
        target: what the caller calls, which ``torch.compile`` may have made.
        module: the transformer itself.
        adapter: of its class.
        blocks: its blocks, in the order they run, each with the list it is in.
        sources: where the signals are found that a run may need.
    """

    session: Session
    target: Any
    module: nn.Module
    adapter: Adapter
    blocks: list[tuple[Blocks, nn.Module]]
    sources: tuple[Source, ...]

    @property
    def observer(self) -> RunObserver | None:
        """Who watches the session's runs; a graph of the whole transformer has no place where anybody could look on."""
        whole = self.target is not self.module or self.module._compiled_call_impl is not None
        return None if whole else self.session.observer

    def driver(self, session: Session, pipe: Callable[[], Any], **options: Any) -> Driver:
        """A driver of this transformer for one session."""
        return Driver(
            session,
            self.adapter,
            self.module,
            pipe=pipe,
            reduction=lambda: context_parallel.reduction(self.module),
            **options,
        )

    def install(self, drivers: Drivers) -> Detach:
        """Put the hooks on; returns what takes them off again."""

        def collect(source: Any, value: Any) -> None:
            drivers.here.collect(source, value)

        watching = [
            handle for source in self.sources if (handle := signals.watch(source, self.module, collect)) is not None
        ]
        return Installed(self.module, drivers, self.blocks, watching).remove


def _attach(
    pairs: Sequence[tuple[Session | Cache, Any]],
    pipe: Any,
    *,
    residual_device: torch.device | str | None,
    allow_borrowed: bool,
    per_thread: bool,
) -> Detach:
    """All of them or none; ``pipe`` is None where only a transformer is known."""
    can = _capabilities(None if pipe is None else pipe.scheduler)
    places = [
        _fit(
            cache if isinstance(cache, Session) else cache.session,
            transformer,
            can=can,
            allow_borrowed=allow_borrowed,
        )
        for cache, transformer in pairs
    ]
    if per_thread:
        return _serve_each_thread(places, residual_device)
    # Another pipeline may share the transformer, with a scheduler of its own.
    calling = CallingPipeline([place.module for place in places], otherwise=pipe)
    seen: dict[str, Any] = {} if pipe is None else {"look": calling.look}
    drivers = _together(
        [
            place.driver(place.session, calling, residual_device=residual_device, observer=place.observer, **seen)
            for place in places
        ]
    )
    with contextlib.ExitStack() as undo:
        for place, one in zip(places, drivers, strict=True):
            undo.callback(place.install(OneForAll(one)))
            undo.callback(step_around(one, place.target))
            if place.observer is not None:
                place.observer.attached(
                    place.module,
                    adapter=place.adapter,
                    guidance_scale=lambda: getattr(calling(), "guidance_scale", None),
                )
                undo.callback(place.observer.detached)
            undo.callback(one.end_run)
        return undo.pop_all().close


def _serve_each_thread(places: Sequence[_Place], residual_device: torch.device | str | None) -> Detach:
    """Each thread has drivers and sessions of its own, and its scheduler is that of the pipeline which calls in it."""
    if any(place.session.observer is not None for place in places):
        raise AttachError(
            f"sessions={PER_THREAD!r} beside calibrate=True: runs are recorded one at a time. Attach without sessions=, or use the records "
            "that are there (without calibrate=True)"
        )
    modules = [place.module for place in places]

    def make() -> Sequence[Driver]:
        calling = CallingPipeline(modules)
        return _together(
            [
                place.driver(place.session.of_thread(), calling, look=calling.look, residual_device=residual_device)
                for place in places
            ]
        )

    threads: PerThread[Sequence[Driver]] = PerThread(make, _forsake)
    drivers = [OnePerThread(threads, position) for position in range(len(places))]
    for place, one in zip(places, drivers, strict=True):
        one.refuse_graph(place.target)
    with contextlib.ExitStack() as undo:
        for place in places:
            undo.callback(place.session.join)
            place.session.split()
        undo.callback(threads.close)
        for place, one in zip(places, drivers, strict=True):
            undo.callback(place.install(one))
        return undo.pop_all().close


def _forsake(drivers: Sequence[Driver]) -> None:
    for one in drivers:
        one.end_run(judge=False)


def _together(drivers: Sequence[Driver]) -> Sequence[Driver]:
    """A run goes from one expert to the other, in one thread; when it begins in one, the others let go of their tensors."""
    for one in drivers:
        others = [other for other in drivers if other is not one]
        one.calling, one.over, one.on_run = drivers[0].calling, functools.partial(_over, drivers), _ending(others)
        one.session.share_run([other.session for other in others])
    return drivers


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


def _fit(session: Session, transformer: Any, *, can: Capabilities, allow_borrowed: bool) -> _Place:
    """Where this session goes; raises as ``attach`` does where it cannot."""
    # What `torch.compile` returned holds the model itself.
    module = getattr(transformer, "_orig_mod", transformer)
    adapter = adapter_for(module)
    _refuse_other_caches(module)
    if session.solving and session.enabled:
        raise AttachError(
            "a cache in solve mode (speedup_mode=False) records what its caller reports with store_truth(); to record a "
            "pipeline use `easyteacache record`"
        )
    session.drive(can)
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
    return _Place(session, transformer, module, adapter, blocks, sources)


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
