"""The cache on diffusers pipelines: by diffusers' own hooks, on any transformer class with an adapter."""

from __future__ import annotations

from importlib.util import find_spec

from easyteacache.errors import MissingPackage

if find_spec("diffusers") is None:
    raise MissingPackage("diffusers", "a pipeline or transformer", 'pip install "easyteacache[diffusers]"')

from easyteacache.integrations.diffusers.attach import attach
from easyteacache.integrations.diffusers.experts import ExpertCaches
from easyteacache.integrations.diffusers.model_identity import configuration_name
from easyteacache.integrations.diffusers.models.adapter import Adapter, Argument, Blocks, Computed, FirstBlock, Output
from easyteacache.integrations.diffusers.models.registry import adapter_for, adapters, located, register_adapter
from easyteacache.integrations.diffusers.record_lookup import keys_for

__all__ = [
    "Adapter",
    "Argument",
    "Blocks",
    "Computed",
    "ExpertCaches",
    "FirstBlock",
    "Output",
    "adapter_for",
    "adapters",
    "attach",
    "configuration_name",
    "keys_for",
    "located",
    "register_adapter",
]
