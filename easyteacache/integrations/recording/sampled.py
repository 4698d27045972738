"""Sample recorded runs again under a policy, and measure what became of them: the truth that traces can only predict."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from easyteacache import atomic, json_text
from easyteacache.errors import AttachError, InvalidTrace
from easyteacache.integrations.recording import sampler
from easyteacache.integrations.recording.drive import arguments_of
from easyteacache.integrations.recording.jobs import Job
from easyteacache.policy import Policy
from easyteacache.teacache import TeaCache
from easyteacache.trace import Trace

DIGITS = 2
MAX_BYTES = 64 * 1024 * 1024
#: Stands for the error of a sample that is not finite: worse than any other, and a number that a file can hold.
LOST = 1e6


class SampledErrors:
    """Errors of final samples under policies, each measured once and remembered in a file.

    Args:
        pipe: the pipeline that the runs were recorded with; nothing attached to it.
        file: where measured errors are kept, so that an interrupted search goes on; None keeps them in memory.
        model: what the model is called: errors kept under another name are another model's.
        on_run: called after every run of the pipeline.

    Raises:
        InvalidTrace: ``file`` holds something else.
    """

    def __init__(
        self,
        pipe: Any,
        file: Path | None = None,
        *,
        model: str = "",
        on_run: Callable[[], None] = lambda: None,
    ) -> None:
        self._pipe, self._file, self._model, self._on_run = pipe, file, model, on_run
        self._exact: dict[str, Tensor] = {}
        self._known: dict[str, float] = {} if file is None or not file.exists() else _read(file)

    def errors(self, traces: Sequence[Trace], policies: Sequence[Policy]) -> list[list[float]]:
        """Relative L2 error of every policy's final sample on every run, [policy][run]; ``LOST`` where that is no number.

        Raises:
            InvalidTrace: a run's prompt was not published, or it has no seed.
            AttachError: the pipeline takes other arguments than the runs were recorded with, or samples no numbers without a cache.
        """
        return [[self._error(trace, policy) for trace in traces] for policy in policies]

    def _error(self, trace: Trace, policy: Policy) -> float:
        key = f"{trace.run_id}/{_digest(policy, self._model)}"
        if key not in self._known:
            if trace.run_id not in self._exact:
                self._exact[trace.run_id] = self._exact_sample(trace)
            exact = self._exact[trace.run_id]
            with TeaCache.from_policy(policy).attached(self._pipe, allow_borrowed=True):
                found = self._sample(trace)
            error = float((found - exact).norm() / exact.norm())
            self._known[key] = error if math.isfinite(error) else LOST
            if self._file is not None:
                atomic.write_text(self._file, json_text.spell(self._known))
        return self._known[key]

    def _exact_sample(self, trace: Trace) -> Tensor:
        sample = self._sample(trace)
        if not torch.isfinite(sample).all() or not sample.any():
            raise AttachError(
                f"{type(self._pipe).__name__} samples no numbers for the {trace.label} even without a cache: "
                "measure with the model that the runs were recorded with, in a number type that it works in"
            )
        return sample

    def _sample(self, trace: Trace) -> Tensor:
        head = trace.header
        if head.prompt is None or head.seed is None:
            reason = "its prompt was not published or it has no seed, so that it cannot be sampled again"
            raise InvalidTrace(trace.label, reason, rule="trace.prompt")
        job = Job(
            prompt=head.prompt,
            seed=head.seed,
            width=head.width,
            height=head.height,
            frames=head.frames,
            num_steps=head.total_steps or head.num_steps,
            shift=head.shift,
            guidance_scale=head.guidance_scale,
        )
        with sampler.shifted(self._pipe, job.shift), torch.no_grad():
            sample = self._pipe(**arguments_of(self._pipe, job), return_dict=False)[0]
        if not isinstance(sample, Tensor):
            raise AttachError(f"{type(self._pipe).__name__} gives no latents (output_type='latent')")
        self._on_run()
        return sample.detach().double().cpu()


def _digest(policy: Policy, model: str) -> str:
    # Another machine's linear algebra changes the last digits of weights, and nothing that could be measured.
    weights = policy.weights and tuple(tuple(round(weight, DIGITS) + 0.0 for weight in row) for row in policy.weights)
    plan = (policy.schedule, weights, policy.forecaster, policy.coordinate, policy.applied_to, policy.threshold)
    return hashlib.sha256(repr((model, plan)).encode()).hexdigest()[:24]


def _read(file: Path) -> dict[str, float]:
    try:
        content = json_text.parse(file.read_bytes(), max_bytes=MAX_BYTES)
    except (OSError, json_text.JSONTextError) as error:
        raise InvalidTrace(str(file), f"cannot be read ({error}); delete it to measure again") from error
    if not isinstance(content, Mapping) or not all(isinstance(value, float) for value in content.values()):
        raise InvalidTrace(str(file), "expected one JSON object of measured errors; delete it to measure again")
    return dict(content)
