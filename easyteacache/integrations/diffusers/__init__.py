"""The cache on diffusers pipelines: by diffusers' own hooks, on any transformer class with an adapter."""

from __future__ import annotations

from easyteacache.integrations.diffusers.adapters import (
    Adapter,
    Argument,
    Blocks,
    Computed,
    FirstBlock,
    Output,
    adapter_for,
    adapters,
    located,
    register_adapter,
)
from easyteacache.integrations.diffusers.attach import attach
from easyteacache.integrations.diffusers.keys import configuration_name, keys_for
from easyteacache.integrations.diffusers.parts import ExpertCaches

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
