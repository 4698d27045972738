from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easyteacache.records import calibration as records
from easyteacache.records.calibration import Calibration
from easyteacache.records.plan import Plan
from easyteacache.records.trace_set import Trace, TraceSet
from easyteacache.solver.solve import Labels, solve
from easyteacache.solver.validation.rules import RULES, TABLE
from easyteacache.solver.validation.validate import validate, validate_files
from easyteacache.solver.validation.verdict import Report

MakeSet = Callable[..., TraceSet]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def traces(make_set: MakeSet) -> TraceSet:
    return make_set(16, steps=20)


@pytest.fixture(scope="module")
def record(traces: TraceSet) -> Calibration:
    return solve(traces, signal="modulated_input").calibration


def failed(report: Report) -> set[str]:
    return {finding.rule for finding in report.failures}


def with_bucket(record: Calibration, **changes: Any) -> Calibration:
    return record.model_copy(update={"buckets": (record.buckets[0].model_copy(update=changes),)})


def changed(trace: Trace, *, noise: float = 0.0, **header: Any) -> Trace:
    """The same run under another label, its numbers moved by a relative ``noise``."""
    factor = 1.0 + noise
    signals = {s: {b: v * factor for b, v in by.items()} for s, by in trace.signal_distances.items()}
    return dataclasses.replace(
        trace, header=trace.header.model_copy(update=header), signal_distances=signals,
        grams={name: gram * factor for name, gram in trace.grams.items()},
    )  # fmt: skip


def test_an_honest_record_passes(record: Calibration, traces: TraceSet) -> None:
    report = validate(record, traces)
    assert report.passed, report.text()
    assert (report.calibration_runs, report.heldout_runs) == (12, 4)
    assert len(report.points) == len(record.buckets[0].operating_points)


def test_every_rule_of_this_layer_is_in_the_table(record: Calibration, traces: TraceSet) -> None:
    assert {finding.rule for finding in validate(record, traces, record).findings} <= set(RULES)
    assert len(RULES) == len(TABLE)
    assert all(rule.reason.endswith(".") for rule in TABLE)


def test_the_documentation_shows_the_same_limits() -> None:
    text = (ROOT / "docs" / "solver.md").read_text(encoding="utf-8")
    for rule in TABLE:
        limit = "–" if rule.limit is None else f"{rule.limit:g}"
        assert f"| `{rule.id}` | {rule.title} | {limit} | {rule.reason} |" in text


def test_coefficients_of_another_signal_are_called_mislabelled(record: Calibration, traces: TraceSet) -> None:
    other = solve(traces, signal="timestep_projection").calibration.model_copy(update={"signal": "modulated_input"})
    report = validate(other, traces)
    assert {"fit.not-reproduced", "signal.mislabelled"} <= failed(report)
    assert "'timestep_projection'" in next(f.message for f in report.failures if f.rule == "signal.mislabelled")


def test_coefficients_of_another_model_are_not_reproduced(
    record: Calibration, make_set: MakeSet, traces: TraceSet
) -> None:
    other = solve(make_set(8, key="test/rougher", roughness=2.0), signal="modulated_input").calibration
    borrowed = with_bucket(record, coefficients=other.buckets[0].coefficients, domain=other.buckets[0].domain)
    assert failed(validate(borrowed, traces)) == {"fit.not-reproduced"}


def test_a_record_is_not_judged_on_another_models_traces(record: Calibration, make_set: MakeSet) -> None:
    assert failed(validate(record, make_set(16, key="test/other"))) == {"traces.model-key"}


def test_a_signal_that_explains_nothing_is_refused(traces: TraceSet) -> None:
    useless = solve(traces, signal="hidden_states").calibration
    assert {"signal.explains-nothing", "fit.rank-correlation"} <= failed(validate(useless, traces))


def test_a_signal_nobody_recorded_is_refused(record: Calibration, traces: TraceSet) -> None:
    other = record.model_copy(update={"signal": "timestep_embedding"})
    assert failed(validate(other, traces)) == {"signal.absent"}


def test_a_run_smuggled_in_twice_is_found_under_any_label(traces: TraceSet) -> None:
    doubled = TraceSet([*traces, changed(traces[0], noise=1e-7, seed=999, prompt="quite another one")])
    report = validate(solve(doubled, signal="modulated_input").calibration, doubled)
    assert failed(report) == {"traces.duplicate"}


def test_too_few_runs_are_refused_by_their_own_rules(record: Calibration, traces: TraceSet) -> None:
    assert failed(validate(record, traces[:4])) == {"traces.calibration-runs", "traces.heldout-runs"}
    assert failed(validate(record, traces[:0])) == {"traces.bucket"}


def test_a_bucket_without_runs_and_runs_without_a_bucket_are_refused(record: Calibration, make_set: MakeSet) -> None:
    report = validate(record, make_set(8, steps=12))
    assert failed(report) == {"traces.bucket"}
    assert len(report.failures) == 2


def test_a_misstated_error_is_found(record: Calibration, traces: TraceSet) -> None:
    points = list(record.buckets[0].operating_points)
    (stated,) = points[0].evidence
    for figure in ("value", "p50", "p90", "worst"):
        halved = stated.model_copy(update={figure: getattr(stated, figure) / 2})
        points[0] = points[0].model_copy(update={"evidence": (halved,)})
        report = validate(with_bucket(record, operating_points=tuple(points)), traces)
        assert failed(report) == {"point.misstated"}, figure


def test_a_schedule_that_loses_to_uniform_is_refused(record: Calibration, traces: TraceSet) -> None:
    point = (
        record.buckets[0]
        .operating_points[4]
        .model_copy(
            update={
                "threshold": None,
                "plan": Plan(computed=tuple(range(10)), predictor="hold"),
                "computed_steps": 10,
                "evidence": (),
            }
        )
    )
    poor = with_bucket(record, operating_points=(point,), max_consecutive_skips=None)
    assert {"point.worse-than-uniform", "point.worse-than-fewer-steps"} <= failed(validate(poor, traces))


def test_a_changed_profile_is_not_reproduced(record: Calibration, traces: TraceSet) -> None:
    profile = record.buckets[0].sigma_profile
    assert profile is not None
    doubled = profile.model_copy(update={"distances": tuple(2.0 * d for d in profile.distances)})
    assert "fit.profile-not-reproduced" in failed(validate(with_bucket(record, sigma_profile=doubled), traces))


def test_options_that_nobody_can_repeat_are_refused(record: Calibration, traces: TraceSet) -> None:
    origin = record.provenance.model_copy(update={"tool_options": "--method magic"})
    assert failed(validate(record.model_copy(update={"provenance": origin}), traces)) == {"record.tool-options"}


def test_a_better_incumbent_is_not_replaced(record: Calibration, traces: TraceSet) -> None:
    worse = [
        p.model_copy(update={"forecaster": "hold", "applied_to": "residual", "error": None})
        for p in record.buckets[0].operating_points
    ]
    poor = with_bucket(record, operating_points=tuple(worse))
    assert "incumbent.better" in failed(validate(poor, traces, record))
    assert "incumbent.better" not in failed(validate(record, traces, poor))


def test_a_record_does_not_lose_to_itself(record: Calibration, traces: TraceSet) -> None:
    report = validate(record, traces, record)
    assert report.passed, report.text()
    assert any(finding.rule == "incumbent.better" for finding in report.findings)


@pytest.fixture
def files(tmp_path: Path, traces: TraceSet) -> Callable[..., Report]:
    traces.save(tmp_path / "traces" / "runs.safetensors")
    loaded = TraceSet.load(tmp_path / "traces")
    records.save(
        solve(loaded, signal="modulated_input", labels=Labels(license="CC0-1.0")).calibration, tmp_path / "c.json"
    )
    return lambda: validate_files(tmp_path / "c.json", [tmp_path / "traces"])


def test_files_pass_as_written(files: Callable[..., Report]) -> None:
    assert files().passed


@pytest.mark.parametrize("spoil", ["truncate", "nan", "edit", "swap", "record"])
def test_spoiled_files_are_refused_each_by_its_own_rule(
    files: Callable[..., Report], tmp_path: Path, make_set: MakeSet, spoil: str
) -> None:
    path = tmp_path / "traces" / "runs.safetensors"
    data = bytearray(path.read_bytes())
    if spoil == "truncate":
        path.write_bytes(data[:-1000])
    elif spoil == "nan":
        data[-8:] = np.array([np.nan], dtype="<f8").tobytes()
        path.write_bytes(data)
    elif spoil == "edit":
        data[-8:] = np.array([np.frombuffer(bytes(data[-8:]), dtype="<f8")[0] * 1.001], dtype="<f8").tobytes()
        path.write_bytes(data)
    elif spoil == "swap":
        make_set(16, steps=20, roughness=1.1).save(path)
    else:
        (tmp_path / "c.json").write_text("{", encoding="utf-8")
    expected = {
        "truncate": "trace.",
        "nan": "trace.nan",
        "edit": "trace.hash",
        "swap": "traces.files",
        "record": "record.json",
    }[spoil]
    found = failed(files())
    assert len(found) == 1
    assert found.pop().startswith(expected)


def test_the_table_fits_eighty_columns_and_json_holds_the_rules(record: Calibration, traces: TraceSet) -> None:
    report = validate(record, traces, record)
    assert max(map(len, report.text().splitlines())) <= 80
    content = report.as_json()
    assert content["passed"] is True
    assert {"rule", "passed", "where"} <= set(content["findings"][0])
