"""Tell guidance branches apart where a pipeline sets no cache context.

A residual may only be reused for the conditioning it was computed with. So a forward without a context belongs to the branch
whose conditioning tensors it carries: the same objects (a pipeline computes its text embeddings once), or equal values. A
conditioning that was never seen gives a branch of its own, which computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from easyteacache.runtime.branch_state import DEFAULT_BRANCH
from easyteacache.runtime.tensor_math import alike


class Branches:
    """The branches of one run, by their conditioning.

    Args:
        names: the transformer's arguments that carry the conditioning.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._known: list[tuple[tuple[Any, ...], tuple[int, ...]]] = []

    def clear(self) -> None:
        """Forget every branch and let go of its conditioning."""
        self._known.clear()

    def name(self, arguments: Mapping[str, Any]) -> str:
        """The branch of this forward; a new one when its conditioning was not seen in this run."""
        # The tensors are held, so that their memory cannot be given to another branch's while the run lasts.
        conditioning = tuple(arguments.get(name) for name in self._names)
        for same in (_identical, _equal):
            for position, (known, versions) in enumerate(self._known):
                # Written to since it was seen: what it held then is gone, so nothing can be shown to equal it.
                if _versions(known) == versions and same(conditioning, known):
                    return _named(position)
        self._known.append((conditioning, _versions(conditioning)))
        return _named(len(self._known) - 1)


def _named(position: int) -> str:
    return DEFAULT_BRANCH if position == 0 else f"{DEFAULT_BRANCH}-{position + 1}"


def _versions(value: Any) -> tuple[int, ...]:
    """How often each tensor was written to in place; tensors of inference mode do not count it."""
    if isinstance(value, torch.Tensor):
        return () if value.is_inference() else (value._version,)
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        return tuple(version for item in value for version in _versions(item))
    return ()


def _identical(a: Any, b: Any) -> bool:
    """The same tensors in memory; no device is waited for."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a is b or (alike(a, b) and a.data_ptr() == b.data_ptr() and a.stride() == b.stride())
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_identical, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_identical(a[key], b[key]) for key in a)
    return a is b


def _equal(a: Any, b: Any) -> bool:
    """The same values; waits for the device when the shapes agree."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return _identical(a, b) or (alike(a, b) and torch.equal(a, b))
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return False
    return bool(a == b)
