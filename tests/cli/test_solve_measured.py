"""`solve --measure`: plans sampled with the packaged reference model before one is chosen."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from easyteacache import TeaCache
from easyteacache.calibrating.measuring import measure_with, policy_of
from easyteacache.cli.main import main
from easyteacache.errors import AttachError, InvalidTrace
from easyteacache.integrations.diffusers.recording.plan_sampling import LOST, Sampled, SampledPlans
from easyteacache.integrations.diffusers.recording.trajectory_fit import Refit
from easyteacache.policy.policy import Policy
from easyteacache.records import calibration
from easyteacache.records.sampler import SamplerRecord
from easyteacache.records.trace_set import TraceSet
from easyteacache.reference import MovingDigitsPipeline, load_pipeline
from easyteacache.solver.replay.fitted_weights import StateFit, correctable
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.replay.segment_objective import typical
from easyteacache.solver.search.planner import Plan

RUNS, STEPS = 8, 8
Shared = Callable[[str, Callable[[Path], None]], Path]
SMALL = ("--size", "16x16", "--frames", "1", "--steps", STEPS, "--num-prompts", RUNS)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def traces(shared: Shared) -> Path:
    def record(folder: Path) -> None:
        result = invoke("record", "reference", "--out", folder / "traces", *SMALL)
        assert result.exit_code == 0, result.output

    return shared("measured-traces", record) / "traces"


@pytest.fixture
def measured(shared: Shared, traces: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The record that ``solved(traces, …)`` writes and what it keeps of its samples; each test has its own copy."""

    def solve(folder: Path) -> None:
        result = solved(traces, folder / "c.json")
        assert result.exit_code == 0, result.output

    for file in shared("measured-record", solve).glob("c.json*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "c.json", tmp_path / "c.json.measured.json"


@pytest.fixture
def pipe() -> MovingDigitsPipeline:
    found = load_pipeline()
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One entry for every run of the reference pipeline."""
    made: list[Any] = []
    original = MovingDigitsPipeline.__call__

    def counted(self: Any, prompt: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(prompt)
        return original(self, prompt, *args, **kwargs)

    counted.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    monkeypatch.setattr(MovingDigitsPipeline, "__call__", counted)
    return made


def solved(traces: Path, out: Path, *more: object) -> Result:
    return invoke("solve", traces, "--out", out, "--measure", "reference", "--measure-runs", 2, *more)


def test_a_measured_record_has_fitted_points_and_passes_validation(traces: Path, measured: tuple[Path, Path]) -> None:
    out, _ = measured
    [bucket] = calibration.load(out).buckets
    fitted = [point for point in bucket.operating_points if point.weights is not None]
    assert fitted
    assert all(point.schedule is not None and len(point.weights or ()) == STEPS for point in fitted)
    result = invoke("validate", out, "--traces", traces)
    assert result.exit_code == 0, result.output


def test_what_was_measured_is_kept_and_not_measured_again(traces: Path, tmp_path: Path, calls: list[Any]) -> None:
    out, kept = tmp_path / "c.json", tmp_path / "c.json.measured.json"
    assert solved(traces, out).exit_code == 0
    first, errors = len(calls), json.loads(kept.read_text())
    # One run for its time, the runs in full, together, and once for every plan.
    assert first == 2 + len(errors)
    assert all(len(one["errors"]) == 2 and len(one["weights"]) == STEPS for one in errors.values())
    before = (out.read_bytes(), kept.read_bytes())
    assert solved(traces, out).exit_code == 0
    assert len(calls) == first
    assert (out.read_bytes(), kept.read_bytes()) == before


def test_a_search_that_was_stopped_goes_on(traces: Path, measured: tuple[Path, Path], calls: list[Any]) -> None:
    out, kept = measured
    errors, record = json.loads(kept.read_text()), out.read_bytes()
    out.unlink()
    kept.write_text(json.dumps(dict(list(errors.items())[:-3])))
    assert solved(traces, out).exit_code == 0
    # The runs in full, together, and once for every plan that is lacking.
    assert len(calls) == 1 + 3
    assert json.loads(kept.read_text()) == errors
    assert out.read_bytes() == record


def test_how_long_it_will_take_is_said_before_and_what_is_done_meanwhile(
    traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SampledPlans, "seconds", lambda self, runs: 20.0)
    result = solved(traces, tmp_path / "c.json")
    assert result.exit_code == 0
    # Without a terminal, as here, in lines.
    lines = [line for line in result.stderr.splitlines() if "sampling" in line]
    assert re.fullmatch(
        rf"sampling plans of {STEPS} steps will take as long as about (\d+) uncached runs: (\d+) (minutes|seconds), for one takes 20 seconds",
        lines[0],
    )
    assert any(re.fullmatch(rf"sampling 4 of {STEPS} steps, linear.*", line) for line in lines[1:])
    # With --json nothing but the JSON is printed.
    assert json.loads(solved(traces, tmp_path / "d.json", "--json").stdout)["points"]


def test_more_schedules_and_fillings_are_sampled_where_everything_is_asked_for(
    traces: Path, measured: tuple[Path, Path], tmp_path: Path
) -> None:
    everything = tmp_path / "all.json"
    assert solved(traces, everything, "--measure-all").exit_code == 0
    few, all_ = (json.loads(file.read_text()) for file in (measured[1], Path(f"{everything}.measured.json")))
    assert len(all_) > 1.5 * len(few)


def test_an_interrupted_search_says_where_its_results_are(
    traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, kept = tmp_path / "c.json", tmp_path / "c.json.measured.json"
    sample, count = SampledPlans._sample, 0

    def stopped(self: SampledPlans, *args: Any, **settings: Any) -> Any:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return sample(self, *args, **settings)

    monkeypatch.setattr(SampledPlans, "_sample", stopped)
    result = solved(traces, out)
    assert result.exit_code == 130
    assert kept.name in result.output.replace("\n", "")
    assert "the same command goes on" in " ".join(result.output.split())
    assert len(json.loads(kept.read_text())) == 3
    assert not out.exists()


def test_the_model_is_loaded_as_asked_and_its_results_kept_apart(traces: Path, measured: tuple[Path, Path]) -> None:
    out, kept = measured
    plain = set(json.loads(kept.read_text()))
    assert solved(traces, out, "--dtype", "bfloat16", "--device", "cpu").exit_code == 0
    both = json.loads(kept.read_text())
    assert plain < set(both)
    halves = [one["errors"] for name, one in both.items() if name not in plain]
    assert all(0 < error < 1 for errors in halves for error in errors)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "cannot be read"),
        ("", "empty"),
        ("[1.0]", "one JSON object"),
        ('{"a": "b"}', "one JSON object"),
        ('{"a": 0.5}', "one JSON object"),
        ('{"a": {"errors": [0.5]}}', "one JSON object"),
        ('{"a": {"errors": [true], "weights": [[1.0]]}}', "one JSON object"),
        ('{"a": {"errors": [0.5], "weights": ["1.0"]}}', "one JSON object"),
        ('{"a": {"errors": [NaN], "weights": [[1.0]]}}', "cannot be read"),
    ],
)
def test_a_damaged_kept_file_is_refused_and_left_alone(traces: Path, tmp_path: Path, content: str, word: str) -> None:
    out, kept = tmp_path / "c.json", tmp_path / "c.json.measured.json"
    kept.write_text(content)
    result = solved(traces, out)
    assert result.exit_code == 1
    assert word in result.output
    assert "delete it to measure again" in result.output.replace("\n", " ")
    assert kept.read_text() == content
    assert not out.exists()


def test_runs_with_hidden_prompts_cannot_be_measured(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    assert invoke("record", "reference", "--out", folder, *SMALL, "--hide-prompts").exit_code == 0
    result = solved(folder, tmp_path / "c.json")
    assert result.exit_code == 1
    assert "prompt was not published" in result.output.replace("\n", " ")
    assert not (tmp_path / "c.json").exists()
    # The traces alone are enough otherwise.
    assert invoke("solve", folder, "--out", tmp_path / "c.json").exit_code == 0


def test_runs_of_another_sampler_are_not_measured_and_no_model_is_opened(
    traces: Path, tmp_path: Path, calls: list[Any]
) -> None:
    sampler = SamplerRecord(name="UniPCMultistepScheduler", calls=STEPS, prediction="velocity")
    others = [
        dataclasses.replace(trace, header=trace.header.model_copy(update={"sampler": sampler}), sampler_map=None)
        for trace in TraceSet.load(traces)
    ]
    TraceSet(others).save(tmp_path / "others.safetensors")
    result = invoke(
        "solve", tmp_path / "others.safetensors", "--out", tmp_path / "c.json", "--measure", "no/such-model"
    )
    assert result.exit_code == 2
    assert "solve them without it" in " ".join(result.output.split())
    assert not calls


# The measure itself -------------------------------------------------------------------------------------------------------

BY_FORECAST = Plan(Filling("linear"), (0, 3, 5))
EVERY = [BY_FORECAST, Plan(Filling("fitted", "step", "output"), (0, 2, 3, 6)), Plan(Filling("foca"), (0, 2, 5, 7))]


@pytest.fixture(scope="module")
def runs(traces: Path) -> Runs:
    found = Runs.stack(TraceSet.load(traces).runs[:3])
    assert correctable(found)
    return found


def sampled(pipe: Any, trace: Any) -> torch.Tensor:
    head = trace.header
    latents = pipe(
        head.prompt,
        head.frames,
        head.height,
        head.width,
        head.num_steps,
        head.guidance_scale,
        generator=torch.Generator().manual_seed(head.seed),
        output_type="latent",
        return_dict=False,
    )[0]
    return latents.double()


def weighted(plan: Plan, weights: Any) -> Plan:
    return dataclasses.replace(plan, filling=dataclasses.replace(plan.filling, weights=weights))


def started(plan: Plan, runs: Runs) -> Policy:
    """With the traces' weights, as the solver asks for it."""
    return policy_of(weighted(plan, StateFit(runs).weights(plan.computed)), runs)


@pytest.mark.parametrize("plan", EVERY, ids=lambda plan: plan.filling.forecaster)
def test_errors_are_those_of_the_runtime_with_the_weights_that_were_found(pipe: Any, runs: Runs, plan: Plan) -> None:
    found = SampledPlans(pipe).sampled(runs.traces, started(plan, runs))
    policy = policy_of(weighted(plan, found.weights), runs)
    for trace, error in zip(runs.traces, found.errors, strict=True):
        exact = sampled(pipe, trace)
        with TeaCache.from_policy(policy).attached(pipe, allow_borrowed=True) as cache:
            cached = sampled(pipe, trace)
            assert cache.statistics()["cond"].computed == len(plan.computed)
            assert cache.policy.weights == found.weights
        assert error == pytest.approx(float((cached - exact).norm() / exact.norm()), rel=1e-3)
        assert 0 < error < 1
    assert not pipe.transformer._forward_hooks
    assert "step" not in vars(pipe.scheduler)


@pytest.mark.parametrize("plan", EVERY, ids=lambda plan: plan.filling.forecaster)
def test_weights_of_its_own_are_better_than_those_of_the_traces(pipe: Any, runs: Runs, plan: Plan) -> None:
    found = SampledPlans(pipe).sampled(runs.traces, started(plan, runs))
    policy = started(plan, runs)
    with TeaCache.from_policy(policy).attached(pipe, allow_borrowed=True):
        cached = [sampled(pipe, trace) for trace in runs.traces]
    exact = [sampled(pipe, trace) for trace in runs.traces]
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(cached, exact, strict=True)]
    assert float(typical(np.array(found.errors))) < float(typical(np.array(errors)))


@pytest.mark.parametrize("plan", EVERY, ids=lambda plan: plan.filling.forecaster)
def test_answers_are_how_far_outputs_are_off_relative_to_states(pipe: Any, runs: Runs, plan: Plan) -> None:
    def watched(policy: Policy | None, trace: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        states, outputs, step = [], [], pipe.scheduler.step

        def noted(output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            states.append(sample.double())
            outputs.append(output.double())
            return step(output, timestep, sample, *args, **kwargs)

        pipe.scheduler.step = noted
        try:
            if policy is None:
                sampled(pipe, trace)
            else:
                # Uncorrected: what the model gives at computed steps is what is compared.
                with TeaCache.from_policy(policy).attached(pipe, allow_borrowed=True):
                    sampled(pipe, trace)
        finally:
            del pipe.scheduler.step
        return states, outputs

    found = SampledPlans(pipe).sampled(runs.traces[:1], started(plan, runs))
    assert len(found.answers) == len(plan.computed) - 1
    assert all(0.05 < answer < 50 for answer in found.answers)
    # Up to the second computed step nothing was corrected, so that the plain plan shows the same first answer.
    filling = Filling("hold") if plan.filling.forecaster == "fitted" else plan.filling
    plain = policy_of(Plan(filling, plan.computed), runs)
    if plan.filling.forecaster != "fitted":
        (x, v), (y, w) = watched(None, runs.traces[0]), watched(plain, runs.traces[0])
        step = plan.computed[1]
        expected = float((w[step] - v[step]).norm() / (y[step] - x[step]).norm())
        assert found.answers[0] == pytest.approx(expected, rel=1e-2)


def test_the_measure_samples_the_first_runs_of_a_bucket(pipe: Any, runs: Runs, tmp_path: Path) -> None:
    steps: list[None] = []
    measure = measure_with(
        pipe, model="reference", runs=2, kept_in=tmp_path / "kept.json", on_step=lambda: steps.append(None)
    )
    weights = StateFit(runs).weights(BY_FORECAST.computed)
    found = measure(runs, weighted(BY_FORECAST, weights))
    assert len(steps) == 2 * STEPS
    expected = SampledPlans(pipe).sampled(runs.traces[:2], started(BY_FORECAST, runs))
    assert (found.weights, tuple(found.errors)) == (expected.weights, expected.errors)
    assert found.answers == dict(zip(BY_FORECAST.computed[1:], expected.answers, strict=True))


def test_more_runs_than_were_recorded_are_their_prompts_with_further_seeds(
    pipe: Any, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def sampled(self: SampledPlans, traces: Any, plan: Policy, *, batch: int | None) -> Sampled:
        assert batch == 4
        asked.extend(traces)
        return Sampled((0.1,), ())

    monkeypatch.setattr(SampledPlans, "sampled", sampled)
    plan = weighted(BY_FORECAST, StateFit(runs).weights(BY_FORECAST.computed))
    measure = measure_with(pipe, model="", runs=7, batch=4, kept_in=tmp_path / "kept.json", on_step=lambda: None)
    measure(runs, plan)
    assert asked == list(runs.traces)
    asked.clear()
    assert measure.batches(runs) == 2
    measure(runs, plan, batches=2)
    heads = [trace.header for trace in asked]
    assert [head.prompt for head in heads] == [
        trace.header.prompt for trace in (*runs.traces, *runs.traces, runs.traces[0])
    ]
    assert len({(head.prompt, head.seed) for head in heads}) == 7
    assert len({trace.run_id for trace in asked}) == 7
    assert asked[:3] == list(runs.traces)
    assert min(head.seed for head in heads[3:]) > 1_000_000
    # A choice begins with the first batch of the same runs.
    both = [trace.run_id for trace in asked]
    asked.clear()
    measure(runs, plan, batches=1)
    assert [trace.run_id for trace in asked] == both[:4]


def test_weights_are_fitted_on_the_first_batch_and_the_others_follow_them(
    pipe: Any, runs: Runs, tmp_path: Path
) -> None:
    for plan in EVERY:
        asked = started(plan, runs)
        both = SampledPlans(pipe, file=tmp_path / "kept.json").sampled(runs.traces, asked, batch=2)
        alone = SampledPlans(pipe).sampled(runs.traces[:2], asked)
        assert both.weights == alone.weights
        assert both.errors[:2] == alone.errors
        last = runs.traces[2]
        with TeaCache.from_policy(dataclasses.replace(asked, weights=alone.weights)).attached(
            pipe, allow_borrowed=True
        ):
            cached = sampled(pipe, last)
        exact = sampled(pipe, last)
        assert both.errors[2] == pytest.approx(float((cached - exact).norm() / exact.norm()), rel=1e-4)
        # What was sampled in another division is not taken for it.
        together = SampledPlans(pipe, file=tmp_path / "kept.json").sampled(runs.traces, asked)
        assert together.weights != both.weights


def test_of_more_batches_only_those_are_sampled_that_are_not_known(pipe: Any, runs: Runs, tmp_path: Path) -> None:
    steps: list[None] = []
    plans = SampledPlans(pipe, file=tmp_path / "kept.json", on_step=lambda: steps.append(None))
    asked = started(BY_FORECAST, runs)
    first = plans.sampled(runs.traces[:2], asked, batch=2)
    assert len(steps) == 2 * STEPS
    both = plans.sampled(runs.traces, asked, batch=2)
    # The last run without a cache and with it.
    assert len(steps) == 4 * STEPS
    assert both.errors[:2] == first.errors
    assert len(both.errors) == 3
    assert plans.sampled(runs.traces, asked, batch=2) == both
    assert len(steps) == 4 * STEPS


@pytest.mark.parametrize("part", ["errors", "weights", "answers"])
def test_kept_results_of_other_runs_or_steps_are_refused(traces: Path, measured: tuple[Path, Path], part: str) -> None:
    out, kept = measured
    known = json.loads(kept.read_text())
    next(iter(known.values()))[part].pop()
    kept.write_text(json.dumps(known))
    result = solved(traces, out)
    assert result.exit_code == 1
    assert "expected errors of" in result.output.replace("\n", " ")
    assert "delete it to measure again" in " ".join(result.output.split())


def test_only_runs_of_one_guidance_are_sampled_together(pipe: Any, runs: Runs, tmp_path: Path) -> None:
    first, second, third = runs.traces
    other = dataclasses.replace(second, header=second.header.model_copy(update={"guidance_scale": 5.0}))
    mixed = dataclasses.replace(runs, traces=(first, other, third))
    measure = measure_with(pipe, model="reference", runs=2, kept_in=tmp_path / "kept.json", on_step=lambda: None)
    weights = StateFit(runs).weights(BY_FORECAST.computed)
    assert measure(mixed, weighted(BY_FORECAST, weights)).errors.shape == (2,)
    with pytest.raises(InvalidTrace, match="sample them apart"):
        SampledPlans(pipe).sampled(mixed.traces, started(BY_FORECAST, runs))


def test_results_of_another_model_are_not_taken_for_its_own(pipe: Any, runs: Runs, tmp_path: Path) -> None:
    done: list[None] = []

    def measured(model: str) -> int:
        done.clear()
        SampledPlans(pipe, file=tmp_path / "kept.json", model=model, on_step=lambda: done.append(None)).sampled(
            runs.traces[:1], started(BY_FORECAST, runs)
        )
        return len(done) // STEPS

    assert [measured(model) for model in ("a", "a", "b", "a", "b")] == [2, 0, 2, 0, 0]


def test_a_sample_that_is_no_number_is_the_worst_of_all(
    pipe: Any, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed = Refit.handed

    def broken(self: Refit, step: int, output: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        found = handed(self, step, output, state)
        found[0] *= float("nan") if step == 4 else 1.0
        return found

    monkeypatch.setattr(Refit, "handed", broken)
    plans = SampledPlans(pipe, file=tmp_path / "kept.json")
    lost, fine = plans.sampled(runs.traces[:2], started(EVERY[1], runs)).errors
    assert (lost, fine < 1) == (LOST, True)
    monkeypatch.undo()
    kept = SampledPlans(pipe, file=tmp_path / "kept.json")
    assert kept.sampled(runs.traces[:2], started(EVERY[1], runs)).errors == (lost, fine)


def test_a_model_that_samples_no_numbers_is_refused(pipe: Any, runs: Runs) -> None:
    with torch.no_grad():
        pipe.transformer.proj_out.bias.fill_(float("nan"))
    with pytest.raises(AttachError, match="samples no numbers"):
        SampledPlans(pipe).sampled(runs.traces[:1], started(BY_FORECAST, runs))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": None}, "cannot be sampled again"),
        ({"seed": None}, "cannot be sampled again"),
        ({"part": "high-noise"}, "cannot be sampled alone"),
    ],
)
def test_a_run_that_cannot_be_sampled_again_is_named(pipe: Any, runs: Runs, change: Any, said: str) -> None:
    trace = runs.traces[0]
    bare = dataclasses.replace(trace, header=trace.header.model_copy(update=change))
    with pytest.raises(InvalidTrace, match=said):
        SampledPlans(pipe).sampled([bare], started(BY_FORECAST, runs))


def test_a_pipeline_that_takes_other_steps_is_refused_and_left_as_it_was(
    pipe: Any, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoise = MovingDigitsPipeline._denoise

    def shorter(self: Any, state: Any, num_inference_steps: int, **kwargs: Any) -> None:
        denoise(self, state, num_inference_steps - 1, **kwargs)

    monkeypatch.setattr(MovingDigitsPipeline, "_denoise", shorter)
    with pytest.raises(AttachError, match=f"took {STEPS - 1} sampler steps"):
        SampledPlans(pipe).sampled(runs.traces[:1], started(BY_FORECAST, runs))
    assert "step" not in vars(pipe.scheduler)


def test_a_pipeline_with_another_sampler_than_the_runs_is_refused(pipe: Any, runs: Runs) -> None:
    from diffusers import UniPCMultistepScheduler

    own = pipe.scheduler
    pipe.scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    try:
        with pytest.raises(AttachError, match="UniPCMultistepScheduler does not step as the sampler that the runs"):
            SampledPlans(pipe).sampled(runs.traces[:1], started(BY_FORECAST, runs))
    finally:
        pipe.scheduler = own


def test_runs_of_a_stochastic_sampler_are_not_fitted(pipe: Any) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    from easyteacache.integrations.diffusers.recording import Job, RecordingSettings
    from easyteacache.integrations.diffusers.recording.pipeline_runs import record_run, resolved

    job = Job("3 right", 0, 16, 16, 1, STEPS)
    settings = RecordingSettings(model_key="reference/moving-digits")
    assert correctable(Runs.stack(record_run(pipe, resolved(pipe, job), settings)))
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    assert not correctable(Runs.stack(record_run(pipe, resolved(pipe, job), settings)))
