"""Sample recorded runs again under plans, fit the plans' weights on the way, and measure what became of the samples."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from easyteacache.errors import AttachError, InvalidTrace
from easyteacache.files import atomic_write, regular_files, strict_json
from easyteacache.integrations.diffusers.attach import attach
from easyteacache.integrations.diffusers.recording.jobs import Job
from easyteacache.integrations.diffusers.recording.pipeline_runs import arguments_of
from easyteacache.integrations.diffusers.recording.trajectory_fit import Refit, Row
from easyteacache.integrations.diffusers.scheduler_facts import facts_of, shifted
from easyteacache.policy.policy import Policy
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.source import FixedPolicy
from easyteacache.records.bucket import FITTED
from easyteacache.records.sampler import TOLERANCE, euler_map
from easyteacache.records.trace import Array
from easyteacache.records.trace_set import Trace
from easyteacache.runtime.session import Session

MAX_BYTES = 64 * 1024 * 1024
#: Stands for the error of a sample that is not finite: worse than any other, and a number that a file can hold.
LOST = 1e6

StepChange = Callable[[int, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sampled:
    """One plan, sampled.

    Attributes:
        errors: (R,) relative L2 error of every run's final sample; ``LOST`` where that is no number.
        weights: a row a step, fitted to what the plan itself computed.
        answers: for every computed step but the first ‖δv‖ / ‖δx‖, geometric mean over runs: what the guided output differed by from
            the uncached run's, relative to what the state did; empty where it was not looked at.
    """

    errors: tuple[float, ...]
    weights: tuple[Row, ...]
    answers: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Batch:
    """Runs that are sampled at once: what they are told apart by, and how to sample them."""

    ids: tuple[str, ...]
    jobs: Sequence[Job]


class SampledPlans:
    """Plans sampled on recorded runs, each once and remembered in a file.

    Runs that weights are fitted over are sampled together, one batch of the pipeline.

    Args:
        pipe: the pipeline that the runs were recorded with, with the same sampler; nothing attached to it.
        file: where results are kept, so that an interrupted search goes on; None keeps them in memory.
        model: what the model is called: results kept under another name are another model's.
        on_step: called after every sampler step.

    Raises:
        InvalidTrace: ``file`` holds something else.
    """

    def __init__(
        self,
        pipe: Any,
        *,
        file: Path | None = None,
        model: str = "",
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        self._pipe, self._file, self._model, self._on_step = pipe, file, model, on_step
        #: Uncached states of the batch that weights are fitted on, and final ones of those that follow it. Only of one first batch:
        #: states of long videos are large.
        self._exact: dict[tuple[str, ...], list[Tensor]] = {}
        #: Uncached guided outputs of the first batch, a step each.
        self._outputs: list[Tensor] = []
        self._first: tuple[str, ...] = ()
        self._known: dict[str, Sampled] = {} if file is None or not file.exists() else _read(file)
        #: How many plans were known from the beginning.
        self.kept = len(self._known)

    def seconds(self, traces: Sequence[Trace]) -> float:
        """How long one run takes without a cache: the first of ``traces``, sampled once for its time alone."""
        began = time.perf_counter()
        self._uncached(_jobs(traces[:1]), _map_of(traces))
        return time.perf_counter() - began

    def sampled(self, traces: Sequence[Trace], plan: Policy, *, batch: int | None = None) -> Sampled:
        """Errors and weights of ``plan``, a schedule with the weights that the fit starts from, on runs of one setting.

        Args:
            batch: the most runs to sample at once. Weights are fitted on the first ones, the others are sampled with them. None
                takes all at once.

        Raises:
            InvalidTrace: a run's prompt was not published, it has no seed, it is an expert's, or the runs differ in their settings.
            AttachError: the pipeline takes other arguments than the runs were recorded with, or samples no numbers without a cache.
        """
        size = len(traces) if batch is None else batch
        jobs = _jobs(traces)
        batches = [_Batch(_ids(traces[start:][:size]), jobs[start:][:size]) for start in range(0, len(traces), size)]
        sampler_map = _map_of(traces)
        first = self._remembered((batches[0],), plan, sampler_map)
        following = replace(plan, weights=first.weights)
        others = [self._remembered((batches[0], other), following, sampler_map) for other in batches[1:]]
        return Sampled(tuple(error for each in (first, *others) for error in each.errors), first.weights, first.answers)

    def _remembered(self, batches: tuple[_Batch, ...], plan: Policy, sampler_map: Array) -> Sampled:
        """The last of ``batches``; what follows the weights of another one has none of its own."""
        key = _digest(self._model, [batch.ids for batch in batches], plan)
        if key not in self._known:
            self._known[key] = self._sample(batches, plan, sampler_map)
            if self._file is not None:
                atomic_write.write_text(self._file, _spelled(self._known))
        found, steps = self._known[key], len(sampler_map) - 1 if len(batches) == 1 else 0
        answers = len(plan.schedule or (0,)) - 1
        odd = len(found.answers) not in (0, answers)
        if len(found.errors) != len(batches[-1].ids) or len(found.weights) != steps or odd:
            reason = (
                f"expected errors of {len(batches[-1].ids)} runs, weights of {steps} steps and {answers} answers or none at {key}, "
                f"found {len(found.errors)}, {len(found.weights)} and {len(found.answers)}; delete it to measure again"
            )
            raise InvalidTrace(str(self._file), reason)
        return found

    def _sample(self, batches: tuple[_Batch, ...], plan: Policy, sampler_map: Array) -> Sampled:
        fitted, batch = len(batches) == 1, batches[-1]
        if batches[0].ids != self._first:
            self._first = batches[0].ids
            self._exact.clear()
        if batch.ids not in self._exact:
            states, outputs = self._uncached(batch.jobs, sampler_map)
            self._exact[batch.ids] = states if fitted else states[-1:]
            self._outputs = outputs if fitted else self._outputs
        exact = self._exact[batch.ids]
        final, rows, answers = self._under(plan, batch, sampler_map, exact if fitted else None)
        errors = tuple(error if math.isfinite(error) else LOST for error in _errors(final, exact[-1]))
        return Sampled(errors, rows, answers) if fitted else Sampled(errors, ())

    def _under(
        self, plan: Policy, batch: _Batch, sampler_map: Array, exact: list[Tensor] | None
    ) -> tuple[Tensor, tuple[Row, ...], tuple[float, ...]]:
        """Final states (R, ...) under ``plan``, its weights and its answers; where uncached states are given, fitted to and compared with them."""
        assert plan.schedule is not None
        assert plan.weights is not None
        fills = plan.forecaster == FITTED
        refit = Refit(exact, sampler_map, plan.schedule, plan.weights, fills=fills)
        plain, answers, computed = replace(plan, weights=None), list[float](), frozenset(plan.schedule)

        def handed(step: int, output: Tensor, state: Tensor) -> Tensor:
            if exact is not None and step and step in computed:
                answers.append(_answer(output, state, exact[step], self._outputs[step]))
            return refit.handed(step, output, state)

        if fills:
            # What the pipeline gives at reused steps is replaced anyway.
            plain = replace(plain, forecaster="hold", applied_to="residual")
        run = RunContext(num_steps=plain.num_steps, shift=plain.shift)
        with contextlib.ExitStack() as stack:
            stack.callback(attach(Session(FixedPolicy(plain), Request(), run), self._pipe, allow_borrowed=True))
            final = self._states(batch.jobs, sampler_map, handed)[-1]
        known = all(answer > 0.0 and math.isfinite(answer) for answer in answers)
        return final, tuple(refit.rows), tuple(answers) if known else ()

    def _uncached(self, jobs: Sequence[Job], sampler_map: Array) -> tuple[list[Tensor], list[Tensor]]:
        """States and outputs of uncached runs, in single precision on the CPU."""
        outputs: list[Tensor] = []

        def noted(step: int, output: Tensor, state: Tensor) -> Tensor:
            outputs.append(output.detach().cpu().float())
            return output

        states = self._states(jobs, sampler_map, noted)
        if not torch.isfinite(states[-1]).all() or not states[-1].any():
            raise AttachError(
                f"{type(self._pipe).__name__} samples no numbers for {jobs[0].prompt!r} even without a cache: "
                "measure with the model that the runs were recorded with, in a number type that it works in"
            )
        return states, outputs

    def _states(self, jobs: Sequence[Job], sampler_map: Array, change: StepChange) -> list[Tensor]:
        """Run the pipeline; (S + 1) states, each (R, ...) in single precision on the CPU, the noise first."""
        steps = len(sampler_map) - 1
        arguments = {
            **arguments_of(self._pipe, jobs[0]),
            "prompt": [job.prompt for job in jobs],
            "generator": [torch.Generator().manual_seed(job.seed) for job in jobs],
        }
        states: list[Tensor] = []
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(shifted(self._pipe, jobs[0].shift))
            with _changed(self._pipe.scheduler, change, states, self._on_step):
                self._pipe(**arguments, return_dict=False)
            facts = facts_of(self._pipe.scheduler)
        if len(states) != steps + 1 or len(states[0]) != len(jobs):
            raise AttachError(
                f"{type(self._pipe).__name__} took {len(states) - 1} sampler steps over {len(states[0]) if states else 0} "
                f"samples; expected {steps} steps over {len(jobs)} prompts at once"
            )
        if facts is None or facts.map is None or not _alike(facts.map, sampler_map):
            raise AttachError(
                f"{type(self._pipe.scheduler).__name__} does not step as the sampler that the runs were recorded with: give the "
                "pipeline that one, or solve these runs without a model"
            )
        return states


@contextlib.contextmanager
def _changed(scheduler: Any, change: StepChange, states: list[Tensor], on_step: Callable[[], None]) -> Iterator[None]:
    """Inside the block the scheduler steps with what ``change`` makes of an output, and its states are noted."""
    original = scheduler.step

    def step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not states:
            states.append(sample.detach().cpu().float())
        found = original(change(len(states) - 1, model_output, sample), timestep, sample, *args, **kwargs)
        after = found[0] if isinstance(found, tuple) else found.prev_sample
        states.append(after.detach().cpu().float())
        on_step()
        return found

    scheduler.step = step
    try:
        yield
    finally:
        del scheduler.step


def _errors(final: Tensor, exact: Tensor) -> list[float]:
    """Relative L2 of every run, (R,)."""
    wanted = exact.flatten(1).double()
    return [float(error) for error in (final.flatten(1).double() - wanted).norm(dim=1) / wanted.norm(dim=1)]


def _answer(output: Tensor, state: Tensor, exact_state: Tensor, exact_output: Tensor) -> float:
    """‖δv‖ / ‖δx‖ of a step, geometric mean over runs."""
    apart = [
        (found.detach().cpu().float() - wanted).flatten(1).double().norm(dim=1)
        for found, wanted in ((output, exact_output), (state, exact_state))
    ]
    return float(f"{float((apart[0] / apart[1]).log().mean().exp()):.6g}")


def _map_of(traces: Sequence[Trace]) -> Array:
    """What the sampler of runs of one setting does; that of Euler's where they do not say."""
    known = next((trace.sampler_map for trace in traces if trace.sampler_map is not None), None)
    return euler_map(traces[0].sigmas) if known is None else known


def _alike(a: Array, b: Array) -> bool:
    """Are these maps of one sampler, as far as signatures are?"""
    return a.shape == b.shape and float(np.max(np.abs(a - b))) <= TOLERANCE * float(np.max(np.abs(b)))


def _ids(traces: Sequence[Trace]) -> tuple[str, ...]:
    return tuple(trace.run_id for trace in traces)


def _jobs(traces: Sequence[Trace]) -> list[Job]:
    jobs = [_job(trace) for trace in traces]
    for trace, job in zip(traces, jobs, strict=True):
        if replace(job, prompt="", seed=0) != replace(jobs[0], prompt="", seed=0):
            reason = f"its size, guidance or shift differs from that of the {traces[0].label}; sample them apart"
            raise InvalidTrace(trace.label, reason, rule="traces.bucket")
    return jobs


def _job(trace: Trace) -> Job:
    head = trace.header
    if head.prompt is None or head.seed is None:
        reason = "its prompt was not published or it has no seed, so that it cannot be sampled again"
        raise InvalidTrace(trace.label, reason, rule="trace.prompt")
    if head.part is not None:
        reason = f"it is the expert {head.part!r}'s part of a run, which cannot be sampled alone; solve without a model"
        raise InvalidTrace(trace.label, reason, rule="traces.part")
    return Job(
        prompt=head.prompt,
        seed=head.seed,
        width=head.width,
        height=head.height,
        frames=head.frames,
        num_steps=head.num_steps,
        shift=head.shift,
        guidance_scale=head.guidance_scale,
    )


def _digest(model: str, batches: Sequence[tuple[str, ...]], plan: Policy) -> str:
    found = (model, *batches, plan.schedule, plan.forecaster, plan.coordinate, plan.applied_to)
    return hashlib.sha256(repr(found).encode()).hexdigest()[:32]


def _spelled(known: Mapping[str, Sampled]) -> str:
    """One JSON object with a line a plan: a search samples hundreds."""

    def spelled(one: Sampled) -> str:
        answers = {"answers": one.answers} if one.answers else {}
        return json.dumps({"errors": one.errors, "weights": one.weights, **answers}, allow_nan=False)

    lines = [f"{json.dumps(key)}: {spelled(one)}" for key, one in known.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _read(file: Path) -> dict[str, Sampled]:
    try:
        content = strict_json.parse(regular_files.read_bytes(file, max_bytes=MAX_BYTES), max_bytes=MAX_BYTES)
    except (OSError, strict_json.JSONTextError) as error:
        raise InvalidTrace(str(file), f"cannot be read ({error}); delete it to measure again") from error
    try:
        return {
            key: Sampled(
                _numbers(one["errors"]),
                tuple(_numbers(row) for row in one["weights"]),
                _numbers(one["answers"]) if "answers" in one else (),
            )
            for key, one in dict(content).items()
        }
    except (TypeError, KeyError, ValueError) as error:
        reason = (
            "expected one JSON object, with the errors and weights of a plan at every key; delete it to measure again"
        )
        raise InvalidTrace(str(file), reason) from error


def _numbers(values: Any) -> tuple[float, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise TypeError(values)
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        raise TypeError(values)
    return tuple(float(value) for value in values)
