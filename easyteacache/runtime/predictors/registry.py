"""Which predictors there are, by name."""

from __future__ import annotations

import re
from typing import TypeVar

from easyteacache.errors import EasyTeaCacheError
from easyteacache.runtime.predictors.predictor import AUTO, FITTED, Predictor

Family = TypeVar("Family", bound=type[Predictor])

_families: list[type[Predictor]] = []


class UnknownPredictor(EasyTeaCacheError, ValueError):
    """No predictor of this name.

    Attributes:
        name: what was asked for.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"no predictor named {name!r}; expected {AUTO}, {_listed()}"
            + ("; a fitted one comes with the operating point of a record that holds its rows" * (name == FITTED))
        )


def register_predictor(family: Family) -> Family:
    """Make a predictor class known by its names; usable as a decorator.

    Raises:
        ValueError: it has no name, or another class has one of its names already.
    """
    if not getattr(family, "names", ()):
        raise ValueError(f"{family.__name__} has no names; a predictor is registered under at least one")
    for name in family.names:
        if (found := family.named(name).name) != name:
            raise ValueError(f"{family.__name__}.named({name!r}) is named {found!r}; it must be what was asked for")
        taken = next((other for other in _families if _means(other, name)), None)
        if taken is not None or name in (AUTO, FITTED):
            owner = "this project's own word" if taken is None else taken.__name__
            raise ValueError(f"{family.__name__} cannot be named {name!r}: that is {owner}")
    _families.append(family)
    return family


def families() -> tuple[type[Predictor], ...]:
    """Every registered class, simplest first: by how many computed steps the first of its names looks at."""
    return tuple(sorted(_families, key=lambda family: family.named(family.names[0]).history))


def predictor(name: str) -> Predictor:
    """The predictor stored in records under ``name``.

    Raises:
        UnknownPredictor: there is none of that name.
    """
    for family in _families:
        if _means(family, name):
            return family.named(name)
    raise UnknownPredictor(name)


def predictors() -> tuple[str, ...]:
    """Every predictor's name, simplest first; one that takes parameters by its usual names."""
    return tuple(name for family in families() for name in family.names)


def _means(family: type[Predictor], name: str) -> bool:
    return name in family.names or bool(family.pattern and re.fullmatch(family.pattern, name))


def _listed() -> str:
    names = [name for family in families() for name in (*family.names, *([family.spelling] if family.spelling else []))]
    return f"{', '.join(names[:-1])} or {names[-1]}"
