"""The bundled record of the reference model is what the traces in the repository give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from easyteacache.records import calibration
from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.fit.options import FitOptions
from easyteacache.solver.solve import fit_buckets
from easyteacache.solver.validation.validate import validate_files

ROOT = Path(__file__).resolve().parents[2]
TRACES = ROOT / "tests" / "fixtures" / "traces" / "reference"
RECORD = ROOT / "registry" / "reference" / "moving-digits.json"


@pytest.fixture(scope="module")
def record() -> calibration.Calibration:
    return calibration.load(RECORD)


def test_a_refit_from_the_shipped_traces_gives_the_shipped_numbers(record: calibration.Calibration) -> None:
    seen, _ = TraceSet.load(TRACES).split_heldout()
    options = FitOptions.parse(record.provenance.tool_options, where=str(RECORD))
    fits = fit_buckets(seen, record.signal, options)[record.signal]
    assert len(fits) == len(record.buckets)
    for bucket, fitted in zip(record.buckets, fits, strict=True):
        np.testing.assert_allclose(fitted.chosen.coefficients, bucket.coefficients, rtol=1e-6)
        assert fitted.chosen.domain == pytest.approx(bucket.domain)


def test_the_shipped_record_passes_validation_on_runs_it_has_not_seen(record: calibration.Calibration) -> None:
    report = validate_files(RECORD, (TRACES,), None)
    assert report.passed, report.text()
    assert record.status == "validated"


def test_the_shipped_record_covers_four_lengths_and_three_step_counts(record: calibration.Calibration) -> None:
    assert {bucket.sequence_length for bucket in record.buckets} == {64, 256, 576, 1024}
    assert {bucket.num_steps for bucket in record.buckets} == {25, 30, 50}


def test_every_bucket_offers_a_plan_to_callers_that_see_the_block_stack_alone(record: calibration.Calibration) -> None:
    for bucket in record.buckets:
        targets = {point.applied_to for point in bucket.operating_points}
        assert "residual" in targets


def test_it_has_corrected_plans_under_unipc_too(record: calibration.Calibration) -> None:
    under = [bucket for bucket in record.buckets if bucket.sampler and bucket.sampler.name == "UniPCMultistepScheduler"]
    assert {bucket.num_steps for bucket in under} == {25, 30, 50}
    for bucket in under:
        assert any(point.plan is not None and point.plan.corrected for point in bucket.operating_points)
