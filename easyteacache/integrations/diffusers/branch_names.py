"""Tell guidance branches apart where a pipeline sets no cache context, and notice where one goes on with another conditioning.

A residual may only be reused for the conditioning it was computed with. So a forward without a context belongs to the branch
whose conditioning tensors it carries: the same objects (a pipeline computes its text embeddings once), or equal values. A
conditioning that was never seen gives a branch of its own, which computes. A forward with a context belongs to the branch of that
name, which computes at the first step whose conditioning is another than that of the step before.

What a conditioning held is copied when it is first seen: it may be written to in place, and tensors of inference mode do not even
count that. As long as the same tensors come unwritten, no value is looked at and no device is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from easyteacache.runtime.branch_state import DEFAULT_BRANCH
from easyteacache.runtime.tensor_math import alike

#: Beginnings of the names under which transformers take what describes the sample: texts, images, and their masks.
_DESCRIBING = ("encoder_hidden_states", "encoder_attention_mask", "pooled_", "image_embeds")


def describing(parameters: Sequence[str], conditioning: Sequence[str]) -> tuple[str, ...]:
    """A forward's parameters that carry conditioning: those of the adapter, and others that are named so.

    Args:
        parameters: names of the transformer's own ``forward``.
        conditioning: what the adapter lists.
    """
    return (*conditioning, *(n for n in parameters if n.startswith(_DESCRIBING) and n not in conditioning))


class _Seen:
    """A conditioning as it was when it was seen.

    Args:
        values: the arguments; their tensors are held, so that their memory cannot be given to another branch's meanwhile.
    """

    def __init__(self, values: tuple[Any, ...]) -> None:
        self._values, self._versions, self._copies = values, _versions(values), _copied(values)

    def untouched(self, values: tuple[Any, ...]) -> bool:
        """Are these the same tensors, and does their own count say that nobody wrote to them?"""
        return (
            None not in self._versions
            and _versions(self._values) == self._versions
            and _identical(values, self._values)
        )

    def equals(self, values: tuple[Any, ...]) -> bool:
        """Do these hold the same values? Then they are what is expected from now on."""
        if not _equal(values, self._copies):
            return False
        self._values, self._versions = values, _versions(values)
        return True


class Branches:
    """The branches of one run, by their conditioning.

    Args:
        names: the transformer's arguments that tell branches apart.
        describing: those that carry any conditioning; ``names`` alone where it is empty.
    """

    def __init__(self, names: Sequence[str], describing: Sequence[str] = ()) -> None:
        self._names, self._describing = tuple(names), tuple(describing or names)
        self._known: list[_Seen] = []
        self._latest: dict[str, _Seen] = {}

    def clear(self) -> None:
        """Forget every branch and let go of its conditioning."""
        self._known.clear()
        self._latest.clear()

    def name(self, arguments: Mapping[str, Any]) -> str:
        """The branch of this forward; a new one when its conditioning was not seen in this run."""
        conditioning = tuple(arguments.get(name) for name in self._names)
        for same in (_Seen.untouched, _Seen.equals):
            for position, known in enumerate(self._known):
                if same(known, conditioning):
                    return _named(position)
        self._known.append(_Seen(conditioning))
        return _named(len(self._known) - 1)

    def changed(self, branch: str, arguments: Mapping[str, Any]) -> bool:
        """Has this branch, seen before in this run, another conditioning than at its last forward?"""
        conditioning = tuple(arguments.get(name) for name in self._describing)
        latest = self._latest.get(branch)
        if latest is not None and (latest.untouched(conditioning) or latest.equals(conditioning)):
            return False
        self._latest[branch] = _Seen(conditioning)
        return latest is not None


def _named(position: int) -> str:
    return DEFAULT_BRANCH if position == 0 else f"{DEFAULT_BRANCH}-{position + 1}"


def _versions(value: Any) -> tuple[int | None, ...]:
    """How often each tensor was written to in place; None for those of inference mode, which do not count it."""
    if isinstance(value, torch.Tensor):
        return (None if value.is_inference() else value._version,)
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        return tuple(version for item in value for version in _versions(item))
    return ()


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return tuple(map(_copied, value)) if isinstance(value, (list, tuple)) else value


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
