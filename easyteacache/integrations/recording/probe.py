"""Where one transformer shows its blocks and signals, from the adapter table that attaching uses, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from easyteacache.calibration import Signal
from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.adapters import Blocks, Output, adapter_for, located
from easyteacache.integrations.diffusers.arguments import Arguments
from easyteacache.integrations.diffusers.signals import extract, source_of


class Probe:
    """Reads what is recorded of one transformer.

    Args:
        transformer: a diffusers transformer.

    Raises:
        AttachError: no adapter covers its class.
    """

    def __init__(self, transformer: nn.Module) -> None:
        self.adapter = adapter_for(transformer)
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
        """``(B, L, D)`` the generated stream entering the first block."""
        stream = arguments.required(self._stream)
        if self._first.joined is not None:
            raise AttachError(
                f"{self.adapter.transformer} joins its streams before the first block; such a model cannot be recorded yet"
            )
        return cast(Tensor, stream)

    def head_output(self, result: Any, length: int) -> Tensor:
        """``(B, L, D)`` the generated stream after the first block; ``length`` tokens of it went in."""
        return _stream_of(self._first, self._stream, result, length)

    def tail_output(self, result: Any, length: int) -> Tensor:
        """``(B, L, D)`` the generated stream after the last block."""
        return _stream_of(self._last, self._stream, result, length)

    def signal(self, name: Signal, arguments: Arguments, outputs: dict[Output, Any]) -> Tensor | None:
        """One signal as the first block begins; None for what is only known after it."""
        return extract(source_of(self.adapter, name), self.head, arguments, outputs)

    def sequence_length(self, stream: Tensor, arguments: Mapping[str, Any]) -> int:
        """Tokens of the generated stream, from what enters the blocks and the transformer's own arguments."""
        tokens = self.adapter.tokens
        return int(stream.shape[1]) if tokens is None else tokens(stream, arguments)


def _stream_of(blocks: Blocks, stream: str, result: Any, length: int) -> Tensor:
    value = (
        result if len(blocks.returns) == 1 and not isinstance(result, tuple) else result[blocks.returns.index(stream)]
    )
    if blocks.joined == "front":
        value = value[:, :length]
    elif blocks.joined == "back":
        value = value[:, -length:]
    return cast(Tensor, value)
