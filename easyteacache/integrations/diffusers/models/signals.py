"""Take a calibration's signal from a running model, as its first block begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from easyteacache.errors import SignalMismatch
from easyteacache.integrations.diffusers.models.adapter import Adapter, Argument, Computed, FirstBlock, Output, Source

if TYPE_CHECKING:
    import torch
    from torch import nn

# What the original project's files call it: the time projection handed to the blocks.
SEED_SIGNAL = "t_mod"


def source_of(adapter: Adapter, signal: str) -> Source:
    """Where ``signal`` is found in the adapter's class.

    Raises:
        SignalMismatch: it is ``unknown``, or this class does not offer it.
    """
    name = "timestep_projection" if signal == SEED_SIGNAL else signal
    if name == "unknown":
        raise SignalMismatch(
            name,
            " or ".join(adapter.signal_names),
            "Its source does not say what it was fitted to, so it can be read but not applied.",
        )
    source = adapter.source(name)
    if source is None:
        raise SignalMismatch(
            name,
            " or ".join(adapter.signal_names),
            f"{adapter.transformer} does not have that signal: choose a calibration for one of these.",
        )
    return source


def extract(
    source: Source, block: nn.Module, arguments: Mapping[str, Any], outputs: dict[Output, Any]
) -> torch.Tensor | None:
    """The signal at this step, or None when it is only known after the first block (``FirstBlock``).

    Args:
        source: from ``source_of``.
        block: the first block.
        arguments: its arguments.
        outputs: what ``watch`` has collected in this forward.
    """
    if isinstance(source, Argument):
        value = arguments[source.name]
        return value if source.pick is None else source.pick(value)  # type: ignore[no-any-return]
    if isinstance(source, Output):
        if source not in outputs:
            raise SignalMismatch(
                source.module, "nothing", f"The submodule {source.module!r} did not run before the blocks."
            )
        return outputs[source]  # type: ignore[no-any-return]
    if isinstance(source, Computed):
        return source.of(block, arguments)
    assert isinstance(source, FirstBlock)
    return None


def watch(source: Source, transformer: nn.Module, collect: Callable[[Output, Any], None]) -> Any:
    """Hand a submodule's output to ``collect`` whenever it runs; returns a handle with ``remove``, or None."""
    if not isinstance(source, Output):
        return None

    def after(_: nn.Module, __: Any, output: Any) -> None:
        collect(source, output if source.index is None else output[source.index])

    return transformer.get_submodule(source.module).register_forward_hook(after)
