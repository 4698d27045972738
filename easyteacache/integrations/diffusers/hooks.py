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
from easyteacache.integrations.diffusers.drivers import Drivers
from easyteacache.integrations.diffusers.forward_state import Arguments, bound, parameter_names, skipped
from easyteacache.integrations.diffusers.models.adapter import Blocks
from easyteacache.integrations.diffusers.step_tracker import Context

NAME = "easyteacache"

Call = Callable[..., Any]


class _ContextListener(StateManager):  # type: ignore[misc]
    """Hands every ``cache_context`` on to the driver; diffusers passes a name or, in newer releases, an object."""

    def __init__(self, drivers: Drivers) -> None:
        super().__init__(BaseState)
        self._drivers = drivers

    def set_context(self, context: Any) -> None:
        super().set_context(context)
        if context is None or isinstance(context, str):
            self._drivers.here.context = Context(context)
            return
        self._drivers.here.context = Context(
            context.name,
            getattr(context, "step_index", None),
            getattr(context, "num_inference_steps", None),
            getattr(context, "sigma", None),
        )

    def reset(self, *args: Any, **kwargs: Any) -> None:
        super().reset(*args, **kwargs)
        self._drivers.here.context = Context()


class RootHook(ModelHook):  # type: ignore[misc]
    """Receives contexts and resets. It leaves ``forward`` alone: offloading replaces that, and would drop it."""

    _is_stateful = True

    def __init__(self, drivers: Drivers) -> None:
        super().__init__()
        self._drivers = drivers
        self.listener = _ContextListener(drivers)

    def reset_state(self, module: nn.Module) -> nn.Module:
        """The pipeline's call is over."""
        self.listener.reset()
        self._drivers.here.leave_run()
        return module


class BlockHook(ModelHook):  # type: ignore[misc]
    """Runs or skips one block.

    Args:
        drivers: of the transformer.
        blocks: the list that the block is in.
        first, last: whether it is the first or the last block of all.
    """

    def __init__(self, drivers: Drivers, blocks: Blocks, *, first: bool, last: bool) -> None:
        super().__init__()
        self._drivers, self._blocks, self._first, self._last = drivers, blocks, first, last
        #: The block was compiled on its own, and this hook acts around its graph instead of inside it.
        self._around = False
        self._names: tuple[str, ...] = ()

    def initialize_hook(self, module: nn.Module) -> nn.Module:
        """Learn the names of the block's arguments."""
        kind: Any = type(module)
        self._names = parameter_names(kind)
        return module

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The block's forward."""
        if self._around:
            return self.fn_ref.original_forward(*args, **kwargs)
        return self.run(self.fn_ref.original_forward, module, args, kwargs)

    def run(self, call: Call, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call or skip the block; ``call`` is its forward, or what that was compiled into."""
        driver = self._drivers.here
        forward = driver.forward
        if forward is None:
            return call(*args, **kwargs)
        arguments = bound(self._names, args, kwargs)
        if self._first:
            return self._run_first(driver, call, module, arguments, args, kwargs)
        if not forward.seen.skipping:
            output = call(*args, **kwargs)
            if self._last:
                driver.leave(self._blocks, output)
            return output
        return driver.fill(self._blocks, arguments) if self._last else skipped(self._blocks, arguments)

    def _run_first(
        self,
        driver: Driver,
        call: Call,
        module: nn.Module,
        arguments: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        forward = driver.forward
        assert forward is not None
        driver.enter(module, arguments)
        if forward.seen.skipping:
            return skipped(self._blocks, arguments)
        output = call(*args, **kwargs)
        driver.after_first(self._blocks, output)
        return output

    def step_out(self, module: nn.Module) -> None:
        """Step out of a block that was compiled on its own: decisions are no part of its graph."""
        compiled = module._compiled_call_impl
        # For all calls from now on, not for each call's time: several threads may run one block at once.
        self._around = compiled is not None
        if compiled is not None and not isinstance(compiled, _Outside):
            module._compiled_call_impl = _Outside(self, module, compiled)


class _Outside:
    """Stands where torch keeps a module's compiled call."""

    def __init__(self, hook: BlockHook, module: nn.Module, compiled: Call) -> None:
        self.hook, self.module, self.compiled = hook, module, compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.hook.run(self.compiled, self.module, args, kwargs)


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
    """The hooks of one transformer; ``remove`` takes every one of them off again. Copies of it come without them.

    Args:
        root: the transformer.
        drivers: of it.
        located: its blocks, in the order they run, each with the list it is in.
        handles: of further hooks, to be removed with these.
    """

    def __init__(
        self, root: nn.Module, drivers: Drivers, located: list[tuple[Blocks, nn.Module]], handles: list[Any]
    ) -> None:
        self._root, self._drivers, self._handles = root, drivers, handles
        self._registered = [Registered(root, RootHook(drivers))]
        self._blocks: list[tuple[nn.Module, BlockHook]] = []
        for position, (blocks, block) in enumerate(located):
            hook = BlockHook(drivers, blocks, first=position == 0, last=position == len(located) - 1)
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
        driver = self._drivers.here
        if driver.compiled_whole:
            return
        self._drivers.refuse_graph(module)
        for block, hook in self._blocks:
            hook.step_out(block)
        driver.begin(Arguments(type(module), args, kwargs))

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        driver = self._drivers.here
        output = driver.output(output)
        if not driver.compiled_whole:
            driver.finish()
        return output

    def remove(self) -> None:
        """Restore the transformer."""
        for undo in self._undo_copies:
            undo()
        for handle in self._handles:
            handle.remove()
        for one in self._registered:
            one.remove()
        for block, _ in self._blocks:
            if isinstance(block._compiled_call_impl, _Outside):
                block._compiled_call_impl = block._compiled_call_impl.compiled
        forget_children(self._root)


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
        driver.begin(Arguments(type(driver.transformer), args, kwargs), whole=True)
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
