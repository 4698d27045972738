"""The transformers of a pipeline: one, or two experts that share the sampler's steps."""

from __future__ import annotations

from typing import Any

from torch import nn

from easyteacache.errors import AttachError

#: Component of a two-expert pipeline → the last part of its model key (Wan2.2 calls them so), in the order in which they run.
PARTS = {"transformer": "high-noise", "transformer_2": "low-noise"}


def is_pipeline(target: Any) -> bool:
    """Is it a pipeline rather than a model?"""
    return hasattr(target, "scheduler") and not isinstance(target, nn.Module)


def parts_of(pipe: Any) -> dict[str, Any]:
    """The transformers of a pipeline by component name, in the order in which they run.

    Raises:
        AttachError: it is no pipeline, or there is none.
    """
    found = {} if isinstance(pipe, type) else {name: getattr(pipe, name, None) for name in PARTS}
    present = {name: module for name, module in found.items() if module is not None}
    if not present:
        raise AttachError(_lacking(pipe))
    return present


def _lacking(pipe: Any) -> str:
    """What is wrong with a target that has no transformer."""
    if isinstance(pipe, type):
        return f"expected a diffusers pipeline, found the class {pipe.__name__}"
    if not is_pipeline(pipe):
        return f"expected a diffusers pipeline, found {type(pipe).__name__}"
    if any(hasattr(pipe, name) for name in PARTS):
        return f"the transformer of this {type(pipe).__name__} is None: load the pipeline with its transformer"
    return (
        f"{type(pipe).__name__} has no transformer: the cache skips the blocks of a diffusion transformer, "
        "so a U-Net pipeline cannot use it"
    )


def guidance_of(pipe: Any) -> float | None:
    """The guidance scale that a pipeline was called with; None where it keeps none."""
    found = getattr(pipe, "_guidance_scale", None)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) and found >= 0 else None
