"""What SGLang loads: entry point group ``sglang.multimodal_gen.plugins``.

Flux, Wan, HunyuanVideo and Stable Diffusion 3 call three methods of ``SpectrumMixin`` around their blocks (SGLang 0.5.23,
``runtime/cache/spectrum.py``): whether the blocks run, what left them, and what is to leave them where they do not. The plug-in answers
in their place, for requests with ``enable_spectrum``, and only where ``EASYTEACACHE_SGLANG_MODEL`` names a model: without it SGLang is as it was.
"""

from __future__ import annotations

import os
from typing import Any

from easyteacache.integrations.sglang import served_run
from easyteacache.runtime.notices import logger

MIXIN = "sglang.multimodal_gen.runtime.cache.spectrum.SpectrumMixin"
#: The model's key or an exact alias; not set: the plug-in does nothing.
MODEL = "EASYTEACACHE_SGLANG_MODEL"
#: Where the plan comes from, one of ``wish.SOURCES``; not set: ``registry``.
PLAN = "EASYTEACACHE_SGLANG_PLAN"


def register() -> None:
    """Register the hooks; SGLang puts them on when it starts.

    Raises:
        InvalidPlan: the variable names no source of plans, so that nobody serves without noticing.
    """
    key = os.environ.get(MODEL, "").strip()
    if not key:
        logger.debug("%s is not set: SGLang is left as it is", MODEL)
        return
    from sglang.multimodal_gen.runtime.platforms.plugins import HookRegistry, HookType

    hooks = served_run.Hooks(key, os.environ.get(PLAN, "registry").strip())
    for name in (
        "begin_spectrum_step",
        "spectrum_record_features",
        "spectrum_predict_features",
        "reset_spectrum_state",
    ):
        HookRegistry.register(f"{MIXIN}.{name}", _around(getattr(hooks, name)), HookType.AROUND)
    logger.info("EasyTeaCache serves requests with enable_spectrum by plans of %s", key)


def _around(method: Any) -> Any:
    """A plain function, as SGLang's registry names hooks by their functions' names."""

    def hook(original: Any, *args: Any, **kwargs: Any) -> Any:
        return method(original, *args, **kwargs)

    hook.__name__ = hook.__qualname__ = f"easyteacache_{method.__name__}"
    return hook
