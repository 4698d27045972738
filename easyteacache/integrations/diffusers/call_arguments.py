"""Read and replace a module's arguments by name, however the caller passed them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from easyteacache.errors import AttachError


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
