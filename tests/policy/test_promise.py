"""What an error budget promises of a run that nobody has seen: split conformal bounds of held-out errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from easyteacache.errors import UnreachableTarget
from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.evidence import ErrorStatistics, conformal_rank
from easyteacache.solver.validation.error_statistics import ninetieth, statistics

Make = Callable[..., Any]
SPEEDUPS = (1.5, 2.0, 3.0, 4.0)


def point(speedup: float, errors: Any) -> dict[str, Any]:
    stated = statistics(errors)
    figures = {"value": stated.mean, "p50": stated.p50, "p90": stated.p90, "worst": stated.worst, "runs": stated.runs}
    evidence = {"kind": "submitted", "how": "replayed", "metric": "relative-l2", "speedup": speedup, **figures}
    return {"threshold": round(0.1 * speedup, 6), "evidence": [evidence]}


def budget(make_record: Make, bucket: Make, errors: Any, max_error: float) -> Policy:
    points = [point(speedup, found) for speedup, found in zip(SPEEDUPS, errors, strict=False)]
    record = make_record(bucket(operating_points=points), schema_version=3)
    return resolve(record, Request(max_error=max_error), RunContext(sequence_length=1024, num_steps=50))


@pytest.mark.parametrize(("runs", "rank"), [(1, 2), (4, 5), (8, 9), (9, 9), (18, 18), (19, 18), (29, 27), (99, 90)])
def test_the_rank_is_the_smallest_with_nine_chances_in_ten(runs: int, rank: int) -> None:
    assert conformal_rank(runs) == rank
    assert rank / (runs + 1) >= 0.9 > (rank - 1) / (runs + 1)


@pytest.mark.parametrize(("runs", "value"), [(4, 4.0), (9, 9.0), (18, 18.0), (19, 18.0), (99, 90.0)])
def test_the_bound_is_the_value_of_that_rank_or_the_largest(runs: int, value: float) -> None:
    assert statistics(np.arange(1.0, runs + 1)).bound.value == value


def test_the_bound_says_how_far_few_runs_carry() -> None:
    assert statistics([0.1, 0.2, 0.3, 0.4]).bound == (0.4, 0.8)
    assert statistics(np.ones(19)).bound.coverage == pytest.approx(0.9)
    assert ErrorStatistics(mean=0.1).bound == (0.1, None)
    assert ErrorStatistics(mean=0.1, worst=0.3).bound == (0.3, None)
    assert ErrorStatistics(mean=0.1, p90=0.2, runs=40).bound.value == 0.2


def test_of_few_runs_the_percentile_only_describes() -> None:
    assert ninetieth(np.arange(11.0)) == 9.0
    assert ninetieth(np.arange(1.0, 20.0)) == 18.0


def test_a_budget_looks_at_the_largest_of_few_runs_and_says_so(make_record: Make, bucket: Make) -> None:
    errors = [[0.01, 0.01, 0.01, 0.02], [0.02, 0.02, 0.02, 0.08]]
    # By its mean of 0.035 the second would do.
    policy = budget(make_record, bucket, errors, 0.04)
    assert policy.expected_speedup == 1.5
    assert "Of 4 held-out runs only the largest error, 0.02, can be said" in " ".join(policy.notes)
    assert "chance of 80%" in " ".join(policy.notes)
    with pytest.raises(UnreachableTarget, match=r"the least is 0\.02"):
        budget(make_record, bucket, errors, 0.015)


def test_a_budget_of_many_runs_says_its_chance(make_record: Make, bucket: Make) -> None:
    policy = budget(make_record, bucket, [np.arange(1.0, 40.0) / 1000], 0.037)
    assert "One more run stays within an error of 0.036 with a chance of 90%, by 39 held-out runs." in policy.notes


@pytest.mark.parametrize("runs", [9, 19, 40])
def test_nine_of_ten_further_runs_keep_the_promise(make_record: Make, bucket: Make, runs: int) -> None:
    """Simulated: a run is easy or hard, and a plan the worse the faster it is; the budget chooses among four plans."""
    dice, budget_of, kept = np.random.default_rng(11), 0.1, list[bool]()
    for _ in range(250):
        hardness = np.exp(dice.normal(0.0, 0.6, runs + 1))
        errors = [0.01 * 2.0**k * hardness * np.exp(dice.normal(0.0, 0.2, runs + 1)) for k in range(len(SPEEDUPS))]
        try:
            policy = budget(make_record, bucket, [found[:-1] for found in errors], budget_of)
        except UnreachableTarget:
            kept.append(True)
            continue
        kept.append(bool(errors[SPEEDUPS.index(policy.expected_speedup or 0.0)][-1] <= budget_of))
    # 0.9, less two standard errors of 250 trials.
    assert np.mean(kept) >= 0.9 - 2.0 * np.sqrt(0.09 / 250)
