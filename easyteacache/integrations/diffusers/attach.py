"""Put a cache on a diffusers pipeline or transformer, and take it off again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers import signals
from easyteacache.integrations.diffusers.adapters import Adapter, adapter_for, located
from easyteacache.integrations.diffusers.compiled import step_around
from easyteacache.integrations.diffusers.driver import Driver
from easyteacache.integrations.diffusers.hooks import NAME, Installed

if TYPE_CHECKING:
    from easyteacache.teacache import TeaCache


def attach(cache: TeaCache, target: Any, *, residual_device: torch.device | str | None = None) -> Callable[[], None]:
    """Attach ``cache`` to a diffusers pipeline (better: its scheduler tells step count and noise levels) or to a transformer.

    Args:
        cache: a cache in speed mode.
        target: a ``DiffusionPipeline`` with a transformer, or a transformer.
        residual_device: where residuals rest between steps, for example ``"cpu"``; None: where they are computed.

    Returns:
        What takes the cache off again.

    Raises:
        AttachError: the class has no adapter, a cache is active already, or the state of the model does not allow it.
        SignalMismatch: the calibration's signal cannot be taken from this class.
    """
    transformer, scheduler = _parts(target)
    module = _unwrapped(transformer)
    adapter = adapter_for(module)
    _refuse_other_caches(module)
    source = _check_policy(cache, adapter)
    reason = adapter.refuses(module)
    if reason is not None:
        raise AttachError(f"this {type(module).__name__} cannot be cached: {reason}")
    blocks = located(adapter, module)
    _refuse_split_blocks(blocks[0][1])
    driver = Driver(cache, adapter, module, scheduler=scheduler, residual_device=residual_device)
    watching = None if source is None else signals.watch(source, module, driver.collect)
    installed = Installed(driver, blocks, [] if watching is None else [watching])
    step_back = step_around(driver, transformer)

    def detach() -> None:
        driver.end_run()
        step_back()
        installed.remove()

    return detach


def _parts(target: Any) -> tuple[Any, Callable[[], Any] | None]:
    """The transformer, and what gives the pipeline's scheduler."""
    if hasattr(target, "scheduler") and not isinstance(target, nn.Module):
        transformer = getattr(target, "transformer", None)
        if transformer is None:
            raise AttachError(
                f"{type(target).__name__} has no transformer: the cache skips the blocks of a diffusion transformer, "
                "so a U-Net pipeline cannot use it"
            )
        if getattr(target, "transformer_2", None) is not None:
            raise AttachError(
                f"{type(target).__name__} has two transformers, each with a calibration of its own: use "
                "TeaCache.for_pipeline(pipe), which finds both"
            )
        return transformer, lambda: target.scheduler
    if isinstance(target, nn.Module):
        return target, None
    raise AttachError(f"expected a diffusers pipeline or a transformer, found {type(target).__name__}")


def _unwrapped(module: nn.Module) -> nn.Module:
    return getattr(module, "_orig_mod", module)


def _check_policy(cache: TeaCache, adapter: Adapter) -> Any:
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


def _refuse_split_blocks(head: nn.Module) -> None:
    registry = getattr(head, "_diffusers_hook", None)
    if registry is not None and any(name.startswith("cp_input") for name in registry.hooks):
        raise AttachError(
            "context parallelism was enabled before the cache was attached, and splits this model's sequence at its first "
            "block: attach the cache first, then call enable_parallelism()"
        )
