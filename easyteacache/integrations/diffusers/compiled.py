"""Keep run, branch and decision out of a graph that ``torch.compile`` made of the whole transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from easyteacache.integrations.diffusers.call_arguments import Arguments
from easyteacache.integrations.diffusers.driver import Driver


class Around:
    """Stands where torch keeps the compiled call of a whole transformer."""

    def __init__(self, driver: Driver, compiled: Callable[..., Any]) -> None:
        self.driver, self.compiled = driver, compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One forward: decide, run the graph, commit."""
        driver = self.driver
        driver.begin(Arguments(type(driver.transformer), args, kwargs))
        driver.compiled_whole = True
        try:
            output = self.compiled(*args, **kwargs)
        finally:
            driver.compiled_whole = False
        output = driver.hand_on(output)
        driver.finish()
        return output


def step_around(driver: Driver, target: nn.Module) -> Callable[[], None]:
    """Step around what ``torch.compile(transformer)`` returned, or ``transformer.compile()`` left; returns what undoes it."""
    if target is not driver.transformer:
        return _replace(target, "forward", driver)
    if target._compiled_call_impl is not None:
        return _replace(target, "_compiled_call_impl", driver)
    return lambda: None


def _replace(module: nn.Module, name: str, driver: Driver) -> Callable[[], None]:
    before = getattr(module, name)
    setattr(module, name, Around(driver, before))

    def undo() -> None:
        if isinstance(getattr(module, name), Around):
            setattr(module, name, before)

    return undo
