"""An error budget on runs that nobody has seen: fresh seeds of the reference model."""

from __future__ import annotations

import pytest
import torch

from easyteacache import TeaCache
from easyteacache.records.calibration import Calibration
from easyteacache.reference.pipeline import MovingDigitsPipeline, load_pipeline
from easyteacache.registry.registry import Registry

KEY, STEPS, LENGTH = "reference/moving-digits", 25, 64
#: Far from the seeds that runs of the record and of the benchmark were sampled with.
FIRST_SEED, RUNS = 7_310_000, 24


def finals(pipe: MovingDigitsPipeline) -> torch.Tensor:
    found = pipe(
        [str(number % 10) for number in range(RUNS)],
        seeds=[FIRST_SEED + number for number in range(RUNS)],
        num_frames=1,
        height=16,
        width=16,
        num_inference_steps=STEPS,
        output_type="latent",
        return_dict=False,
    )[0]
    return found.flatten(1).double()


def budgets(record: Calibration) -> list[float]:
    """What two of the record's points promise for one more run, rounded up."""
    bucket = next(b for b in record.buckets if (b.sequence_length, b.num_steps) == (LENGTH, STEPS))
    bounds = sorted(point.error.bound.value for point in bucket.operating_points if point.error is not None)
    return [1.001 * bounds[len(bounds) // 3], 1.001 * bounds[2 * len(bounds) // 3]]


@pytest.mark.slow
def test_fresh_runs_of_the_reference_model_keep_the_promise() -> None:
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    exact, record = finals(pipe), Registry.default().find(KEY).calibration
    for budget in budgets(record):
        with TeaCache.from_registry(KEY, max_error=budget).attached(pipe) as cache:
            cached = finals(pipe)
            assert cache.policy.schedule is not None
            assert len(cache.policy.schedule) < STEPS
            [note] = [note for note in cache.notes if "ne more run stays within" in note]
            promised = int(note.split("chance of ")[1].split("%")[0]) / 100
        errors = (cached - exact).norm(dim=1) / exact.norm(dim=1)
        kept = float((errors <= budget).double().mean())
        # The chance that was said, less two standard errors of so many runs.
        assert kept >= promised - 2.0 * (promised * (1.0 - promised) / RUNS) ** 0.5, (budget, kept, note)
