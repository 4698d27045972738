"""Hooks that show a recorder what a transformer computes, and change nothing.

They go through diffusers' own hook registry: registered before context parallelism is enabled they see the same shard of
the tokens at the first block and at the last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, StateManager
from torch import nn

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.branch_names import Branches
from easyteacache.integrations.diffusers.forward_state import Arguments
from easyteacache.integrations.diffusers.hooks import NAME as ATTACHED
from easyteacache.integrations.diffusers.hooks import forget_children
from easyteacache.integrations.diffusers.models.adapter import Output
from easyteacache.integrations.diffusers.models.signals import watch
from easyteacache.integrations.diffusers.recording.probe import Probe
from easyteacache.integrations.diffusers.recording.recorded_forward import BOTH_BRANCHES, FIRST_BRANCH, RecordedForward
from easyteacache.recording.recorder import Recorder

NAME = "easyteacache_record"


class _Context(StateManager):  # type: ignore[misc]
    """Follows ``cache_context``; diffusers hands over a name or, in newer releases, an object with one."""

    def __init__(self) -> None:
        super().__init__(BaseState)
        self.name: str | None = None

    def set_context(self, context: Any) -> None:
        super().set_context(context)
        self.name = getattr(context, "name", context)


class _ContextTap(ModelHook):  # type: ignore[misc]
    """Receives contexts. It leaves ``forward`` alone, because offloading replaces that of a whole transformer."""

    _is_stateful = True

    def __init__(self) -> None:
        super().__init__()
        self.context = _Context()

    def reset_state(self, module: nn.Module) -> nn.Module:
        # Pipelines reset stateful hooks when a call ends; what was recorded is finished only after that.
        self.context.reset()
        return module


class _Forward(RecordedForward):
    """The forward that is running, seen by hooks of its own.

    Args:
        recorder: sees everything.
        probe: of the transformer.
        branch_names: for forwards without a context.
        on_step: called at every forward of the branch ``cond``.
    """

    def __init__(
        self, recorder: Recorder, probe: Probe, branch_names: Sequence[str], on_step: Callable[[], None] | None
    ) -> None:
        super().__init__(recorder, probe)
        self.context_tap = _ContextTap()
        self.outputs: dict[Output, Any] = {}
        self._on_step = on_step
        self._unnamed, self._found = Branches(probe.adapter.conditioning), list[str]()
        self._branch_names = tuple(branch_names)

    def called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The transformer was called."""
        arguments = Arguments(type(module), args, kwargs)
        # Asked for first: its error says which argument is missing.
        arguments.required(self.probe.adapter.timestep)
        named = self.context_tap.context.name
        self.begin(FIRST_BRANCH if named == BOTH_BRANCHES else named or self._by_conditioning(arguments), arguments)
        if self._on_step is not None and self.branch == FIRST_BRANCH:
            self._on_step()

    def returned(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """The transformer returned."""
        self.finish(output)

    def _by_conditioning(self, arguments: Arguments) -> str:
        found = self._unnamed.name(arguments)
        if found not in self._found:
            self._found.append(found)
        position = self._found.index(found)
        if position < len(self._branch_names):
            return self._branch_names[position]
        return FIRST_BRANCH if position == 0 else f"{FIRST_BRANCH}-{position + 1}"


class _HeadTap(ModelHook):  # type: ignore[misc]
    def __init__(self, forward: _Forward) -> None:
        super().__init__()
        self.forward = forward

    @torch.no_grad()
    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        self.forward.enter(Arguments(type(module), args, kwargs), self.forward.outputs)
        return args, kwargs

    @torch.no_grad()
    def post_forward(self, module: nn.Module, output: Any) -> Any:
        self.forward.after_first(output)
        return output


class _TailTap(ModelHook):  # type: ignore[misc]
    def __init__(self, forward: _Forward) -> None:
        super().__init__()
        self.forward = forward

    @torch.no_grad()
    def post_forward(self, module: nn.Module, output: Any) -> Any:
        self.forward.leave(output)
        return output


@contextlib.contextmanager
def tapped(
    transformer: nn.Module,
    probe: Probe,
    recorder: Recorder,
    *,
    branch_names: Sequence[str] = (),
    on_step: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Let ``recorder`` see every forward of ``transformer`` inside the block; afterwards the model is as before.

    Args:
        transformer: a diffusers transformer without any cache.
        probe: of this transformer.
        recorder: a fresh recorder whose signals the transformer offers.
        branch_names: for pipelines that name no branches: what to call them, in the order in which they run.
        on_step: called at every step of the branch ``cond``.

    Raises:
        AttachError: a cache is attached or enabled, or the blocks are compiled.
    """
    _check_bare(transformer, probe)
    forward = _Forward(recorder, probe, branch_names, on_step)
    with contextlib.ExitStack() as stack:
        stack.callback(forget_children, transformer)
        for source in probe.outputs(recorder.signals):
            stack.callback(watch(source, transformer, forward.outputs.__setitem__).remove)
        _register(stack, transformer, forward.context_tap, NAME)
        _register(stack, probe.head, _HeadTap(forward), f"{NAME}_head")
        _register(stack, probe.tail, _TailTap(forward), f"{NAME}_tail")
        begun = transformer.register_forward_pre_hook(forward.called, with_kwargs=True, prepend=True)
        stack.callback(begun.remove)
        stack.callback(transformer.register_forward_hook(forward.returned).remove)
        forget_children(transformer)
        yield


def _check_bare(transformer: nn.Module, probe: Probe) -> None:
    if getattr(transformer, "is_cache_enabled", False):
        raise AttachError(
            "the transformer has a cache enabled; call disable_cache() first, a recording needs full steps"
        )
    registry = getattr(transformer, "_diffusers_hook", None)
    if registry is not None and registry.get_hook(ATTACHED) is not None:
        raise AttachError("a TeaCache is attached to the transformer; detach it first, a recording needs full steps")
    if any(module._compiled_call_impl is not None for module in (transformer, probe.head, probe.tail)):
        raise AttachError("the transformer is compiled; record before compiling it")


def _register(stack: contextlib.ExitStack, module: nn.Module, hook: ModelHook, name: str) -> None:
    registry = HookRegistry.check_if_exists_or_initialize(module)
    registry.register_hook(hook, name)
    stack.callback(registry.remove_hook, name, recurse=False)
