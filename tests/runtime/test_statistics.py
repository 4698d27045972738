"""What a run did, in numbers and in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from easyteacache.policy.figures import Standing
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


def test_the_summary_is_short_and_counts_the_notes(make_policy: Callable[..., Any]) -> None:
    policy = make_policy(notes=("First.", "Second."), warnings=("Second.",), schedule=(0, 3), status="draft")
    lines = describe(policy, {"cond": run_of("crr" * 40), "uncond": run_of("crr" * 40)}, 3.0).splitlines()
    assert lines[0] == "toy revision 1 (draft, layer given)"
    assert lines[1] == "a schedule of 2 computed steps, predictor hold; no evidence"
    assert lines[2] == "cond, uncond: 40 computed, 80 reused of 120 steps (3.00x)"
    assert lines[3].strip().startswith("█··█··")
    assert lines[5] == "2 notes, 1 of them warnings: see `notes` of the cache"
    assert max(map(len, lines)) <= 80


def test_the_promised_error_is_never_cut_off(make_policy: Callable[..., Any]) -> None:
    policy = make_policy(
        schedule=tuple(range(25)), forecaster="meancache-6", standing=Standing("submitted"), expected_error=0.0051234
    )
    lines = describe(policy, {}, 1.0).splitlines()
    assert lines[1:3] == [
        "a schedule of 25 computed steps, predictor meancache-6",
        "submitted evidence, error 0.00512 expected",
    ]


def test_one_note_is_no_notes(make_policy: Callable[..., Any]) -> None:
    assert describe(make_policy(notes=("First.",)), {}, 1.0).splitlines()[-1] == "1 note: see `notes` of the cache"


@pytest.mark.parametrize("branches", [0, 1, 2, 3, 8])
@pytest.mark.parametrize("notes", [0, 40])
def test_the_summary_has_two_to_seven_lines_whatever_happened(
    make_policy: Callable[..., Any], branches: int, notes: int
) -> None:
    policy = make_policy(notes=("A note.",) * notes, model_key="toy/" + "long" * 30)
    runs = {f"branch-{n}": run_of("c" * (n + 1) + "r" * 200) for n in range(branches)}
    lines = describe(policy, runs, 2.0).splitlines()
    assert 2 <= len(lines) <= 7
    assert max(map(len, lines)) <= 80
    assert ("no step seen yet" in lines) == (branches == 0)


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
