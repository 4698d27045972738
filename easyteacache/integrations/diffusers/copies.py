"""Copies of an attached transformer come without its hooks.

A hook keeps the forward of the module it was put on. Copied with ``copy.deepcopy`` or ``pickle`` it would go on calling that module,
so the copy would run the original's weights. So each module with hooks says itself what a copy of it is made of. That is set on the
instance: the class, and every other instance, are left as they are.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from easyteacache.errors import AttachError

State = dict[str, Any]
_NAME = "__reduce_ex__"


def leave_out(module: nn.Module, strip: Callable[[State], None]) -> Callable[[], None]:
    """Have copies of ``module`` made of what ``strip`` leaves.

    Args:
        module: has hooks.
        strip: takes them out of a new dictionary of the module's attributes.

    Returns:
        What undoes it.
    """

    def reduce(protocol: Any) -> Any:
        kind: Any = type(module)
        how, arguments, state, *rest = kind.__reduce_ex__(module, protocol)
        state = dict(state)
        state.pop(_NAME, None)
        strip(state)
        return (how, arguments, state, *rest)

    setattr(module, _NAME, reduce)

    def undo() -> None:
        vars(module).pop(_NAME, None)

    return undo


def strip_handles(state: State, handles: set[int]) -> None:
    """Take the forward hooks of these ids out."""
    for name, hooks in state.items():
        if name.startswith(("_forward_hooks", "_forward_pre_hooks")):
            state[name] = type(hooks)((key, hook) for key, hook in hooks.items() if key not in handles)


def strip_forward(state: State, module: nn.Module, ours: Any, before: Any, name: str) -> None:
    """Take a hook of diffusers out: its registry, and what it made of ``forward``.

    Args:
        state: attributes of the copy to come.
        module: that is copied.
        ours: the forward that the hook put there.
        before: the forward that it found.
        name: of the hook.

    Raises:
        AttachError: hooks of others are there, or something wraps ours, which a copy would share with the original.
    """
    others = sorted({one for part in module.modules() for one in _hooks_of(part)} - {name})
    if others:
        raise AttachError(
            f"this {type(module).__name__} has an EasyTeaCache and other hooks of diffusers ({', '.join(others)}), and their copies "
            "would go on calling the original: take them off, or copy a model that was loaded anew"
        )
    state.pop("_diffusers_hook", None)
    plain = isinstance(before, types.MethodType) and before.__self__ is module
    plain = plain and before.__func__ is type(module).forward
    if state.get("forward") is ours:
        state["forward"] = before
        if plain:
            del state["forward"]
    elif state.get("_old_forward") is ours:
        # Offloading by accelerate came later and keeps the forward it found.
        state["_old_forward"] = before
    elif state.get("forward", before) is not before:
        raise AttachError(
            f"the forward of this {type(module).__name__} was replaced after an EasyTeaCache was attached, and a copy's would go on "
            "calling the original: put it back before copying, or call cache.detach()"
        )


def _hooks_of(module: nn.Module) -> Iterable[str]:
    registry = getattr(module, "_diffusers_hook", None)
    return () if registry is None else registry.hooks
