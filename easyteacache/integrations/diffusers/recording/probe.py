"""Where one transformer shows its blocks and signals, from the adapter table that attaching uses, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.forward_state import Arguments
from easyteacache.integrations.diffusers.models.adapter import Blocks, Output
from easyteacache.integrations.diffusers.models.registry import adapter_for, located
from easyteacache.integrations.diffusers.models.signals import extract, source_of
from easyteacache.records.calibration import Signal


class Probe:
    """Reads what is recorded of one transformer.

    Args:
        transformer: a diffusers transformer.

    Raises:
        AttachError: no adapter covers its class, or the adapter refuses this instance.
    """

    def __init__(self, transformer: nn.Module) -> None:
        self.adapter = adapter_for(transformer)
        reason = self.adapter.refuses(transformer)
        if reason is not None:
            raise AttachError(reason)
        self._transformer = transformer
        blocks = located(self.adapter, transformer)
        (self._first, self.head), (self._last, self.tail) = blocks[0], blocks[-1]
        self._stream = self.adapter.streams[0]

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Every signal this class offers."""
        return cast(tuple[Signal, ...], self.adapter.signal_names)

    def outputs(self, signals: tuple[Signal, ...]) -> tuple[Output, ...]:
        """The submodule outputs among the sources of ``signals``."""
        sources = (source_of(self.adapter, name) for name in signals)
        return tuple(source for source in sources if isinstance(source, Output))

    def block_input(self, arguments: Arguments) -> Tensor:
        """The generated stream as the first block is given it."""
        return cast(Tensor, arguments.required(self._stream))

    def head_output(self, result: Any, block_input: Tensor) -> Tensor:
        """The generated stream after the first block, shaped like ``block_input``."""
        return _own_part(self._first, self._stream, result, block_input)

    def tail_output(self, result: Any, block_input: Tensor) -> Tensor:
        """The generated stream after the last block, shaped like ``block_input``."""
        return _own_part(self._last, self._stream, result, block_input)

    def signal(self, name: Signal, arguments: Arguments, outputs: dict[Output, Any]) -> Tensor | None:
        """One signal as the first block begins; None for what is only known after it."""
        return extract(source_of(self.adapter, name), self.head, arguments, outputs)

    def sequence_length(self, block_input: Tensor, arguments: Mapping[str, Any]) -> int:
        """Tokens of the generated stream, from what enters the blocks and the transformer's own arguments."""
        return self.adapter.tokens(block_input, arguments, self._transformer)

    def own(self, stream: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        """The generated tokens of ``(B, L, D)``, the stream as tokens, where branches have different numbers of others beside them."""
        return self.adapter.own(stream, arguments, self._transformer)


def as_tokens(stream: Tensor) -> Tensor:
    """``(B, L, D)`` from that, from ``(B, T, H, W, D)``, or from a packed ``(L, D)``."""
    return stream.unsqueeze(0) if stream.dim() == 2 else stream.flatten(1, -2)


def _own_part(blocks: Blocks, stream: str, result: Any, block_input: Tensor) -> Tensor:
    value = result[blocks.returns.index(stream)] if len(blocks.returns) > 1 else result
    return blocks.layout.take(value, block_input)
