"""What vLLM-Omni loads: entry point group ``vllm_omni.general_plugins``.

It gives the engine a further name for ``cache_backend``: ``easyteacache``. Its selector is one function that modules import by name
(vLLM-Omni 0.30.0, ``diffusion/cache/selector.py``), so that the function is put in its place there, and where it was imported already.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

from easyteacache.runtime.notices import logger

NAME = "easyteacache"
SELECTOR = "vllm_omni.diffusion.cache.selector"
RUNNER = "vllm_omni.diffusion.worker.diffusion_model_runner"
FUNCTION = "get_cache_backend"
#: Marks the function that knows ``easyteacache``.
_OURS = "_easyteacache"


def register() -> None:
    """Add the backend; may be called in every process, and more than once."""
    try:
        selector = importlib.import_module(SELECTOR)
    except ImportError as error:
        # A process that serves no diffusion model, or a release that keeps it elsewhere: it must start all the same.
        logger.warning("cache_backend %r is not there: %s", NAME, error)
        return
    original = getattr(selector, FUNCTION)
    if not hasattr(original, _OURS):
        setattr(selector, FUNCTION, _knowing(original))
    runner = sys.modules.get(RUNNER)
    if runner is not None and hasattr(runner, FUNCTION):
        setattr(runner, FUNCTION, getattr(selector, FUNCTION))


def _knowing(original: Any) -> Any:
    @functools.wraps(original)
    def get_cache_backend(cache_backend: str | None, cache_config: Any) -> Any:
        if cache_backend != NAME:
            return original(cache_backend, cache_config)
        from easyteacache.integrations.vllm_omni.backend import backend_of

        return backend_of(cache_config)

    setattr(get_cache_backend, _OURS, True)
    return get_cache_backend
