"""Where the block stacks of ComfyUI's models lie: what a recorder has to see besides the output.

Read in ``comfy/ldm`` at a125cd84b054. The generated stream enters the first block as one tensor and leaves the last one alone, as one of
a pair, or joined with the text's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn


@dataclass(frozen=True)
class BlockStack:
    """The block stack of one class.

    Attributes:
        lists: its attributes that hold blocks, in the order in which they run.
        stream: name of the generated stream in the first block's call; it may come first without one.
        leaves: where it is in what the last block returns: the whole of it, its first or last tokens, or the second of a pair.
        known_as: what diffusers calls the same transformer, and records with it.
    """

    lists: tuple[str, ...]
    stream: str
    leaves: Literal["whole", "first", "last", "second"]
    known_as: str

    def ends(self, transformer: nn.Module) -> tuple[nn.Module, nn.Module]:
        """The first and the last block."""
        blocks = [block for name in self.lists for block in getattr(transformer, name)]
        return blocks[0], blocks[-1]

    def entering(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor:
        """(B, L, D) what enters the first block."""
        found = kwargs[self.stream] if self.stream in kwargs else args[0]
        assert isinstance(found, torch.Tensor)
        return found

    def leaving(self, output: Any, tokens: int) -> torch.Tensor:
        """(B, L, D) what leaves the last block, L ``tokens``."""
        found = output[1] if self.leaves == "second" else output
        assert isinstance(found, torch.Tensor)
        if self.leaves == "first":
            return found[:, :tokens]
        return found[:, found.shape[1] - tokens :] if self.leaves == "last" else found


STACKS: Mapping[str, BlockStack] = {
    "Flux": BlockStack(("double_blocks", "single_blocks"), "img", "last", "FluxTransformer2DModel"),
    "Chroma": BlockStack(("double_blocks", "single_blocks"), "img", "last", "ChromaTransformer2DModel"),
    "HunyuanVideo": BlockStack(("double_blocks", "single_blocks"), "img", "first", "HunyuanVideoTransformer3DModel"),
    "WanModel": BlockStack(("blocks",), "x", "whole", "WanTransformer3DModel"),
    "QwenImageTransformer2DModel": BlockStack(
        ("transformer_blocks",), "hidden_states", "second", "QwenImageTransformer2DModel"
    ),
}


def stack_of(transformer: nn.Module) -> BlockStack | None:
    """The block stack of a model; None where nobody has said."""
    return STACKS.get(type(transformer).__name__)
