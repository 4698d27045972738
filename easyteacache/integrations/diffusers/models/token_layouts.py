"""How the generated stream lies in a block's tensors, where it is not simply all of them; and how many tokens it has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

    Tokens = Callable[[torch.Tensor, Mapping[str, Any], nn.Module], int]
    Own = Callable[[torch.Tensor, Mapping[str, Any], nn.Module], torch.Tensor]


@dataclass(frozen=True)
class Layout:
    """Where the generated stream is in a block's tensor.

    Attributes:
        take: ``(value, head) -> own``: the stream's own part of ``value``, shaped like the first block's input ``head``.
        put: ``(value, own) -> value``: ``value`` with that part replaced; a new tensor.
    """

    take: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    put: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


#: The tensor is the stream.
ALONE = Layout(lambda value, head: value, lambda value, own: own)
#: Joined with another stream along the tokens, its own tokens first.
FRONT = Layout(
    lambda value, head: value[:, : head.shape[1]],
    lambda value, own: torch.cat((own, value[:, own.shape[1] :]), dim=1),
)
#: Joined with another stream along the tokens, its own tokens last.
BACK = Layout(
    lambda value, head: value[:, value.shape[1] - head.shape[1] :],
    lambda value, own: torch.cat((value[:, : value.shape[1] - own.shape[1]], own), dim=1),
)


def _by_frame(value: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    tokens = head.shape[1]
    return value.reshape(-1, tokens, *value.shape[1:]).transpose(1, 2).reshape(head.shape)


def _by_token(value: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    frames = value.shape[1]
    return own.reshape(-1, frames, *own.shape[1:]).transpose(1, 2).reshape(value.shape)


#: ``(B·tokens, frames, D)``, while the first block was given ``(B·frames, tokens, D)``.
TEMPORAL = Layout(_by_frame, _by_token)


def token_axes(head: torch.Tensor, _: Mapping[str, Any], __: nn.Module) -> int:
    """Every axis between batch and channels: ``(B, L, D)`` or ``(B, T, H, W, D)``."""
    return math.prod(head.shape[1:-1])


def rows(head: torch.Tensor, _: Mapping[str, Any], __: nn.Module) -> int:
    """A packed stream without batch axis: ``(L, D)``."""
    return head.shape[0]


def latent_rows(_: torch.Tensor, arguments: Mapping[str, Any], __: nn.Module) -> int:
    """A token for every row of the latent ``(B, L, C)``, where the first block's tensor holds other tokens too."""
    return int(arguments["hidden_states"].shape[1])


def patches(latent: str = "hidden_states") -> Tokens:
    """Patches of the latent ``(B, C, …)``, where the first block's tensor holds other tokens too."""

    def count(_: torch.Tensor, arguments: Mapping[str, Any], transformer: nn.Module) -> int:
        value = arguments[latent]
        sizes = value[0].shape[1:]
        return math.prod(size // patch for size, patch in zip(sizes, _patch(transformer, len(sizes)), strict=True))

    return count


def whole(value: torch.Tensor, _: Mapping[str, Any], __: nn.Module) -> torch.Tensor:
    """The first block's tensor holds the generated stream and nothing else, or as much of other tokens in every branch."""
    return value


def last(tokens: Tokens) -> Own:
    """The generated tokens stand behind others, of which branches have different numbers: ``(B, L, D)`` to ``(B, tokens, D)``."""

    def own(value: torch.Tensor, arguments: Mapping[str, Any], transformer: nn.Module) -> torch.Tensor:
        return value[:, value.shape[1] - tokens(value, arguments, transformer) :]

    return own


def after_prompt(mask: str, tokens: Tokens) -> Own:
    """The generated tokens follow as many as the prompt really has; what is left is padding, where a batch holds longer prompts.

    Args:
        mask: the transformer's argument ``(B, text)``, 1 where a prompt has a token.
        tokens: how many are generated.
    """

    def own(value: torch.Tensor, arguments: Mapping[str, Any], transformer: nn.Module) -> torch.Tensor:
        count = tokens(value, arguments, transformer)
        starts = arguments[mask].sum(dim=1).tolist()
        return torch.stack([sample[start : start + count] for sample, start in zip(value, starts, strict=True)])

    return own


def _patch(transformer: Any, axes: int) -> tuple[int, ...]:
    """Patch size per axis, time first."""
    config = transformer.config
    patch = config.get("patch_size", None) or config.all_patch_size[0]
    if isinstance(patch, (tuple, list)):
        return tuple(patch)
    time = config.get("patch_size_t", None) or (config.get("all_f_patch_size", None) or (1,))[0]
    return (patch,) * axes if axes < 3 else (time, patch, patch)


def values_per_token(transformer: Any) -> int | None:
    """Numbers of the latent that a token of the generated stream stands for: channels it gives times patch; None where nobody says."""
    config = getattr(transformer, "config", None)
    if config is None:
        return None
    channels = config.get("out_channels", None) or config.get("in_channels", None)
    patch = config.get("patch_size", None) or (config.get("all_patch_size", None) or (None,))[0]
    if isinstance(patch, int):
        patch = (config.get("patch_size_t", None) or 1, patch, patch)
    sizes = (channels, *patch) if isinstance(patch, (tuple, list)) else (None,)
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    return int(math.prod(sizes))
