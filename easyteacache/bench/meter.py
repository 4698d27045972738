"""Count the work that is really done, and leave the model as it was found.

A cache wraps or skips the ``forward`` of blocks or of their parts. So the count is taken below every wrapper, in a module's own
``forward``, put there before the cache comes: what a cache skips never reaches it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from easyteacache.integrations.diffusers import adapter_for, located

# What `nn.Module.__dict__` holds as containers, which hooks change in place.
_CONTAINERS = (dict, list, set)


@dataclass
class Work:
    """Work of one run, in samples: a forward of two samples counts twice.

    Attributes:
        blocks: calls of transformer blocks.
        parts: calls of their attention, feed-forward and projection layers, each weighted with its number of weights.
    """

    blocks: float = 0.0
    parts: float = 0.0

    def of(self, unit: str) -> float:
        """The count in ``blocks`` or ``parts``."""
        return self.blocks if unit == "blocks" else self.parts


class Meter:
    """Counts on some transformers.

    Args:
        transformers: of classes that have an adapter.

    Raises:
        AttachError: a class has none.
    """

    def __init__(self, transformers: Sequence[nn.Module]) -> None:
        self._transformers = tuple(transformers)
        self._blocks = [block for t in transformers for _, block in located(adapter_for(t), t)]
        self.work = Work()

    @property
    def block_count(self) -> int:
        """Blocks of all transformers together."""
        return len(self._blocks)

    def reset(self) -> None:
        """Begin a new count."""
        self.work = Work()

    @contextlib.contextmanager
    def counting(self) -> Iterator[Meter]:
        """Count inside the block; whatever else was put on the transformers in it is gone afterwards."""
        with contextlib.ExitStack() as stack:
            for transformer in self._transformers:
                stack.enter_context(untouched(transformer))
            for block in self._blocks:
                _wrap(block, self._count_block)
                for part in block.children():
                    weight = _linear_weights(part)
                    if weight:
                        _wrap(part, functools.partial(self._count_part, weight))
            yield self

    def _count_block(self, samples: int) -> None:
        self.work.blocks += samples

    def _count_part(self, weight: int, samples: int) -> None:
        self.work.parts += weight * samples


@contextlib.contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Give ``module`` and everything below it back exactly as they were, whatever is attached inside the block."""
    before = [(one, dict(one.__dict__), _contents(one)) for one in module.modules()]
    try:
        yield
    finally:
        for one, attributes, contents in before:
            one.__dict__.clear()
            one.__dict__.update(attributes)
            for name, content in contents.items():
                container: Any = attributes[name]
                container.clear()
                container.extend(content) if isinstance(container, list) else container.update(content)


def _contents(module: nn.Module) -> dict[str, Any]:
    return {
        name: type(value)(value)
        for name, value in module.__dict__.items()
        if type(value).__module__ in ("builtins", "collections") and isinstance(value, _CONTAINERS)
    }


def _wrap(module: nn.Module, count: Callable[[int], None]) -> None:
    original = module.forward

    @functools.wraps(original)
    def counted(*args: Any, **kwargs: Any) -> Any:
        count(_samples(args, kwargs))
        return original(*args, **kwargs)

    # Into the instance's dictionary past `nn.Module`, which has nothing to say about a function.
    module.__dict__["forward"] = counted


def _samples(args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.ndim:
            return int(value.shape[0])
    return 1


def _linear_weights(module: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))
