"""One forward of a transformer: its arguments by name, what its hooks share, and how a block is skipped."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.models.adapter import Blocks, Output
from easyteacache.runtime.session import Decision, Place

# Arguments -----------------------------------------------------------------------------------------------------------


@functools.cache
def parameter_names(kind: Any) -> tuple[str, ...]:
    """The names of a class's ``forward``, without ``self``: hooks replace an instance's ``forward``, never the class's."""
    return tuple(inspect.signature(kind.forward).parameters)[1:]  # type: ignore[attr-defined]


@functools.cache
def _positions(kind: type) -> dict[str, int]:
    return {name: position for position, name in enumerate(parameter_names(kind))}


def bound(names: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name as a plain dictionary, which ``torch.compile`` can trace."""
    return {**dict(zip(names, args, strict=False)), **kwargs}


class Arguments(Mapping[str, Any]):
    """The arguments of one call of a module, by the names of its class's ``forward``.

    Args:
        kind: the module's class.
        args, kwargs: as the caller passed them.
    """

    __slots__ = ("_args", "_kind", "_kwargs", "_where")

    def __init__(self, kind: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._kind, self._args, self._kwargs = kind, args, kwargs
        self._where = _positions(kind)

    def __getitem__(self, name: str) -> Any:
        if name in self._kwargs:
            return self._kwargs[name]
        position = self._where.get(name)
        if position is None or position >= len(self._args):
            raise KeyError(name)
        return self._args[position]

    def __iter__(self) -> Iterator[str]:
        return (name for name in dict.fromkeys((*self._where, *self._kwargs)) if self._has(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _has(self, name: str) -> bool:
        return name in self._kwargs or self._where.get(name, len(self._args)) < len(self._args)

    def required(self, name: str) -> Any:
        """The argument ``name``.

        Raises:
            AttachError: the caller passed none.
        """
        try:
            return self[name]
        except KeyError:
            raise AttachError(
                f"{self._kind.__name__}.forward was called without {name!r}, which the adapter of this model needs; "
                f"it was given {', '.join(self) or 'nothing'}"
            ) from None


# What the hooks share ------------------------------------------------------------------------------------------------


@dataclass
class Capture:
    """What the hooks see while a forward runs.

    Attributes:
        collected: outputs of submodules that the signal is taken from.
        signal: the signal's tensor, where it was read.
        heads: the streams entering the first block, each ``(B, L, D)``.
        streams: what ``heads`` become at a reused step, before anything can change them in place.
        skipping: the first block came by and blocks are skipped.
        truth: what a forecast is made for, as a computed step found it.
        returned: what the transformer returned; in a branch's first forward of a run the length is not known before, on which it
            depends whether the output is forecast.
    """

    collected: dict[Output, Any] = field(default_factory=dict)
    signal: torch.Tensor | None = None
    heads: dict[str, torch.Tensor] = field(default_factory=dict)
    streams: dict[str, torch.Tensor] = field(default_factory=dict)
    skipping: bool = False
    truth: torch.Tensor | None = None
    returned: Any = None


@dataclass
class Forward:
    """One forward: its arguments by name, where it belongs, what was decided (None: not yet), and what was seen of it.

    What is predicted of it is what a reused step adds to ``Capture.heads``, what leaves the blocks, or the output; several streams come
    flattened into one ``(B, N)``.
    """

    arguments: Mapping[str, Any]
    place: Place
    decision: Decision | None = None
    seen: Capture = field(default_factory=Capture)


# Skipping a block ----------------------------------------------------------------------------------------------------


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
    """The sample in what a transformer returned; a list of equally large ones, as Z-Image gives them, is one batch.

    Raises:
        AttachError: it is neither.
    """
    sample = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
    if isinstance(sample, torch.Tensor):
        return sample
    if isinstance(sample, list) and len({getattr(one, "shape", None) for one in sample} - {None}) == 1:
        return torch.stack(sample)
    raise AttachError(
        f"the model returns {type(sample).__name__}, neither one tensor nor a list of equally large ones: its output can be neither recorded "
        "nor corrected; choose an operating point that does not correct"
    )


def with_sample(output: Any, sample: torch.Tensor) -> Any:
    """The same output with another sample."""
    held = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
    given = list(sample.unbind()) if isinstance(held, list) else sample
    if isinstance(output, tuple):
        return (given, *output[1:])
    return given if held is output else replace(output, sample=given)


def outputs(output: Any) -> torch.Tensor:
    """Everything that a transformer returned: its tensor, or several as one vector."""
    found = list(_tensors(output))
    return found[0] if len(found) == 1 else torch.cat([tensor.flatten() for tensor in found])


def with_outputs(output: Any, values: torch.Tensor) -> Any:
    """The same output with the tensors that ``outputs`` would take from it, new ones."""
    found = list(_tensors(output))
    if len(found) == 1:
        parts = [values.to(found[0].device).to(found[0].dtype).clone()]
    else:
        vector = values.to(found[0].device)
        split = torch.split(vector, [tensor.numel() for tensor in found])
        parts = [part.view_as(tensor).to(tensor.dtype).clone() for part, tensor in zip(split, found, strict=True)]
    return _refilled(output, iter(parts))


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
        return
    for value in _items(output):
        yield from _tensors(value)


def _items(output: Any) -> Sequence[Any]:
    # The outputs of diffusers are dataclasses; what is neither, such as None or a number, holds no tensor.
    if is_dataclass(output):
        return [getattr(output, entry.name) for entry in fields(output)]
    return output if isinstance(output, (tuple, list)) else ()


def _refilled(output: Any, parts: Iterator[torch.Tensor]) -> Any:
    if isinstance(output, torch.Tensor):
        return next(parts)
    items = [_refilled(value, parts) for value in _items(output)]
    if is_dataclass(output) and not isinstance(output, type):
        return replace(output, **{entry.name: item for entry, item in zip(fields(output), items, strict=True)})
    return type(output)(items) if isinstance(output, (tuple, list)) else output
