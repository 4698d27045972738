"""diffusers hooks that skip blocks: tail-overwrite form.

At a reused step every block hands its arguments on unchanged, and the last one's result is *overwritten* with the first
one's input + forecast residual. What a model adds between blocks (ControlNet residuals, VACE hints) is inside the residual
already; adding the residual at the first block would count it twice.

What ``torch.compile`` made of a block, or of the whole transformer, is stepped around: run, branch and decision are no part of a
graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, StateManager
from torch import nn

from easyteacache.integrations.diffusers import copies
from easyteacache.integrations.diffusers.driver import Driver
from easyteacache.integrations.diffusers.forward_state import Arguments, bound, parameter_names, skipped
from easyteacache.integrations.diffusers.models.adapter import Blocks
from easyteacache.integrations.diffusers.step_tracker import Context

NAME = "easyteacache"

Call = Callable[..., Any]


class _ContextListener(StateManager):  # type: ignore[misc]
    """Hands every ``cache_context`` on to the driver; diffusers passes a name or, in newer releases, an object."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(BaseState)
        self._driver = driver

    def set_context(self, context: Any) -> None:
        super().set_context(context)
        if context is None or isinstance(context, str):
            self._driver.context = Context(context)
            return
        self._driver.context = Context(
            context.name,
            getattr(context, "step_index", None),
            getattr(context, "num_inference_steps", None),
            getattr(context, "sigma", None),
        )

    def reset(self, *args: Any, **kwargs: Any) -> None:
        super().reset(*args, **kwargs)
        self._driver.context = Context()


class RootHook(ModelHook):  # type: ignore[misc]
    """Receives contexts and resets. It leaves ``forward`` alone: offloading replaces that, and would drop it."""

    _is_stateful = True

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver = driver
        self.listener = _ContextListener(driver)

    def reset_state(self, module: nn.Module) -> nn.Module:
        """The pipeline's call is over."""
        self.listener.reset()
        self._driver.leave_run()
        return module


class BlockHook(ModelHook):  # type: ignore[misc]
    """Runs or skips one block.

    Args:
        driver: of the transformer.
        blocks: the list that the block is in.
        first, last: whether it is the first or the last block of all.
    """

    def __init__(self, driver: Driver, blocks: Blocks, *, first: bool, last: bool) -> None:
        super().__init__()
        self._driver, self._blocks, self._first, self._last = driver, blocks, first, last
        self._inside = False
        self._names: tuple[str, ...] = ()

    def initialize_hook(self, module: nn.Module) -> nn.Module:
        """Learn the names of the block's arguments."""
        kind: Any = type(module)
        self._names = parameter_names(kind)
        return module

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The block's forward."""
        if self._inside:
            return self.fn_ref.original_forward(*args, **kwargs)
        return self.run(self.fn_ref.original_forward, module, args, kwargs)

    def run(self, call: Call, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call or skip the block; ``call`` is its forward, or what that was compiled into."""
        forward = self._driver.forward
        if forward is None:
            return call(*args, **kwargs)
        arguments = bound(self._names, args, kwargs)
        if self._first:
            return self._run_first(call, module, arguments, args, kwargs)
        if not forward.seen.skipping:
            output = call(*args, **kwargs)
            if self._last:
                self._driver.leave(self._blocks, output)
            return output
        return self._driver.fill(self._blocks, arguments) if self._last else skipped(self._blocks, arguments)

    def _run_first(
        self, call: Call, module: nn.Module, arguments: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        forward = self._driver.forward
        assert forward is not None
        self._driver.enter(module, arguments)
        if forward.seen.skipping:
            return skipped(self._blocks, arguments)
        output = call(*args, **kwargs)
        self._driver.after_first(self._blocks, output)
        return output

    def outside(self, module: nn.Module) -> None:
        """Step out of a block that was compiled on its own: decisions are no part of its graph."""
        compiled = module._compiled_call_impl
        if compiled is None or isinstance(compiled, _Outside):
            return
        module._compiled_call_impl = _Outside(self, module, compiled)

    def call_inside(self, compiled: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the compiled block, in whose graph this hook does nothing."""
        self._inside = True
        try:
            return compiled(*args, **kwargs)
        finally:
            self._inside = False


class _Outside:
    """Stands where torch keeps a module's compiled call."""

    def __init__(self, hook: BlockHook, module: nn.Module, compiled: Call) -> None:
        self.hook, self.module, self.compiled = hook, module, compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self.hook.call_inside(self.compiled, args, kwargs)

        return self.hook.run(call, self.module, args, kwargs)


class Registered:
    """One hook in the registry that diffusers keeps on a module."""

    def __init__(self, module: nn.Module, hook: ModelHook) -> None:
        self.module, self._hook = module, hook
        HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, NAME)
        #: The forward that it put there.
        self.forward = module.forward

    @property
    def before(self) -> Any:
        """The forward that it found."""
        reference = self._hook.fn_ref
        return reference.forward if reference.original_forward is None else reference.original_forward

    def remove(self) -> None:
        """Take the hook off. What something else made of ``forward`` since stays, and finds there what was before the hook."""
        registry = HookRegistry.check_if_exists_or_initialize(self.module)
        last = registry._hook_order[-1:] == [NAME]
        if not last or self.module.forward is self.forward:
            registry.remove_hook(NAME, recurse=False)
            return
        before = self.before
        for entries in (registry._hook_order, registry._fn_refs):
            entries.pop()
        del registry.hooks[NAME]
        if vars(self.module).get("_old_forward") is self.forward:
            # Where accelerate keeps the forward that its own calls, and restores.
            self.module._old_forward = before
        # Whoever else keeps ours calls through it.
        self._hook.fn_ref.forward = before


class Installed:
    """The hooks of one transformer; ``remove`` takes every one of them off again. Copies of it come without them."""

    def __init__(self, driver: Driver, located: list[tuple[Blocks, nn.Module]], handles: list[Any]) -> None:
        self._driver, self._handles = driver, handles
        root = driver.transformer
        self._registered = [Registered(root, RootHook(driver))]
        self._blocks: list[tuple[nn.Module, BlockHook]] = []
        for position, (blocks, block) in enumerate(located):
            hook = BlockHook(driver, blocks, first=position == 0, last=position == len(located) - 1)
            self._registered.append(Registered(block, hook))
            self._blocks.append((block, hook))
        self._handles.append(root.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True))
        self._handles.append(root.register_forward_hook(self._after))
        forget_children(root)
        self._undo_copies = list(self._leave_out_of_copies(root))

    def _leave_out_of_copies(self, root: nn.Module) -> Iterator[Callable[[], None]]:
        ids = {handle.id for handle in self._handles}
        hooked = {id(one.module): one for one in self._registered}
        for module in root.modules():
            if id(module) in hooked or not ids.isdisjoint(module._forward_hooks):
                yield copies.leave_out(module, functools.partial(_strip, module, hooked.get(id(module)), ids))

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._driver.compiled_whole:
            return
        compiled = False
        for block, hook in self._blocks:
            hook.outside(block)
            compiled = compiled or block._compiled_call_impl is not None
        self._driver.begin(Arguments(type(module), args, kwargs), compiled=compiled)

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        output = self._driver.output(output)
        if not self._driver.compiled_whole:
            self._driver.finish()
        return output

    def remove(self) -> None:
        """Restore the transformer."""
        for undo in self._undo_copies:
            undo()
        for handle in self._handles:
            handle.remove()
        root = self._driver.transformer
        for one in self._registered:
            one.remove()
        for block, _ in self._blocks:
            if isinstance(block._compiled_call_impl, _Outside):
                block._compiled_call_impl = block._compiled_call_impl.compiled
        forget_children(root)


def _strip(module: nn.Module, registered: Registered | None, handles: set[int], state: dict[str, Any]) -> None:
    """What a copy of a module with hooks is made of."""
    copies.strip_handles(state, handles)
    if registered is not None:
        copies.strip_forward(state, module, registered.forward, registered.before, NAME)
    for name, value in tuple(state.items()):
        if isinstance(value, Around | _Outside):
            # A graph is of one module: torch gives a copy none either.
            state[name] = None


def forget_children(root: nn.Module) -> None:
    """diffusers lists a model's hooked modules once, at its first context; after hooks came or went it has to look again."""
    for module in root.modules():
        registry = getattr(module, "_diffusers_hook", None)
        if registry is not None and hasattr(registry, "_child_registries_cache"):
            registry._child_registries_cache = None


# A graph of the whole transformer ----------------------------------------------------------------------------------------


class Around:
    """Stands where torch keeps the compiled call of a whole transformer."""

    def __init__(self, driver: Driver, compiled: Callable[..., Any]) -> None:
        self.driver, self.compiled = driver, compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One forward: decide, run the graph, commit."""
        driver = self.driver
        driver.begin(Arguments(type(driver.transformer), args, kwargs), compiled=True)
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
