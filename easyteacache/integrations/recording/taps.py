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
from torch import Tensor, nn

from easyteacache.calibration import Signal
from easyteacache.integrations.diffusers.adapters import Output
from easyteacache.integrations.diffusers.arguments import Arguments
from easyteacache.integrations.diffusers.branches import Branches
from easyteacache.integrations.diffusers.signals import watch
from easyteacache.integrations.recording.probe import Probe
from easyteacache.recorder import Recorder

ROOT, HEAD, TAIL = "easyteacache_record_root", "easyteacache_record_head", "easyteacache_record_tail"
FIRST_BRANCH = "cond"


class _Context(StateManager):  # type: ignore[misc]
    """Follows ``cache_context``; diffusers hands over a name or, in newer releases, an object with one."""

    def __init__(self) -> None:
        super().__init__(BaseState)
        self.name: str | None = None

    def set_context(self, context: Any) -> None:
        super().set_context(context)
        self.name = getattr(context, "name", context)


class _RootTap(ModelHook):  # type: ignore[misc]
    """Knows the branch and noise level of the forward that is running, and sees what it returns."""

    _is_stateful = True

    def __init__(
        self, recorder: Recorder, probe: Probe, branch_names: Sequence[str], on_step: Callable[[], None] | None
    ) -> None:
        super().__init__()
        self.recorder, self.probe, self.on_step = recorder, probe, on_step
        self.context = _Context()
        self.outputs: dict[Output, Any] = {}
        self.branch, self.timestep, self.sequence_length = FIRST_BRANCH, 0.0, 0
        self.arguments: Arguments | None = None
        self._unnamed = Branches(probe.adapter.conditioning)
        self._names = {"default": FIRST_BRANCH}
        self._branch_names = tuple(branch_names)

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        self.arguments = Arguments(type(module), args, kwargs)
        # Image-to-video models give every token its own timestep; the generated ones have the largest.
        self.timestep = float(torch.as_tensor(self.arguments.required(self.probe.adapter.timestep)).max())
        self.branch = self.context.name or self._by_conditioning(self.arguments)
        if self.on_step is not None and self.branch == FIRST_BRANCH:
            self.on_step()
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        sample = output[0] if isinstance(output, tuple) else output.sample
        self.recorder.observe_output(self.recorder.steps(self.branch) - 1, branch=self.branch, output=sample)
        self.arguments = None
        return output

    def reset_state(self, module: nn.Module) -> nn.Module:
        # Pipelines reset stateful hooks when a call ends; what was recorded is finished only after that.
        self.context.reset()
        return module

    def _by_conditioning(self, arguments: Arguments) -> str:
        found = self._unnamed.name(arguments)
        if found not in self._names:
            self._names[found] = f"{FIRST_BRANCH}-{len(self._names) + 1}"
        position = list(self._names).index(found)
        return self._branch_names[position] if position < len(self._branch_names) else self._names[found]


class _HeadTap(ModelHook):  # type: ignore[misc]
    def __init__(self, root: _RootTap, signals: tuple[Signal, ...]) -> None:
        super().__init__()
        self.root, self.signals = root, signals
        self._block_input: Tensor | None = None

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        arguments, root = Arguments(type(module), args, kwargs), self.root
        block_input = root.probe.block_input(arguments)
        root.sequence_length = root.probe.sequence_length(block_input, root.arguments or {})
        root.recorder.begin(
            root.recorder.steps(root.branch), branch=root.branch, timestep=root.timestep, block_input=block_input
        )
        with torch.no_grad():
            for name in self.signals:
                value = root.probe.signal(name, arguments, root.outputs)
                if value is not None:
                    root.recorder.observe_signal(name, value, branch=root.branch)
        # The transformer itself holds this tensor until the block returns, so keeping it costs nothing.
        self._block_input = block_input
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        assert self._block_input is not None
        if "first_block_residual" in self.signals:
            residual = self.root.probe.head_output(output, self._block_input.shape[1]) - self._block_input
            self.root.recorder.observe_signal("first_block_residual", residual, branch=self.root.branch)
        self._block_input = None
        return output


class _TailTap(ModelHook):  # type: ignore[misc]
    def __init__(self, root: _RootTap) -> None:
        super().__init__()
        self.root = root

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        root = self.root
        root.recorder.end(root.probe.tail_output(output, root.recorder.local_length), branch=root.branch)
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
        transformer: a diffusers transformer without any cache enabled.
        probe: of this transformer.
        recorder: a fresh recorder whose signals the transformer offers.
        branch_names: for pipelines that name no branches: what to call them, in the order in which they run.
        on_step: called at every step of the branch ``cond``.
    """
    root = _RootTap(recorder, probe, branch_names, on_step)
    with contextlib.ExitStack() as stack:
        for source in probe.outputs(recorder.signals):
            stack.callback(watch(source, transformer, root.outputs.__setitem__).remove)
        _register(stack, transformer, root, ROOT)
        _register(stack, probe.head, _HeadTap(root, recorder.signals), HEAD)
        _register(stack, probe.tail, _TailTap(root), TAIL)
        yield


def _register(stack: contextlib.ExitStack, module: nn.Module, hook: ModelHook, name: str) -> None:
    registry = HookRegistry.check_if_exists_or_initialize(module)
    registry.register_hook(hook, name)
    stack.callback(registry.remove_hook, name, recurse=False)
