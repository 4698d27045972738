from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyteacache.errors import InvalidCalibration, InvalidTrace, NotEnoughTraces, SignalMismatch, UnreachableTarget
from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import request_and_run
from easyteacache.records.calibration import Calibration
from easyteacache.records.trace_set import Trace, TraceSet
from easyteacache.solver import solve as solve_module
from easyteacache.solver.fit.options import FitOptions
from easyteacache.solver.solve import Labels, solve

pytestmark = pytest.mark.floors

MakeSet = Callable[..., TraceSet]


def relabelled(trace: Trace, **changes: Any) -> Trace:
    return dataclasses.replace(trace, header=trace.header.model_copy(update=changes))


@pytest.fixture(scope="module")
def record(make_set: MakeSet) -> Calibration:
    return solve(make_set(12, steps=20)).calibration


def test_a_solved_record_is_a_draft_of_the_recorded_model(record: Calibration) -> None:
    assert (record.status, record.model_key, record.method) == ("draft", "test/smooth", "teacache")
    assert record.fitted_output == "block_output"
    assert record.conditions.guidance_scale == 3.0
    bucket = record.buckets[0]
    assert bucket.setting == (64, 20, 3.0)
    assert bucket.domain is not None
    assert bucket.sigma_profile is not None
    assert bucket.quality is not None
    assert bucket.quality.runs == 9


def test_a_record_survives_its_file(record: Calibration) -> None:
    assert Calibration.from_json(record.to_json()) == record


def test_the_same_traces_give_the_same_bytes(make_set: MakeSet, record: Calibration) -> None:
    assert solve(make_set(12, steps=20)).calibration.to_json() == record.to_json()


def test_the_order_of_the_runs_does_not_matter(make_set: MakeSet, record: Calibration) -> None:
    shuffled = TraceSet(reversed(make_set(12, steps=20).runs))
    assert solve(shuffled).calibration.to_json() == record.to_json()


def test_every_target_has_a_schedule_and_operating_points_slow_down_never(record: Calibration) -> None:
    points = record.buckets[0].operating_points
    assert sorted({p.computed_steps for p in points if p.schedule}, reverse=True) == [16, 13, 10, 8, 6, 5, 4]
    speeds = [p.speedup for p in points]
    assert speeds == sorted(speeds)  # type: ignore[type-var]
    for point in points:
        (evidence,) = point.evidence
        assert (evidence.kind, evidence.how, evidence.metric, evidence.runs) == (
            "submitted",
            "replayed",
            "relative-l2",
            3,
        )
        assert 0 <= evidence.p50 <= evidence.p90 <= evidence.worst  # type: ignore[operator]
        assert point.error is not None
        assert evidence.p50 <= 2 * point.error.mean  # type: ignore[operator]


def test_thresholds_go_the_worst_first_until_the_gates_are_no_worse_than_without_a_fit(
    make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: dict[float, float] = {}

    def against(_: Any, gates: dict[int, Policy]) -> dict[int, float]:
        return {place: losses.get(policy.threshold, 0.0) for place, policy in gates.items()}

    def solved() -> tuple[list[float], list[Any]]:
        points = solve(make_set(12, steps=20)).calibration.buckets[0].operating_points
        gates = [point.threshold for point in points if point.threshold is not None]
        return gates, [point.schedule for point in points if point.threshold is None]

    monkeypatch.setattr(solve_module, "_against_identity", against)
    everything, schedules = solved()
    different = sorted(set(everything))
    assert len(different) > 4
    # Without the worst one the bad one is less than 10 % in the mean of all.
    losses |= {different[1]: 2.0, different[0]: 0.3}
    assert solved() == ([threshold for threshold in everything if threshold != different[1]], schedules)


def test_the_runtime_chooses_a_solved_point_by_speed_or_error(record: Calibration) -> None:
    fast = resolve(record, *request_and_run(sequence_length=64, num_steps=20, shift=3.0, speedup=4.0))
    assert fast.expected_speedup == pytest.approx(4.0)
    careful = resolve(record, *request_and_run(sequence_length=64, num_steps=20, shift=3.0, max_error=0.01))
    assert careful.expected_error is not None
    assert careful.expected_error <= 0.01
    with pytest.raises(UnreachableTarget, match="offers"):
        resolve(record, *request_and_run(sequence_length=64, num_steps=20, shift=3.0, speedup=50.0))


def test_one_bucket_per_length_and_step_count(make_set: MakeSet) -> None:
    sets = [make_set(6, steps=steps, length=length) for steps, length in ((12, 64), (16, 64), (12, 100))]
    record = solve(TraceSet.merge(*sets), signal="modulated_input").calibration
    assert [bucket.setting for bucket in record.buckets] == [(64, 12, 3.0), (64, 16, 3.0), (100, 12, 3.0)]


def test_options_are_kept_so_that_the_fit_can_be_repeated(make_set: MakeSet) -> None:
    options = FitOptions("auto", 2, True)
    record = solve(make_set(6, steps=10), signal="modulated_input", options=options).calibration
    assert FitOptions.parse(record.provenance.tool_options, where="test") == options
    assert len(record.buckets[0].coefficients or ()) == 3


def test_labels_stand_in_the_record(make_set: MakeSet) -> None:
    labels = Labels(
        model_key="family/other", title="Other", license="CC0-1.0", author="me", date="2026-01-02", revision=4
    )
    record = solve(make_set(6, steps=10), signal="modulated_input", labels=labels).calibration
    assert (record.model_key, record.title, record.revision) == ("family/other", "Other", 4)
    assert (record.provenance.license, record.provenance.date) == ("CC0-1.0", "2026-01-02")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (Labels(model_key="My Model"), "model_key: expected a model key"),
        (Labels(model_key="family/con"), "reserved file name"),
        (Labels(date="yesterday"), "date: expected a date YYYY-MM-DD"),
        (Labels(license=""), "license"),
        (Labels(notes=("fine", "")), r"notes\[1\]"),
    ],
)
def test_labels_that_no_record_may_hold_are_refused_before_solving(
    labels: Labels, words: str, make_set: MakeSet
) -> None:
    told: list[str] = []
    with pytest.raises(InvalidCalibration, match=words):
        solve(make_set(6, steps=10), labels=labels, progress=told.append)
    assert not told


def test_trace_files_are_named_with_their_hashes(make_set: MakeSet, tmp_path: Path) -> None:
    reference = make_set(6, steps=10).save(tmp_path / "runs.safetensors")
    record = solve(TraceSet.load(tmp_path), signal="modulated_input").calibration
    assert record.provenance.traces == (reference,)


def test_an_expert_has_its_own_key(make_set: MakeSet) -> None:
    runs = TraceSet(relabelled(trace, part="high-noise") for trace in make_set(6, steps=10))
    assert solve(runs, signal="modulated_input").calibration.model_key == "test/smooth/high-noise"


def test_experts_are_not_mixed(make_set: MakeSet) -> None:
    runs = make_set(6, steps=10).runs
    mixed = TraceSet([*runs[:3], *(relabelled(trace, part="low-noise") for trace in runs[3:])])
    with pytest.raises(InvalidTrace, match="--part"):
        solve(mixed)


def test_models_are_not_mixed(make_set: MakeSet) -> None:
    with pytest.raises(InvalidTrace, match="several models"):
        solve(TraceSet.merge(make_set(6), make_set(6, key="test/other")))


@pytest.mark.parametrize("runs", [1, 2, 4, 5])
def test_too_few_runs_say_how_many_are_missing(runs: int, make_set: MakeSet) -> None:
    with pytest.raises(NotEnoughTraces, match=f"{runs} found: record {6 - runs} more"):
        solve(make_set(runs))


def test_a_signal_nobody_recorded_is_refused(make_set: MakeSet) -> None:
    with pytest.raises(SignalMismatch):
        solve(make_set(6), signal="timestep_embedding")


def test_a_useless_signal_is_called_so_in_the_record(make_set: MakeSet) -> None:
    solution = solve(make_set(8, steps=20), signal="hidden_states")
    assert not solution.explains
    assert any("no use" in note for note in solution.calibration.notes)


def test_progress_is_told(make_set: MakeSet) -> None:
    heard: list[str] = []
    solve(make_set(6, steps=10), signal="modulated_input", progress=heard.append)
    assert any("fitting modulated_input at 64 tokens" in line for line in heard)
    assert any("planning" in line for line in heard)
