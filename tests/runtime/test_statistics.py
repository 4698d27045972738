"""What a run did, in numbers and in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from easyteacache.runtime.branch_state import StepRecord
from easyteacache.runtime.statistics import RunStatistics, describe


def run_of(pattern: str) -> RunStatistics:
    return RunStatistics(
        tuple(StepRecord(step, mark == "r", "below", 0.1 * step, None, 0.0) for step, mark in enumerate(pattern))
    )


def test_numbers_of_one_branch() -> None:
    run = run_of("crrcr")
    assert (run.computed, run.reused, run.hits) == (2, 3, (1, 2, 4))
    assert run.speedup == 2.5
    assert run.pattern == "█··█·"
    assert run.distances == pytest.approx((0.0, 0.1, 0.2, 0.3, 0.4))


def test_before_the_first_step_the_speed_up_is_one() -> None:
    assert run_of("").speedup == 1.0


def test_the_summary_names_record_gate_and_every_note(make_policy: Callable[..., Any]) -> None:
    policy = make_policy(notes=("First.", "Second."), schedule=(0, 3), status="draft")
    text = describe(policy, {"cond": run_of("crr" * 40)}, 3.0)
    assert text.splitlines()[0] == "toy revision 1 (draft, layer given)"
    assert "a schedule of 2 computed steps, predictor hold" in text
    assert "cond: 40 computed, 80 reused of 120 steps (3.00x)" in text
    assert text.endswith("note: First.\nnote: Second.")
    assert max(map(len, text.splitlines())) <= 80
    assert "no step seen yet" in describe(policy, {}, 1.0)


def test_every_step_keeps_why_it_was_decided_so(make_cache: Callable[..., Any], drive: Callable[..., Any]) -> None:
    cache = make_cache(threshold=0.25, first_skip_step=2, last_skip_step=5, max_consecutive_skips=2)
    drive(cache, [torch.full((4,), size) for size in (1.0, 1.0, 1.0, 1.1, 1.1, 1.5, 1.5)])
    found = [(step.reason, step.reused) for step in cache.statistics()["default"].steps]
    assert found == [
        ("start", False),
        ("window", False),
        ("below", True),
        ("below", True),
        ("consecutive", False),
        ("threshold", False),
        ("window", False),
    ]
    reused = cache.statistics()["default"].steps[3]
    assert (reused.distance, reused.predicted, reused.accumulated) == (
        pytest.approx(0.1),
        pytest.approx(0.1),
        pytest.approx(0.1),
    )
