"""Put a cache on a diffusers pipeline or transformer, and take it off again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers import context_parallel
from easyteacache.integrations.diffusers.compiled import step_around
from easyteacache.integrations.diffusers.driver import Driver
from easyteacache.integrations.diffusers.experts import is_pipeline, parts_of
from easyteacache.integrations.diffusers.hooks import NAME, Installed
from easyteacache.integrations.diffusers.model_classes import refuse_another_model
from easyteacache.integrations.diffusers.models import signals
from easyteacache.integrations.diffusers.models.adapter import Adapter, Source
from easyteacache.integrations.diffusers.models.registry import adapter_for, located
from easyteacache.integrations.diffusers.scheduler_facts import is_euler

if TYPE_CHECKING:
    from easyteacache.runtime.driven import DrivenCache

Detach = Callable[[], None]


def attach(
    cache: DrivenCache,
    target: Any,
    *,
    residual_device: torch.device | str | None = None,
    allow_borrowed: bool = False,
) -> Detach:
    """Attach ``cache`` to a diffusers pipeline (better: its scheduler tells step count and noise levels) or to a transformer.

    Args:
        cache: a cache in speed mode.
        target: a ``DiffusionPipeline`` with a transformer, or a transformer.
        residual_device: where residuals rest between steps, for example ``"cpu"``; None: where they are computed.
        allow_borrowed: attach a record that was fitted to a model of another class.

    Returns:
        What takes the cache off again.

    Raises:
        AttachError: the class has no adapter, the record is another model's, a cache is active already, or the state of the model
            does not allow it.
        SignalMismatch: the calibration's signal cannot be taken from this class.
    """
    if isinstance(target, nn.Module):
        return _attach(cache, target, None, residual_device, allow_borrowed=allow_borrowed)[1]
    if not is_pipeline(target):
        raise AttachError(f"expected a diffusers pipeline or a transformer, found {type(target).__name__}")
    transformers = list(parts_of(target).values())
    if len(transformers) > 1:
        raise AttachError(
            f"{type(target).__name__} has two transformers, each with a calibration of its own: use "
            "TeaCache.for_pipeline(pipe), which finds both, or ExpertCaches with one cache each"
        )
    scheduled = _attach(
        cache, transformers[0], lambda: target.scheduler, residual_device, allow_borrowed=allow_borrowed
    )
    return scheduled[1]


def attach_parts(
    caches: Mapping[str, DrivenCache], pipe: Any, *, residual_device: torch.device | str | None = None
) -> Detach:
    """Attach one cache to each expert of a pipeline; raises as ``attach`` does, with nothing attached then."""
    transformers = parts_of(pipe)
    if set(transformers) != set(caches):
        raise AttachError(
            f"{type(pipe).__name__} has {' and '.join(transformers)}, the caches are for {' and '.join(caches)}"
        )
    done: list[tuple[Driver, Detach]] = []

    def detach() -> None:
        for _, undo in done:
            undo()

    try:
        for name, transformer in transformers.items():
            done.append(_attach(caches[name], transformer, lambda: pipe.scheduler, residual_device))
    except Exception:
        detach()
        raise
    drivers = [driver for driver, _ in done]
    for driver in drivers:
        driver.on_run = _ending([other for other in drivers if other is not driver])
    return detach


def _ending(others: Sequence[Driver]) -> Callable[[], None]:
    def end() -> None:
        for other in others:
            other.end_run()

    return end


def _attach(
    cache: DrivenCache,
    transformer: Any,
    scheduler: Callable[[], Any] | None,
    residual_device: torch.device | str | None,
    *,
    allow_borrowed: bool = False,
) -> tuple[Driver, Detach]:
    # What `torch.compile` returned holds the model itself.
    module = getattr(transformer, "_orig_mod", transformer)
    adapter = adapter_for(module)
    _refuse_other_caches(module)
    cache.know_sampler(euler=scheduler is not None and is_euler(scheduler()))
    source = _source(cache, adapter)
    if cache.driven and not allow_borrowed:
        refuse_another_model(cache.policy, type(module).__name__)
    reason = adapter.refuses(module)
    if reason is not None:
        raise AttachError(f"this {type(module).__name__} cannot be cached: {reason}")
    blocks = located(adapter, module)
    context_parallel.refuse_split_blocks(blocks[0][1])
    driver = Driver(
        cache,
        adapter,
        module,
        scheduler=scheduler,
        residual_device=residual_device,
        reduction=lambda: context_parallel.reduction(module),
    )
    watching = None if source is None else signals.watch(source, module, driver.collect)
    installed = Installed(driver, blocks, [] if watching is None else [watching])
    step_back = step_around(driver, transformer)

    def detach() -> None:
        driver.end_run()
        step_back()
        installed.remove()

    return driver, detach


def _source(cache: DrivenCache, adapter: Adapter) -> Source | None:
    """Where the calibration's signal is found in this class; None when no signal is needed."""
    if cache.solving:
        raise AttachError(
            "a cache in solve mode (speedup_mode=False) records what its caller reports with store_truth(); to record a "
            "pipeline use `easyteacache record`"
        )
    if not cache.driven or cache.policy.schedule is not None:
        return None
    return signals.source_of(adapter, cache.policy.signal)


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
