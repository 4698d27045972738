"""`solve --measure`: plans sampled with the packaged reference model before one is chosen."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from easyteacache import TeaCache, calibration
from easyteacache.cli.main import main
from easyteacache.cli.measuring import _policy, measure_with
from easyteacache.errors import AttachError, InvalidTrace
from easyteacache.integrations.recording.sampled import LOST, SampledErrors
from easyteacache.reference import MovingDigitsPipeline, load_pipeline
from easyteacache.solver.choice import FittedPlans
from easyteacache.solver.fitted import correctable
from easyteacache.solver.plan import Plan
from easyteacache.solver.runs import Runs
from easyteacache.trace import TraceSet

RUNS, STEPS = 8, 8
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
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "traces"
    result = invoke("record", "reference", "--out", folder, *SMALL)
    assert result.exit_code == 0, result.output
    return folder


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


def test_a_measured_record_has_fitted_points_and_passes_validation(traces: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    result = solved(traces, out)
    assert result.exit_code == 0, result.output
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
    # Two runs in full, and once for every error.
    assert first == 2 + len(errors)
    before = (out.read_bytes(), kept.read_bytes())
    assert solved(traces, out).exit_code == 0
    assert len(calls) == first
    assert (out.read_bytes(), kept.read_bytes()) == before


def test_a_search_that_was_stopped_goes_on(traces: Path, tmp_path: Path, calls: list[Any]) -> None:
    out, kept = tmp_path / "c.json", tmp_path / "c.json.measured.json"
    assert solved(traces, out).exit_code == 0
    whole, errors = len(calls), json.loads(kept.read_text())
    record = out.read_bytes()
    out.unlink()
    kept.write_text(json.dumps(dict(list(errors.items())[:-3])))
    calls.clear()
    assert solved(traces, out).exit_code == 0
    assert len(calls) < whole
    assert json.loads(kept.read_text()) == errors
    assert out.read_bytes() == record


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "cannot be read"),
        ("", "empty"),
        ("[1.0]", "one JSON object"),
        ('{"a": "b"}', "one JSON object"),
        ('{"a": NaN}', "cannot be read"),
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


# The measure itself -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(traces: Path) -> Runs:
    return Runs.stack(TraceSet.load(traces).runs[:3])


@pytest.fixture(scope="module")
def plans(runs: Runs) -> list[Plan]:
    assert correctable(runs)
    return list(FittedPlans().plans(runs, (5, 3)).values())


def sample(pipe: Any, trace: Any) -> torch.Tensor:
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


def test_errors_are_those_of_samples_taken_by_hand(pipe: Any, runs: Runs, plans: list[Plan]) -> None:
    policies = [_policy(plan, runs) for plan in plans]
    found = SampledErrors(pipe).errors(runs.traces[:2], policies)
    for policy, row in zip(policies, found, strict=True):
        for trace, error in zip(runs.traces[:2], row, strict=True):
            exact = sample(pipe, trace)
            with TeaCache.from_policy(policy).attached(pipe, allow_borrowed=True) as cache:
                cached = sample(pipe, trace)
                assert cache.statistics()["cond"].computed == len(policy.schedule or ())
                assert cache.policy.weights == policy.weights
            assert error == pytest.approx(float((cached - exact).norm() / exact.norm()), rel=1e-6)
            assert 0 < error < 1
    assert not pipe.transformer._forward_hooks


def test_the_measure_samples_the_first_runs_of_a_bucket(
    pipe: Any, runs: Runs, plans: list[Plan], tmp_path: Path
) -> None:
    done: list[None] = []
    measure = measure_with(
        pipe, model="reference", runs=2, kept_in=tmp_path / "kept.json", on_run=lambda: done.append(None)
    )
    found = measure(runs, plans)
    assert found.shape == (2, 2)
    assert len(done) == 2 + 4
    expected = SampledErrors(pipe).errors(runs.traces[:2], [_policy(plan, runs) for plan in plans])
    assert found == pytest.approx(np.array(expected))


def test_errors_of_another_model_are_not_taken_for_its_own(
    pipe: Any, runs: Runs, plans: list[Plan], tmp_path: Path
) -> None:
    policies, done = [_policy(plans[0], runs)], list[None]()

    def measured(model: str) -> int:
        done.clear()
        SampledErrors(pipe, tmp_path / "kept.json", model=model, on_run=lambda: done.append(None)).errors(
            runs.traces[:1], policies
        )
        return len(done)

    assert [measured(model) for model in ("a", "a", "b", "a", "b")] == [2, 0, 2, 0, 0]


def test_a_sample_that_is_no_number_is_the_worst_of_all(
    pipe: Any, runs: Runs, plans: list[Plan], tmp_path: Path
) -> None:
    policy = _policy(plans[0], runs)
    wild = tuple(row if len(row) < 2 else (*row[:-1], 1e30) for row in policy.weights or ())
    broken = dataclasses.replace(policy, weights=wild)
    errors = SampledErrors(pipe, tmp_path / "kept.json")
    [[lost], [fine]] = errors.errors(runs.traces[:1], [broken, policy])
    assert (lost, fine < 1) == (LOST, True)
    again: list[None] = []
    kept = SampledErrors(pipe, tmp_path / "kept.json", on_run=lambda: again.append(None))
    assert kept.errors(runs.traces[:1], [broken]) == [[LOST]]
    assert not again


def test_a_model_that_samples_no_numbers_is_refused(pipe: Any, runs: Runs, plans: list[Plan]) -> None:
    with torch.no_grad():
        pipe.transformer.proj_out.bias.fill_(float("nan"))
    with pytest.raises(AttachError, match="samples no numbers"):
        SampledErrors(pipe).errors(runs.traces[:1], [_policy(plans[0], runs)])


@pytest.mark.parametrize("missing", ["prompt", "seed"])
def test_a_run_that_cannot_be_sampled_again_is_named(pipe: Any, runs: Runs, plans: list[Plan], missing: str) -> None:
    trace = runs.traces[0]
    bare = dataclasses.replace(trace, header=trace.header.model_copy(update={missing: None}))
    with pytest.raises(InvalidTrace, match="cannot be sampled again"):
        SampledErrors(pipe).errors([bare], [_policy(plans[0], runs)])


def test_runs_of_a_stochastic_sampler_are_not_fitted(pipe: Any) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    from easyteacache.integrations.recording import Job, RecordingSettings
    from easyteacache.integrations.recording.drive import record_run, resolved

    job = Job("3 right", 0, 16, 16, 1, STEPS)
    settings = RecordingSettings(model_key="reference/moving-digits")
    assert correctable(Runs.stack(record_run(pipe, resolved(pipe, job), settings)))
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    assert not correctable(Runs.stack(record_run(pipe, resolved(pipe, job), settings)))
