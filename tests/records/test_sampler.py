"""A sampler's map on known outputs: the numbers by which a record names a sampler."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from pydantic import ValidationError

from easyteacache.records import sampler
from easyteacache.records.sampler import SamplerRecord, agree, euler_map, known_outputs, signature_of


def shifted(shift: float, steps: int) -> np.ndarray:
    levels = np.linspace(1.0, 1.0 / steps, steps)
    return np.append(shift * levels / (1.0 + (shift - 1.0) * levels), 0.0)


def test_known_outputs_are_cosines_of_the_golden_angle() -> None:
    expected = [math.cos(1.0 + 2.399963229728653 * i) for i in range(5)]
    assert known_outputs(4).tolist() == pytest.approx(expected, abs=1e-15)


def test_eulers_map_gives_the_states_of_eulers_loop() -> None:
    levels, rng = shifted(3.0, 7), np.random.default_rng(0)
    given = rng.normal(size=8)
    states = [given[0]]
    for i in range(7):
        states.append(states[-1] + (levels[i + 1] - levels[i]) * given[i + 1])
    assert euler_map(levels) @ given == pytest.approx(states, abs=1e-14)


def test_eulers_map_never_looks_ahead() -> None:
    rows = euler_map(shifted(5.0, 6))
    assert rows.shape == (7, 7)
    assert np.array_equal(rows, np.tril(rows))


def test_signature_is_the_map_times_the_known_outputs() -> None:
    rows = euler_map(shifted(3.0, 20))
    assert np.asarray(signature_of(rows)) == pytest.approx(rows @ known_outputs(20), abs=1e-9)


def test_signature_of_five_euler_steps_is_these_numbers() -> None:
    """Stored in records: what one release writes, every later one has to find again."""
    levels = [1.0, 12 / 13, 9 / 11, 2 / 3, 3 / 7, 0.0]
    assert signature_of(euler_map(levels)) == (
        0.540302306, 0.61467212, 0.521789042, 0.573160419, 0.664939921, 0.276001058,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 4), (5,)])
def test_signature_of_what_is_no_map_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected a square map"):
        signature_of(np.zeros(shape))


@pytest.mark.parametrize("steps", [4, 20, 50, 100])
def test_single_precision_levels_are_the_same_sampler(steps: int) -> None:
    levels = shifted(3.0, steps)
    assert agree(signature_of(euler_map(levels)), signature_of(euler_map(levels.astype(np.float32))))


@pytest.mark.parametrize("steps", [10, 25, 50, 100])
def test_levels_rounded_to_six_decimals_are_the_same_sampler(steps: int) -> None:
    levels = shifted(3.0, steps)
    assert agree(signature_of(euler_map(levels)), signature_of(euler_map(levels.round(6))))


@pytest.mark.parametrize("steps", [10, 50, 100])
@pytest.mark.parametrize("shift", [1.0, 2.9, 3.1, 5.0])
def test_another_shift_is_another_sampler(shift: float, steps: int) -> None:
    assert not agree(signature_of(euler_map(shifted(3.0, steps))), signature_of(euler_map(shifted(shift, steps))))


def test_another_number_of_calls_is_another_sampler() -> None:
    assert not agree(signature_of(euler_map(shifted(3.0, 50))), signature_of(euler_map(shifted(3.0, 49))))


def test_record_of_euler_survives_its_json() -> None:
    record = SamplerRecord.euler(shifted(3.0, 30))
    again = SamplerRecord.model_validate_json(json.dumps(record.model_dump(mode="json")))
    assert again == record
    assert (again.calls, again.calls_per_step, again.prediction) == (30, 1, "velocity")
    assert again.agrees(SamplerRecord.euler(shifted(3.0, 30), name="a subclass"))
    assert again.agrees(SamplerRecord.euler(shifted(5.0, 30))) is False


def test_sampler_without_signature_agrees_with_nothing_and_contradicts_nothing() -> None:
    known = SamplerRecord.euler(shifted(3.0, 30))
    assert known.agrees(SamplerRecord(name="LCMScheduler", calls=30)) is None


@pytest.mark.parametrize("field", ["levels", "signature"])
def test_one_number_a_state_is_demanded(field: str) -> None:
    with pytest.raises(ValidationError, match=rf"3 {field}; expected calls \+ 1 = 5"):
        SamplerRecord.model_validate({"name": "X", "calls": 4, field: (0.9, 0.5, 0.0)})


def test_difference_is_a_share_of_the_largest_state() -> None:
    assert sampler.difference((4.0, 1.0), (4.0, 1.5)) == 0.125
    assert sampler.difference((4.0, 1.0), (4.0,)) == math.inf
    assert sampler.difference((0.0, 0.0), (0.0, 0.0)) == 0.0


def test_euler_s_signature_is_that_of_its_map() -> None:
    levels = (1.0, 0.93, 0.7, 0.31, 0.0)
    assert SamplerRecord.euler(levels).signature == signature_of(euler_map(levels))
