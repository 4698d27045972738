"""Find the adapter of a transformer, and its blocks; a class that is not in ``table`` is added with ``register_adapter``."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.models import table
from easyteacache.integrations.diffusers.models.adapter import Adapter, Blocks

if TYPE_CHECKING:
    from torch import nn

_REGISTERED: dict[str, Adapter] = {adapter.transformer: adapter for adapter in table.ADAPTERS}


def register_adapter(adapter: Adapter) -> Adapter:
    """Make a transformer class known, or replace what is known of it; returns the adapter.

    Raises:
        AttachError: the adapter names no blocks, or a stream that its last blocks do not hand on.
    """
    if not adapter.blocks:
        raise AttachError(f"the adapter for {adapter.transformer} names no block lists")
    handed_on = adapter.blocks[-1].returns
    missing = [stream for stream in adapter.streams if stream not in handed_on]
    if missing:
        raise AttachError(
            f"the adapter for {adapter.transformer}: the last blocks return {handed_on}, which lacks the stream {missing[0]!r}"
        )
    _REGISTERED[adapter.transformer] = adapter
    return adapter


def adapters() -> tuple[Adapter, ...]:
    """Every known adapter, by class name."""
    return tuple(_REGISTERED[name] for name in sorted(_REGISTERED))


def adapter_for(module: nn.Module) -> Adapter:
    """The adapter for a transformer.

    A subclass is covered by its base's adapter as long as it does not replace ``forward``.

    Raises:
        AttachError: there is none; the message says how to add one.
    """
    kind = type(module)
    for base in kind.__mro__:
        if base.__name__ in _REGISTERED and getattr(base, "forward", None) is getattr(kind, "forward", None):
            return _REGISTERED[base.__name__]
    raise AttachError(
        f"no adapter for {kind.__name__}. If it is a transformer with one list of blocks, add one:\n\n"
        "    from easyteacache.integrations.diffusers import Adapter, Blocks, register_adapter\n"
        f"    register_adapter(Adapter({kind.__name__!r}, (Blocks('transformer_blocks'),)))\n\n"
        "docs/attach.md explains every field. Covered today: " + ", ".join(sorted(_REGISTERED))
    )


def located(adapter: Adapter, module: nn.Module) -> list[tuple[Blocks, nn.Module]]:
    """Every block of ``module`` in the order it runs, with the list it belongs to.

    Raises:
        AttachError: a list is missing, or there are fewer than two blocks.
    """
    found: list[tuple[Blocks, nn.Module]] = []
    for blocks in adapter.blocks:
        try:
            modules: Sequence[nn.Module] = list(operator.attrgetter(blocks.path)(module))
        except (AttributeError, TypeError):
            if blocks.optional:
                continue
            raise AttachError(
                f"{type(module).__name__} has no block list {blocks.path!r}, which its adapter names: "
                "another release of diffusers? Register an adapter for this one"
            ) from None
        found.extend((blocks, block) for block in modules)
    if len(found) < 2:
        raise AttachError(f"{type(module).__name__} has {len(found)} block(s): nothing can be skipped")
    return found
