"""Record ComfyUI's runs as traces, from which `easyteacache solve` makes a calibration.

Hooks on the first and the last block see what enters and leaves the stack; they are there while the model is called, and gone when
nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from easyteacache.errors import EasyTeaCacheError
from easyteacache.files import atomic_write
from easyteacache.integrations.comfyui import model_facts
from easyteacache.integrations.comfyui.block_stacks import STACKS, BlockStack, stack_of
from easyteacache.integrations.comfyui.cached_model import found_key
from easyteacache.integrations.comfyui.report import RunReport
from easyteacache.integrations.comfyui.sampled_run import SampledRun, Watched
from easyteacache.integrations.comfyui.wrappers import ModelWrappers
from easyteacache.recording.recorder import Recorder
from easyteacache.records.calibration import Signal
from easyteacache.records.trace import Trace
from easyteacache.records.trace_file import SUFFIX, encode
from easyteacache.registry.registry import home

#: What ComfyUI's plain guidance calls its branches, and what a guided Gram matrix is made of.
GUIDED_BRANCHES = ("cond", "uncond")
#: The signal that every model has.
SIGNAL: Signal = "hidden_states"


def recorded_model(
    model: Any,
    *,
    model_key: str,
    prompt: str = "",
    publish_prompt: bool = False,
    folder: str = "",
    report: Callable[[RunReport], None] = lambda _: None,
) -> tuple[Any, str]:
    """A clone of the model whose runs are recorded, and what will be done, a sentence.

    Args:
        model: ComfyUI's model patcher.
        model_key: what the traces are of; ``auto`` reads it off the configuration.
        prompt: the runs' text.
        publish_prompt: store it, not its hash alone.
        folder: where traces go; empty: ``traces/comfyui`` in this machine's home.
        report: told of every run.
    """
    key, told = found_key(model, model_key)
    where = Path(folder).expanduser() if folder.strip() else home() / "traces" / "comfyui"

    def watch(run: SampledRun, guider: Any, seed: int | None) -> RunRecorder:
        return RunRecorder(
            run,
            guider,
            key=key,
            unknown=told,
            prompt=prompt or None,
            publish_prompt=publish_prompt,
            seed=seed,
            folder=where,
        )

    wrappers = ModelWrappers(None, make_watcher=watch, report=report, heading=f"Record: every call is computed. {told}")
    return wrappers.put_on(model), f"Records every run into {where}. {told}"


class RunRecorder:
    """Records one run.

    Args:
        run: what samples.
        guider: ComfyUI's guider.
        key: the model's key; None: nothing is recorded, and ``unknown`` says why.
        unknown: why there is no key.
        prompt: the run's text; None where nobody said.
        publish_prompt: store the text, too.
        seed: of the run.
        folder: where the trace goes.
    """

    def __init__(
        self,
        run: SampledRun,
        guider: Any,
        *,
        key: str | None,
        unknown: str,
        prompt: str | None,
        publish_prompt: bool,
        seed: int | None,
        folder: Path,
    ) -> None:
        self._run, self._key, self._seed, self._folder = run, key, seed, folder
        self._prompt, self._publish = prompt, publish_prompt
        self._transformer = run.patcher.model.diffusion_model
        self._stack: BlockStack | None = stack_of(self._transformer)
        self._scale = float(guider.cfg) if run.linear_guidance else None
        self._recorder = Recorder(signals=(SIGNAL,), features=True, sketch="auto", order=GUIDED_BRANCHES)
        self._why = unknown if key is None else self._refusal()

    def _refusal(self) -> str | None:
        levels = self._run.facts.levels or ()
        if self._stack is None:
            return (
                f"where the blocks of {type(self._transformer).__name__} lie is not known; models that can be recorded are "
                f"{', '.join(sorted(STACKS))}"
            )
        if any(after >= before for before, after in pairwise(levels)):
            return "the sampler calls the model more than once a step, which cannot be recorded; use euler, dpmpp_2m or uni_pc"
        return None

    def computed(
        self, executor: Any, args: Sequence[Any], kwargs: Mapping[str, Any], branches: Sequence[str], call: int
    ) -> Any:
        """Computes the model, and remembers what passed its blocks."""
        if self._why is not None or self._stack is None:
            return executor(*args, **kwargs)
        unguided = not self._run.linear_guidance and "uncond" in branches
        if unguided or not set(branches) <= set(GUIDED_BRANCHES):
            self.broken("several conditionings of one kind, or another guidance than one positive and one negative")
            return executor(*args, **kwargs)
        first, last = self._stack.ends(self._transformer)
        level = float(torch.as_tensor(args[1]).flatten()[0]) if len(args) > 1 else 0.0
        entered: list[int] = []

        def enter(_: Any, block_args: Any, block_kwargs: Any) -> None:
            assert self._stack is not None
            stream = self._stack.entering(block_args, block_kwargs)
            entered.append(int(stream.shape[1]))
            self._entered(stream, branches, call, level)

        def leave(_: Any, block_args: Any, block_kwargs: Any, output: Any) -> None:
            if self._why is None and entered and self._stack is not None:
                stream = self._stack.leaving(output, entered[0])
                for branch, part in zip(branches, stream.chunk(len(branches)), strict=True):
                    self._recorder.end(part, branch=branch)

        hooks = (
            first.register_forward_pre_hook(enter, with_kwargs=True),
            last.register_forward_hook(leave, with_kwargs=True),
        )
        try:
            output = executor(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
        if self._why is None:
            self._left(output, branches, call)
        return output

    def _entered(self, stream: torch.Tensor, branches: Sequence[str], call: int, level: float) -> None:
        tokens = self._run.context.sequence_length
        if tokens is not None and stream.shape[1] != tokens:
            self.broken(
                f"{stream.shape[1]} tokens enter the blocks, of which {tokens} are generated: reference pictures"
            )
            return
        for branch, part in zip(branches, stream.chunk(len(branches)), strict=True):
            if self._recorder.steps(branch) != call:
                self.broken("a conditioning acts at some steps alone")
                return
            self._recorder.begin(call, branch=branch, timestep=level, block_input=part)
            self._recorder.observe_signal(SIGNAL, part, branch=branch)

    def _left(self, output: Any, branches: Sequence[str], call: int) -> None:
        if not isinstance(output, torch.Tensor) or output.shape[0] % len(branches):
            self.broken("the model returns something else than one tensor")
            return
        try:
            for branch, part in zip(branches, output.chunk(len(branches)), strict=True):
                self._recorder.observe_output(call, branch=branch, output=part)
        except EasyTeaCacheError as error:
            self.broken(str(error))

    def broken(self, why: str) -> None:
        """The run cannot be recorded (any further)."""
        self._why = self._why or why
        self._recorder = Recorder(signals=(SIGNAL,))

    def over(self, *, whole: bool) -> Watched:
        """The run is over: writes its trace, where it was recorded whole."""
        if not whole and self._why is None:
            self._why = "the run was broken off"
        if self._why is not None:
            return Watched(None, self._why)
        try:
            trace = self._trace()
            path = self._folder / f"{(self._key or '').replace('/', '--')}-{trace.run_id[:16]}{SUFFIX}"
            atomic_write.write_bytes(path, encode([trace]))
        except (EasyTeaCacheError, OSError, ValueError) as error:
            return Watched(None, f"the trace cannot be written: {error}")
        return Watched(str(path), None)

    def _trace(self) -> Trace:
        facts, assumed = self._run.facts, self._stack
        assert facts.levels is not None
        assert assumed is not None
        assert self._key is not None
        model = model_facts.identity_of(self._run.patcher).model_copy(update={"class_name": assumed.known_as})
        return self._recorder.finish(
            model_key=self._key,
            sigmas=facts.levels,
            guidance_scale=self._scale if self._recorder.steps("uncond") else None,
            prompt=self._prompt,
            publish_prompt=self._publish,
            model=model,
            sampler=facts.record(),
            sampler_map=facts.probe.map,
            shift=facts.shift,
            seed=self._seed if self._seed is not None and self._seed >= 0 else None,
        )
