"""One forward of an attached transformer: what its hooks share, and how a block is skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.adapters import Blocks, Output

if TYPE_CHECKING:
    from easyteacache.branch import BranchState


@dataclass
class Forward:
    """What the hooks of one forward share.

    Attributes:
        arguments: the transformer's arguments by name.
        branch, step: where it belongs.
        state: the branch's state; None at the first forward of a branch in a run, which is computed whatever the signal says.
        sigma, coordinate: noise level, and the forecaster's coordinate where that is not the step.
        distance: the signal distance to the previous step where it is known without the signal.
        wants_signal: the signal's tensor has to be read.
        decided, reuse: whether it was decided yet, and how.
        of_output: the model's output is forecast instead of the blocks' residual.
        heads: the streams entering the first block, each ``(B, L, D)``.
        tokens: sequence length of the generated stream.
        forecast: what a reused step adds to ``heads``; several streams come flattened into one ``(B, N)``.
        truth: the same quantity as a computed step found it.
        collected: outputs of submodules that the signal is taken from.
    """

    arguments: Mapping[str, Any]
    branch: str
    step: int
    state: BranchState | None = None
    sigma: float | None = None
    coordinate: float | None = None
    distance: float | None = None
    wants_signal: bool = True
    decided: bool = False
    reuse: bool = False
    of_output: bool = False
    signal: torch.Tensor | None = None
    heads: tuple[torch.Tensor, ...] = ()
    tokens: int = 0
    forecast: torch.Tensor | None = None
    truth: torch.Tensor | None = None
    collected: dict[Output, Any] = field(default_factory=dict)


def skipped(blocks: Blocks, arguments: Mapping[str, Any]) -> Any:
    """What a skipped block returns: its own arguments, in the layout of its list."""
    values = tuple(None if name.startswith("_") else arguments[name] for name in blocks.returns)
    return values if len(values) > 1 else values[0]


def residuals(blocks: Blocks, output: Any, forward: Forward, streams: tuple[str, ...]) -> torch.Tensor:
    """What the blocks added to each stream: last block's output − first block's input; several come as one ``(B, N)``."""
    found = [
        _own_tokens(blocks, _returned(blocks, output, name), head) - head
        for name, head in zip(streams, forward.heads, strict=True)
    ]
    return found[0] if len(found) == 1 else torch.cat([residual.flatten(1) for residual in found], dim=1)


def filled(blocks: Blocks, arguments: Mapping[str, Any], forward: Forward, streams: tuple[str, ...]) -> Any:
    """What the last block returns at a reused step: each stream is head input + forecast residual."""
    output = skipped(blocks, arguments)
    assert forward.forecast is not None
    forecast = forward.forecast.to(forward.heads[0].device, non_blocking=True)
    start = 0
    for name, head in zip(streams, forward.heads, strict=True):
        part = forecast
        if len(streams) > 1:
            size = head[0].numel()
            part = forecast[:, start : start + size].view_as(head)
            start += size
        value = (head + part).to(head.dtype)
        output = _replaced(blocks, output, name, _joined(blocks, arguments[name], value))
    return output


def _returned(blocks: Blocks, output: Any, name: str) -> torch.Tensor:
    return output[blocks.returns.index(name)] if len(blocks.returns) > 1 else output  # type: ignore[no-any-return]


def _replaced(blocks: Blocks, output: Any, name: str, value: torch.Tensor) -> Any:
    if len(blocks.returns) == 1:
        return value
    where = blocks.returns.index(name)
    return (*output[:where], value, *output[where + 1 :])


def _own_tokens(blocks: Blocks, value: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """The generated stream's tokens of a tensor that may hold another stream's too."""
    if blocks.joined is None:
        return value
    count = head.shape[1]
    return value[:, :count] if blocks.joined == "front" else value[:, value.shape[1] - count :]


def _joined(blocks: Blocks, whole: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    if blocks.joined is None:
        return own
    count = own.shape[1]
    if blocks.joined == "front":
        return torch.cat((own, whole[:, count:]), dim=1)
    return torch.cat((whole[:, : whole.shape[1] - count], own), dim=1)


def sample_of(output: Any) -> torch.Tensor:
    """The sample in what a transformer returned.

    Raises:
        AttachError: it is no single tensor.
    """
    sample = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
    if not isinstance(sample, torch.Tensor):
        raise AttachError(
            f"the operating point forecasts the model's output, but this model returns {type(sample).__name__}, not one "
            "tensor: choose an operating point that forecasts the residual"
        )
    return sample


def with_sample(output: Any, sample: torch.Tensor) -> Any:
    """The same output with another sample."""
    if isinstance(output, tuple):
        return (sample, *output[1:])
    return sample if isinstance(output, torch.Tensor) else replace(output, sample=sample)
