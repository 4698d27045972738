"""One forward of an attached transformer: what its hooks share, and how a block is skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.models.adapter import Blocks, Output

if TYPE_CHECKING:
    from easyteacache.runtime.branch_state import BranchState


@dataclass(frozen=True)
class Place:
    """Where a forward belongs, and what is known of its step before the blocks run.

    Attributes:
        branch, step: of the run.
        state: the branch's state; None at the first forward of a branch in a run, which is computed whatever the signal says.
        sigma, coordinate: noise level, and the predictor's coordinate where that is not the step.
        distance: the signal distance to the previous step where it is known without the signal.
        target: what is predicted, ``residual``, ``feature`` or ``output``; while ``state`` is None, what the run's policy says before the
            length is known.
        reads_signal: the signal's tensor has to be read.
    """

    branch: str
    step: int
    state: BranchState | None = None
    sigma: float | None = None
    coordinate: float | None = None
    distance: float | None = None
    target: str = "residual"
    reads_signal: bool = False

    @property
    def of_output(self) -> bool:
        """The model's output is predicted, and nothing of its blocks."""
        return self.target == "output"


@dataclass(frozen=True)
class Decision:
    """What is done with a forward; it does not change once it is taken.

    Attributes:
        reuse: the blocks are to be skipped.
        forecast: what a reused step adds to ``Capture.heads``, what leaves the blocks, or the output; several streams come flattened
            into one ``(B, N)``.
    """

    reuse: bool
    forecast: torch.Tensor | None = None


COMPUTED = Decision(reuse=False)


@dataclass
class Capture:
    """What the hooks see while a forward runs.

    Attributes:
        collected: outputs of submodules that the signal is taken from.
        signal: the signal's tensor, where it was read.
        heads: the streams entering the first block, each ``(B, L, D)``.
        tokens: sequence length of the generated stream.
        streams: what ``heads`` become at a reused step, before anything can change them in place.
        skipping: the first block came by and blocks are skipped.
        truth: what a forecast is made for, as a computed step found it.
        returned: what the transformer returned; in a branch's first forward of a run the length is not known before, on which it
            depends whether the output is forecast.
    """

    collected: dict[Output, Any] = field(default_factory=dict)
    signal: torch.Tensor | None = None
    heads: dict[str, torch.Tensor] = field(default_factory=dict)
    tokens: int = 0
    streams: dict[str, torch.Tensor] = field(default_factory=dict)
    skipping: bool = False
    truth: torch.Tensor | None = None
    returned: Any = None


@dataclass
class Forward:
    """One forward: its arguments by name, where it belongs, what was decided (None: not yet), and what was seen of it."""

    arguments: Mapping[str, Any]
    place: Place
    decision: Decision | None = None
    seen: Capture = field(default_factory=Capture)


def skipped(blocks: Blocks, arguments: Mapping[str, Any]) -> Any:
    """What a skipped block returns: its own arguments, in the layout of its list."""
    values = tuple(arguments[name] for name in blocks.returns)
    return values if len(values) > 1 else values[0]


def entering(arguments: Mapping[str, Any], streams: Sequence[str]) -> dict[str, torch.Tensor]:
    """The streams entering the first block; one that is None is left out."""
    found = {name: arguments[name] for name in streams}
    return {name: value for name, value in found.items() if value is not None}


def residuals(blocks: Blocks, output: Any, heads: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What the blocks added to each stream: a block's output − the first one's input; several come as one ``(B, N)``."""
    return _together([left - head for left, head in zip(_leaving(blocks, output, heads), heads.values(), strict=True)])


def features(blocks: Blocks, output: Any, heads: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What leaves the blocks in each stream, a new tensor; several come as one ``(B, N)``."""
    left = _leaving(blocks, output, heads)
    # A copy, because the model may go on to change what it reads.
    return left[0].detach().clone() if len(left) == 1 else _together(left)


def _leaving(blocks: Blocks, output: Any, heads: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    several = len(blocks.returns) > 1
    return [
        blocks.layout.take(output[blocks.returns.index(name)] if several else output, head)
        for name, head in heads.items()
    ]


def _together(streams: list[torch.Tensor]) -> torch.Tensor:
    return streams[0] if len(streams) == 1 else torch.cat([stream.flatten(1) for stream in streams], dim=1)


def added(heads: Mapping[str, torch.Tensor], forecast: torch.Tensor) -> dict[str, torch.Tensor] | None:
    """Each stream + its forecast residual, new tensors; None when the residual is of another shape."""
    parts = _apart(heads, forecast)
    return None if parts is None else {name: head + parts[name] for name, head in heads.items()}


def replaced(heads: Mapping[str, torch.Tensor], forecast: torch.Tensor) -> dict[str, torch.Tensor] | None:
    """Each stream's forecast, new tensors; None when the forecast is of another shape."""
    parts = _apart(heads, forecast)
    return None if parts is None else {name: parts[name].clone() for name in heads}


def _apart(heads: Mapping[str, torch.Tensor], forecast: torch.Tensor) -> dict[str, torch.Tensor] | None:
    """The forecast's share of each stream, in its shape; None when it is of another shape."""
    first, *others = heads.values()
    forecast = forecast.to(first.device, non_blocking=True)
    if not others:
        return dict.fromkeys(heads, forecast) if forecast.shape == first.shape else None
    sizes = [head[0].numel() for head in heads.values()]
    if forecast.shape != (first.shape[0], sum(sizes)):
        return None
    parts = torch.split(forecast, sizes, dim=1)
    return {name: part.view_as(head) for (name, head), part in zip(heads.items(), parts, strict=True)}


def filled(blocks: Blocks, arguments: Mapping[str, Any], streams: Mapping[str, torch.Tensor]) -> Any:
    """What the last block returns at a reused step, its streams overwritten."""
    values = [
        blocks.layout.put(arguments[name], streams[name]) if name in streams else arguments[name]
        for name in blocks.returns
    ]
    return tuple(values) if len(values) > 1 else values[0]


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
