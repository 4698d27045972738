"""One value for each thread that asks for one, forgotten when its thread ends."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class PerThread(Generic[Value]):
    """Values by thread.

    Args:
        make: gives a thread's value when it asks for the first time; called in that thread.
        end: is told of each value that is forgotten, because its thread ended or ``close`` was called; it must not raise.
    """

    def __init__(self, make: Callable[[], Value], end: Callable[[Value], None]) -> None:
        self._make, self._end = make, end
        self._here = threading.local()
        self._lock = threading.Lock()
        self._living: dict[int, tuple[str, Value]] = {}
        self._finalizers: list[weakref.finalize[..., Any]] = []
        #: How many threads have asked so far, whether they live or not.
        self.served = 0

    @property
    def mine(self) -> Value | None:
        """This thread's value; None where it has not asked for one."""
        held: _Held[Value] | None = getattr(self._here, "held", None)
        return None if held is None else held.value

    def here(self) -> Value:
        """This thread's value, made now where there is none."""
        held: _Held[Value] | None = getattr(self._here, "held", None)
        if held is not None:
            return held.value
        held = _Held(self._make())
        key = id(held)
        with self._lock:
            self.served += 1
            self._living[key] = (threading.current_thread().name, held.value)
            # What a thread holds goes away with the thread, whoever else knows the thread.
            self._finalizers = [one for one in self._finalizers if one.alive]
            self._finalizers.append(weakref.finalize(held, _ended, weakref.ref(self), key))
        self._here.held = held
        return held.value

    def living(self) -> dict[str, Value]:
        """The values of the threads that live, by the thread's name; a name that is taken has a number after it."""
        found: dict[str, Value] = {}
        with self._lock:
            living = list(self._living.values())
        for name, value in living:
            number, unique = 2, name
            while unique in found:
                number, unique = number + 1, f"{name} ({number})"
            found[unique] = value
        return found

    def close(self) -> None:
        """Forget the values of all threads."""
        with self._lock:
            finalizers, self._finalizers = self._finalizers, []
        for one in finalizers:
            one()
        self._here = threading.local()

    def _forget(self, key: int) -> None:
        with self._lock:
            found = self._living.pop(key, None)
        if found is not None:
            self._end(found[1])


class _Held(Generic[Value]):
    """What a thread holds."""

    def __init__(self, value: Value) -> None:
        self.value = value


def _ended(owner: weakref.ref[PerThread[Any]], key: int) -> None:
    found = owner()
    if found is not None:
        found._forget(key)
