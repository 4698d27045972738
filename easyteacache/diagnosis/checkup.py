"""``doctor``: put a cache on a pipeline, run it once without and once with, and say plainly what is right and what is not."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from easyteacache.diagnosis import step_count
from easyteacache.diagnosis.answers import QUESTIONS, Answer, Diagnosis, Verdict
from easyteacache.diagnosis.observed_run import ObservedRun, observed
from easyteacache.errors import AttachError, EasyTeaCacheError, EasyTeaCacheWarning, InvalidTrace, StepOrderError
from easyteacache.integrations.diffusers.experts import ExpertCaches
from easyteacache.integrations.diffusers.pipeline import parts_of
from easyteacache.integrations.diffusers.recording.jobs import Job
from easyteacache.integrations.diffusers.recording.pipeline_runs import (
    RecordingSettings,
    arguments_of,
    record_run,
    resolved,
)
from easyteacache.integrations.diffusers.scheduler_facts import shifted
from easyteacache.policy.record_free import TOO_FEW
from easyteacache.solver.replay.runs import Runs
from easyteacache.teacache import TeaCache

if TYPE_CHECKING:
    from easyteacache.policy.policy import Policy
    from easyteacache.records.trace_set import Trace
    from easyteacache.runtime.statistics import RunStatistics

Cache: TypeAlias = TeaCache | ExpertCaches

#: A measured error may be this much above what a record promises: one run is not the mean of many.
PROMISE = 1.5
#: Share of a computed forward that a reused one may take before something else than the blocks is slow.
LIGHT = 0.5
_KEY = "checkup/run"


def doctor(
    pipe: Any,
    cache: Cache | None = None,
    *,
    speedup: float = 2.0,
    prompt: str = "a red fox in the snow",
    steps: int = 50,
    seed: int = 0,
    width: int | None = None,
    height: int | None = None,
    frames: int | None = None,
    guidance_scale: float | None = None,
    shift: float | None = None,
    thorough: bool = False,
    registry: Any = None,
    on_step: Callable[[], None] = lambda: None,
) -> Diagnosis:
    """Check a cache on a pipeline, in less than two uncached runs; nothing stays attached.

    One run without a cache is recorded, one runs with it. From the two and the recorded trace: whether a computed step is bit for bit the
    model's own, whether a reused one skips the blocks and what that saves here, whether branches are apart, whether the record's
    conditions hold, whether the result is nearer than fewer steps would be, whether caching helps at this step count at all, and whether the
    numbers are this model's.

    Args:
        pipe: a diffusers pipeline, with nothing attached.
        cache: what to check; None: the record that ``TeaCache.for_pipeline`` finds, or without one the universal plan.
        speedup: asked of the record that is found.
        prompt, steps, seed, width, height, frames, guidance_scale, shift: of the run; None leaves it to the pipeline.
        thorough: also sample with fewer steps instead of predicting that from the trace; ``1 + 2 / speedup`` uncached runs in all.
        registry: a folder or ``Registry`` to use instead of the default layers.
        on_step: called after every sampler step.

    Returns:
        The answers; ``healthy`` is False where one says not to use it like this.

    Raises:
        AttachError: the pipeline takes none of these arguments, or has no transformer.
        ValueError: an argument is out of range.
    """
    return _Checkup(pipe, Job(prompt, seed, width, height, frames, steps, shift, guidance_scale), on_step).run(
        cache, speedup=speedup, thorough=thorough, registry=registry
    )


class _Checkup:
    """One checkup; collects answers and figures."""

    def __init__(self, pipe: Any, job: Job, on_step: Callable[[], None]) -> None:
        self._pipe, self._job, self._on_step = pipe, resolved(pipe, job), on_step
        self._answers: dict[str, Answer] = {}
        self._figures: dict[str, float] = {}

    def run(self, cache: Cache | None, *, speedup: float, thorough: bool, registry: Any) -> Diagnosis:
        self._pipe.set_progress_bar_config(disable=True)
        began = time.perf_counter()
        cache = self._chosen(cache, speedup, registry)
        if not self._attachable(cache):
            return self._said(None)
        cache = self._of_this_model(cache, speedup)
        uncached, traces = self._uncached()
        once = time.perf_counter() - began
        if traces:
            self._judge_steps(traces[0], speedup)
        try:
            cached, given = self._cached(cache)
        except EasyTeaCacheError as error:
            self._answer("run", "bad", str(error), "Do what it says, then ask again.")
            return self._said(_named(_policies(cache)))
        policies = _policies(cache)
        self._answer("run", "good", "Yes.")
        self._judge_conditions(policies, given)
        self._judge_exactness(uncached, cached)
        runs = cache.statistics()
        self._judge_branches(uncached, runs)
        self._judge_skipping(uncached, cached, runs)
        far = _error(cached, uncached)
        self._judge_error(far, policies)
        self._judge_fewer_steps(far, uncached, traces, thorough=thorough)
        self._figures["cost"] = (time.perf_counter() - began) / once
        return self._said(_named(policies))

    # The cache -------------------------------------------------------------------------------------------------------

    def _chosen(self, cache: Cache | None, speedup: float, registry: Any) -> Cache:
        if cache is not None:
            return cache
        try:
            found = TeaCache.for_pipeline(self._pipe, speedup=speedup, registry=registry)
        except EasyTeaCacheError as error:
            self._answer("model", "note", f"No record was found: {error}", "What follows is of the universal plan.")
            return self._universal(speedup)
        return found

    def _universal(self, speedup: float) -> Cache:
        caches = {part: TeaCache.uncalibrated(speedup) for part in parts_of(self._pipe)}
        return next(iter(caches.values())) if len(caches) == 1 else ExpertCaches(caches)

    def _attachable(self, cache: Cache) -> bool:
        """Can anything at all be attached? A record of another model is a question of its own."""
        try:
            cache.attach(self._pipe, allow_borrowed=True)
        except AttachError as error:
            self._answer("attach", "bad", str(error), "Do what it says, then ask again; nothing was run.")
            return False
        except EasyTeaCacheError as error:
            self._answer("attach", "bad", str(error), "Choose another record or request; nothing was run.")
            return False
        cache.detach()
        self._answer(
            "attach", "good", f"Yes: {', '.join(type(part).__name__ for part in parts_of(self._pipe).values())}."
        )
        return True

    def _of_this_model(self, cache: Cache, speedup: float) -> Cache:
        """Are the numbers this model's? Those of another one are not run."""
        try:
            cache.attach(self._pipe)
        except AttachError as error:
            self._answer(
                "model", "bad", str(error), "Use a record of this model; what follows is of the universal plan."
            )
            return self._universal(speedup)
        cache.detach()
        if "model" not in self._answers:
            self._judge_model(_policies(cache))
        return cache

    def _judge_model(self, policies: Mapping[str, Policy]) -> None:
        policy = next(iter(policies.values()))
        if policy.layer == "none":
            self._answer(
                "model",
                "note",
                "There is no record: the plan was made without this model.",
                "easyteacache calibrate makes one.",
            )
        elif policy.model is not None and policy.model.configuration_sha256 is not None:
            self._answer("model", "good", f"{policy.model_key} was made with this class and configuration.")
        elif policy.model is not None and policy.model.class_name is not None:
            self._answer(
                "model",
                "good",
                f"{policy.model_key} was made with a {policy.model.class_name}; of its configuration it says nothing.",
            )
        else:
            self._answer(
                "model",
                "note",
                f"{policy.model_key} does not say which configuration it was made with; its family runs in this class.",
            )

    # The runs --------------------------------------------------------------------------------------------------------

    def _uncached(self) -> tuple[ObservedRun, tuple[Trace, ...]]:
        """One run without a cache, with its traces; without them where this pipeline cannot be recorded."""
        with observed(list(parts_of(self._pipe).values())) as run:
            try:
                traces = record_run(
                    self._pipe, self._job, RecordingSettings(_KEY), on_step=self._on_step, on_result=run.returned
                )
                # Without names of the branches nothing is known of their combination.
                Runs.stack(traces[:1])
            except (InvalidTrace, StepOrderError, AttachError) as error:
                self._answer("steps", "note", f"Not known, because this run cannot be recorded: {error}")
                traces = ()
        if run.final is None:
            return self._plain(), ()
        return run, traces

    def _plain(self, **changes: Any) -> ObservedRun:
        job = dataclasses.replace(self._job, **changes)
        with observed(list(parts_of(self._pipe).values())) as run, shifted(self._pipe, job.shift):
            run.returned(self._pipe(**arguments_of(self._pipe, job)))
        return run

    def _cached(self, cache: Cache) -> tuple[ObservedRun, list[str]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", EasyTeaCacheWarning)
            # What others warn of is theirs.
            with cache.attached(self._pipe):
                run = self._plain()
        given = [str(one.message) for one in caught if issubclass(one.category, EasyTeaCacheWarning)]
        return run, list(dict.fromkeys(given))

    # The answers -----------------------------------------------------------------------------------------------------

    def _judge_steps(self, trace: Trace, speedup: float) -> None:
        found = step_count.judged(trace, speedup=speedup)
        told = (
            f"{found.num_steps} steps. Computing {found.computed} of them, the run's own trace predicts an error of {found.error:.2g}; "
            f"sampling with {found.computed} steps {found.fewer_steps_error:.2g}."
        )
        if found.helps:
            self._answer("steps", "good", told)
        elif found.num_steps <= TOO_FEW:
            most = found.num_steps / (found.num_steps - 1)
            self._answer(
                "steps",
                "bad",
                f"No. {told} With so few steps one reused step is a speed-up of {most:.2f}, and models distilled for them change too much "
                "from step to step.",
                "Leave caching off, or use more steps.",
            )
        elif found.num_steps <= step_count.EXHAUSTIVE:
            self._answer("steps", "bad", f"Hardly. {told}", "Leave caching off, or use more steps.")
        else:
            self._answer("steps", "note", f"Only with a good plan. {told} That is of evenly spaced steps.")

    def _judge_conditions(self, policies: Mapping[str, Policy], given: list[str]) -> None:
        refusals = [policy.refusal for policy in policies.values() if policy.refusal is not None]
        if refusals:
            self._answer(
                "conditions",
                "bad",
                f"No, every step is computed: {refusals[0]}",
                "Run it as the record was made, calibrate this setting, or use TeaCache.uncalibrated.",
            )
        elif given:
            self._answer("conditions", "note", " ".join(given), "The notes of the cache say the rest.")
        else:
            evidence = sorted({policy.evidence or "no" for policy in policies.values()})
            self._answer("conditions", "good", f"Yes, without a warning ({' and '.join(evidence)} evidence).")

    def _judge_exactness(self, uncached: ObservedRun, cached: ObservedRun) -> None:
        # The first step of every branch is computed in both runs, from the same noise.
        count = len(uncached.outputs) if not self._job.num_steps else max(1, uncached.forwards // self._job.num_steps)
        pairs = list(zip(uncached.outputs[:count], cached.outputs[:count], strict=False))
        differing = [place for place, (a, b) in enumerate(pairs) if not torch.equal(a, b)]
        if not differing:
            self._answer(
                "exact", "good", f"Yes: {len(pairs)} forward{'s' * (len(pairs) != 1)} of the first step, bit for bit."
            )
            return
        a, b = pairs[differing[0]]
        self._answer(
            "exact",
            "bad",
            f"Forward {differing[0]} of the first step differs by {_relative(b, a):.2g} though it was computed.",
            "Look for what is random or keeps state in the model: dropout in training mode, another cache, an unseeded sampler.",
        )

    def _judge_branches(self, uncached: ObservedRun, runs: Mapping[str, RunStatistics]) -> None:
        per_step = uncached.forwards / self._job.num_steps
        names = ", ".join(dict.fromkeys(name.split("/")[-1] for name in runs)) or "none"
        branches = len({name.split("/")[-1] for name in runs})
        seen = sum(len(run.steps) for run in runs.values())
        if seen < uncached.forwards:
            self._answer(
                "branches",
                "bad",
                f"{uncached.forwards} forwards were run, {seen} were recognised (branches: {names}).",
                "Wrap each guidance forward in transformer.cache_context('cond') and ('uncond'), as diffusers' pipelines do.",
            )
        elif per_step > 1 and branches < round(per_step):
            self._answer(
                "branches",
                "bad",
                f"The pipeline calls the model {per_step:.3g} times a step, and all calls are one branch ({names}): they reuse each "
                "other's outputs.",
                "Wrap each guidance forward in transformer.cache_context('cond') and ('uncond'), as diffusers' pipelines do.",
            )
        elif branches == 1:
            self._answer(
                "branches",
                "good",
                "There is one forward a step: without guidance, distilled, or both branches in one batch.",
            )
        else:
            self._answer("branches", "good", f"Yes: {names}.")

    def _judge_skipping(self, uncached: ObservedRun, cached: ObservedRun, runs: Mapping[str, RunStatistics]) -> None:
        total, computed = sum(len(run.steps) for run in runs.values()), sum(run.computed for run in runs.values())
        self._figures["speedup"] = total / computed if computed else 1.0
        self._figures["time_saved"] = 1.0 - sum(cached.seconds) / sum(uncached.seconds)
        if total == computed:
            self._answer("skips", "bad", "No step was reused.", "See whether the record holds for this run.")
            return
        light, full = cached.took(blocks_ran=False), cached.took(blocks_ran=True)
        ran = sum(one is True for one in cached.blocks_ran)
        told = f"{total - computed} of {total} forwards were reused, which saved {self._figures['time_saved']:.0%} of the model's time"
        if None in cached.blocks_ran or light is None or full is None:
            self._answer("skips", "good" if self._figures["time_saved"] > 0 else "note", f"{told}.")
            return
        self._figures["reused_share"] = light / full
        if ran > computed:
            self._answer(
                "skips",
                "bad",
                f"{told}, but blocks ran in {ran} forwards where {computed} were to be computed.",
                "Report this.",
            )
        elif light > LIGHT * full:
            self._answer(
                "skips",
                "note",
                f"{told}; a reused forward takes {light / full:.0%} of a computed one.",
                "What is left lies outside the blocks: offloading, a text encoder in the loop, or a very small model.",
            )
        else:
            self._answer("skips", "good", f"{told}; a reused forward takes {light / full:.1%} of a computed one.")

    def _judge_error(self, error: float, policies: Mapping[str, Policy]) -> None:
        self._figures["error"] = error
        promised = [policy.expected_error for policy in policies.values() if policy.expected_error is not None]
        told = f"Relative L2 of the final latents: {error:.3g}"
        if not promised:
            verdict: Verdict = "bad" if error > step_count.FAR else "note"
            fix = "Ask for less speed-up, or calibrate this model." if verdict == "bad" else ""
            self._answer("error", verdict, f"{told}; nobody promised a figure.", fix)
        elif error <= PROMISE * max(promised):
            self._answer("error", "good", f"{told}; promised {max(promised):.3g} on average.")
        else:
            self._answer(
                "error",
                "bad",
                f"{told}, more than {PROMISE:g} times the promised {max(promised):.3g}.",
                "Try other seeds; if they agree, the record does not hold here: calibrate this model.",
            )

    def _judge_fewer_steps(
        self,
        error: float,
        uncached: ObservedRun,
        traces: tuple[Trace, ...],
        *,
        thorough: bool,
    ) -> None:
        rate = self._figures["speedup"]
        computed = max(1, round(self._job.num_steps / rate))
        if computed >= self._job.num_steps:
            return
        if thorough:
            fewer, how = _error(self._plain(num_steps=computed), uncached), "sampled"
        elif traces and len(traces) == 1:
            fewer, how = step_count.fewer_steps_error(traces[0], computed), "predicted from the trace"
        else:
            return
        self._figures["fewer_steps_error"] = fewer
        told = f"{computed} steps without a cache give {fewer:.3g} ({how}), the cache {error:.3g}"
        if error < fewer:
            self._answer("fewer-steps", "good", f"Yes, {fewer / max(error, 1e-12):.1f} times: {told}.")
        else:
            self._answer(
                "fewer-steps", "bad", f"No: {told}.", f"Sample with {computed} steps instead, or calibrate this model."
            )

    def _answer(self, question: str, verdict: Verdict, text: str, fix: str = "") -> None:
        self._answers[question] = Answer(question, verdict, text, fix)

    def _said(self, applied: str | None) -> Diagnosis:
        ordered = tuple(self._answers[question] for question in QUESTIONS if question in self._answers)
        return Diagnosis(ordered, applied, self._figures)


def _policies(cache: Cache) -> Mapping[str, Policy]:
    return cache.policies if isinstance(cache, ExpertCaches) else {"transformer": cache.policy}


def _named(policies: Mapping[str, Policy]) -> str:
    return "; ".join(dict.fromkeys(f"{policy.model_key} (layer {policy.layer})" for policy in policies.values()))


def _error(run: ObservedRun, exact: ObservedRun) -> float:
    assert run.final is not None
    assert exact.final is not None
    return _relative(run.final, exact.final)


def _relative(found: Tensor, wanted: Tensor) -> float:
    a, b = found.double(), wanted.double()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))
