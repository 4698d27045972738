"""EasyTeaCache: validated caching calibrations for diffusion transformers, and the runtime that applies them.

``TeaCache.from_registry("wan2.1/t2v-14b")`` resolves a calibration; ``attach`` puts it on a diffusers pipeline. Names are
loaded on first use, so that importing the package (or listing the registry) never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from easyteacache import _former_paths
from easyteacache._version import __version__

if TYPE_CHECKING:
    from easyteacache.calibrating.one_call import calibrate as calibrate
    from easyteacache.diagnosis.checkup import doctor as doctor
    from easyteacache.errors import EasyTeaCacheError as EasyTeaCacheError
    from easyteacache.errors import EasyTeaCacheWarning as EasyTeaCacheWarning
    from easyteacache.original.cache_json import TeaCacheConfig as TeaCacheConfig
    from easyteacache.policy.policy import Policy as Policy
    from easyteacache.records.calibration import Calibration as Calibration
    from easyteacache.registry.registry import Registry as Registry
    from easyteacache.teacache import TeaCache as TeaCache

_former_paths.install()

_HOME = {
    "Calibration": "easyteacache.records.calibration",
    "EasyTeaCacheError": "easyteacache.errors",
    "EasyTeaCacheWarning": "easyteacache.errors",
    "Policy": "easyteacache.policy.policy",
    "Registry": "easyteacache.registry.registry",
    "TeaCache": "easyteacache.teacache",
    "TeaCacheConfig": "easyteacache.original.cache_json",
    "calibrate": "easyteacache.calibrating.one_call",
    "doctor": "easyteacache.diagnosis.checkup",
}

__all__ = [
    "Calibration",
    "EasyTeaCacheError",
    "EasyTeaCacheWarning",
    "Policy",
    "Registry",
    "TeaCache",
    "TeaCacheConfig",
    "__version__",
    "calibrate",
    "doctor",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
