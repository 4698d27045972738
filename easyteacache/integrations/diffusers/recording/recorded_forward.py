"""What a recorder is told of one forward, whoever's hooks see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from easyteacache.integrations.diffusers.forward_state import Arguments, sample_of
from easyteacache.integrations.diffusers.models.adapter import Output
from easyteacache.integrations.diffusers.recording.probe import Probe, as_tokens
from easyteacache.recording.recorder import Recorder

FIRST_BRANCH = "cond"
# What pipelines of diffusers call a forward that holds both guidance branches as one batch.
BOTH_BRANCHES = "cond_uncond"


class RecordedForward:
    """The forward that is running: its branch, its noise level, what enters its blocks.

    Args:
        recorder: sees everything.
        probe: of the transformer.
    """

    def __init__(self, recorder: Recorder, probe: Probe) -> None:
        self.recorder, self.probe = recorder, probe
        self.branch, self.timestep, self.block_input = FIRST_BRANCH, 0.0, torch.empty(0)
        self._arguments: Mapping[str, Any] = {}

    def begin(self, branch: str, arguments: Mapping[str, Any]) -> None:
        """The transformer was called with ``arguments`` for ``branch``."""
        self.branch, self._arguments = branch, arguments
        # Image-to-video models give every token its own timestep; the generated ones have the largest.
        self.timestep = float(torch.as_tensor(arguments[self.probe.adapter.timestep]).max())

    def enter(self, arguments: Arguments, outputs: dict[Output, Any]) -> None:
        """The first block was called.

        Args:
            arguments: of the block.
            outputs: what submodules returned that signals are taken from.
        """
        recorder, probe, branch = self.recorder, self.probe, self.branch
        self.block_input = probe.block_input(arguments)
        tokens = probe.own(as_tokens(self.block_input), self._arguments)
        length = probe.sequence_length(self.block_input, self._arguments)
        recorder.begin(
            recorder.steps(branch), branch=branch, timestep=self.timestep, block_input=tokens, sequence_length=length
        )
        for name in recorder.signals:
            value = probe.signal(name, arguments, outputs)
            if value is not None:
                recorder.observe_signal(name, value, branch=branch)

    def after_first(self, result: Any) -> None:
        """The first block returned; until then the transformer itself held its input, so keeping it cost nothing."""
        if "first_block_residual" in self.recorder.signals:
            residual = self.probe.head_output(result, self.block_input) - self.block_input
            self.recorder.observe_signal("first_block_residual", as_tokens(residual), branch=self.branch)
        # Only its shape is wanted from here on.
        self.block_input = self.block_input.new_empty(1).expand(self.block_input.shape)

    def leave(self, result: Any) -> None:
        """The last block returned."""
        stream = as_tokens(self.probe.tail_output(result, self.block_input))
        self.recorder.end(self.probe.own(stream, self._arguments), branch=self.branch)

    def finish(self, output: Any) -> None:
        """The transformer returned."""
        step = self.recorder.steps(self.branch) - 1
        found = sample_of(output)
        if found.dim() == 3 and found.shape[:2] == self.block_input.shape[:2]:
            # A class that gives the joined stream, and leaves it to the pipeline to take the generated tokens out of it.
            found = self.probe.own(found, self._arguments)
        self.recorder.observe_output(step, branch=self.branch, output=found)
        self._arguments = {}
