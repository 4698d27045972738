"""Skip windows: intersected, scaled to the step count, and overridden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import request_and_run

Make = Callable[..., Any]


def say(policy: Policy) -> str:
    return "\n".join(policy.notes)


def window(policy: Policy) -> tuple[int, int | None, int | None]:
    return policy.first_skip_step, policy.last_skip_step, policy.max_consecutive_skips


def test_the_window_is_the_cautious_intersection(make_record: Make, bucket: Make) -> None:
    record = make_record(
        bucket(1000, min_skip_step=2, max_skip_step=40, max_consecutive_skips=5),
        bucket(4000, min_skip_step=6, max_skip_step=-3, max_consecutive_skips=None),
        bucket(16000, max_consecutive_skips=2),
        bucket(64000, max_consecutive_skips=4),
    )
    assert window(resolve(record, *request_and_run(sequence_length=2000, num_steps=50))) == (6, 40, 5)
    assert window(resolve(record, *request_and_run(sequence_length=4000, num_steps=50))) == (6, 47, None)
    assert window(resolve(record, *request_and_run(sequence_length=8000, num_steps=50))) == (6, 47, 2)
    assert window(resolve(record, *request_and_run(sequence_length=32000, num_steps=50))) == (1, 49, 2)


@pytest.mark.parametrize(
    ("bucket_window", "num_steps", "expected"),
    [
        ((5, 47), 25, (3, 23)),  # five steps at the start become three, two at the end one
        ((5, 47), 100, (10, 95)),
        ((1, 49), 100, (1, 99)),  # nothing is left out, whatever the step count
        ((1, 48), 25, (1, 23)),
        ((5, -3), 25, (3, 22)),  # counted from the end as it says
        ((5, -1), 20, (2, 19)),
        ((5, 47), 50, (5, 47)),
        ((5, 47), None, (5, 47)),
        ((40, 47), 3, (3, 1)),
    ],
)
def test_published_windows_are_scaled_to_the_step_count(
    make_record: Make, bucket: Make, bucket_window: tuple[int, int], num_steps: int | None, expected: tuple[int, int]
) -> None:
    first, last = bucket_window
    record = make_record(bucket(min_skip_step=first, max_skip_step=last, domain=None), status="published")
    policy = resolve(record, *request_and_run(num_steps=num_steps, threshold=0.1))
    assert (policy.first_skip_step, policy.last_skip_step) == expected
    assert ("skip window is scaled" in say(policy)) == (num_steps not in (None, 50))
    assert ("skip window is empty" in say(policy)) == (num_steps == 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.data())
def test_scaling_never_leaves_out_less_than_the_record_does(
    make_record: Make, bucket: Make, num_steps: int, data: Any
) -> None:
    first = data.draw(st.integers(1, 49))
    last = data.draw(st.integers(first, 49))
    record = make_record(bucket(min_skip_step=first, max_skip_step=last, domain=None), status="published")
    policy = resolve(record, *request_and_run(num_steps=num_steps, threshold=0.1))
    assert policy.first_skip_step >= (first * num_steps / 50 if first > 1 else 1)
    assert policy.last_skip_step is not None
    assert num_steps - 1 - policy.last_skip_step >= (49 - last) * num_steps / 50 - 1e-6


def test_a_window_in_fractions_narrows_the_other_one(make_record: Make, bucket: Make) -> None:
    record = make_record(
        bucket(num_steps=None, min_skip_step=1, skip_window_fraction=[0.1, 0.9], domain=None), status="published"
    )
    for num_steps, expected in ((30, (3, 27)), (50, (5, 45)), (7, (1, 6))):
        assert window(resolve(record, *request_and_run(num_steps=num_steps, threshold=0.1)))[:2] == expected
    unknown = resolve(record, *request_and_run(threshold=0.1))
    assert unknown.last_skip_step == -1
    assert "Pass num_steps=" in say(unknown)


def test_a_window_that_ends_early_needs_the_step_count(make_record: Make, bucket: Make) -> None:
    record = make_record(bucket(num_steps=None, max_skip_step=-2))
    assert resolve(record, *request_and_run(threshold=0.1)).last_skip_step == -1
    assert resolve(record, *request_and_run(threshold=0.1, num_steps=20)).last_skip_step == 18
    assert resolve(make_record(bucket(num_steps=None)), *request_and_run(threshold=0.1)).last_skip_step is None


def test_the_caller_s_window_replaces_the_record_s(make_record: Make, bucket: Make) -> None:
    record = make_record(bucket(min_skip_step=5, max_skip_step=40, max_consecutive_skips=3))
    asked = request_and_run(num_steps=50, min_skip_step=2, max_skip_step=-5, max_consecutive_skips=1)
    assert window(resolve(record, *asked)) == (2, 45, 1)
    assert window(resolve(record, *request_and_run(num_steps=50, max_skip_step=45))) == (5, 45, 3)
