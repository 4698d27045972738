"""Fitted weights: which row is applied at which step, and when none is."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from easyteacache import TeaCache
from easyteacache.errors import EasyTeaCacheWarning, InvalidCalibration
from easyteacache.runtime.branch_state import BranchState
from easyteacache.runtime.predictors import PlannedRows, UnknownPredictor, predictor
from easyteacache.runtime.sampler_steps import SamplerSteps

SCHEDULE = (0, 1, 4, 6)
# A row per step: the last outputs computed up to and including it, oldest first.
ROWS = (
    (1.0,),
    (-0.5, 1.5),
    (-1.0, 2.0),
    (-1.5, 2.5),
    (0.25, -1.0, 1.75),
    (0.5, -2.0, 2.5),
    (-0.25, 0.5, 0.75),
    (0.125, -1.125, 2.0),
)
FITTED = PlannedRows(ROWS, SCHEDULE)


def state_of(make_policy: Any, **changes: Any) -> BranchState:
    given = {"schedule": SCHEDULE, "weights": ROWS, "forecaster": "fitted", "applied_to": "output", **changes}
    return BranchState("b", make_policy(**given))


def outputs(steps: int = 8) -> list[torch.Tensor]:
    return [
        torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        for step in range(steps)
    ]


def handed_on(state: BranchState, values: list[torch.Tensor], computed: set[int] | None = None) -> list[torch.Tensor]:
    """What the sampler gets at every step, when steps in ``computed`` are computed whatever the gate says."""
    found = []
    for step, value in enumerate(values):
        if state.check(step, None) and step not in (computed or ()):
            found.append(state.handed(step, state.residual(), SAMPLER, reused=True))
            state.reuse(None)
        else:
            found.append(state.handed(step, value, SAMPLER, reused=False))
            state.store_residual(step, None, value)
    return found


def size_of(step: int) -> float:
    """What an uneven Euler sampler multiplies the output of a step by."""
    return -0.05 - 0.01 * step


SAMPLER = SamplerSteps.euler([sum(map(size_of, range(step))) for step in range(9)])


def computed(state: BranchState, step: int, value: torch.Tensor) -> torch.Tensor:
    """What the sampler gets when ``value`` is computed at ``step``."""
    return state.handed(step, value, SAMPLER, reused=False)


# The weights alone --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("anchors", "at", "weights"),
    [
        ([0.0, 1.0], 2.0, (-1.0, 2.0)),
        ([0.0, 1.0], 3.0, (-1.5, 2.5)),
        ([0.0, 1.0, 4.0], 5.0, (0.5, -2.0, 2.5)),
        ([1.0, 4.0, 6.0], 7.0, (0.125, -1.125, 2.0)),
    ],
)
def test_a_reused_step_has_its_own_row(anchors: list[float], at: float, weights: tuple[float, ...]) -> None:
    assert FITTED.weights(anchors, at) == weights


def test_a_row_shorter_than_the_history_counts_for_the_last_anchors() -> None:
    rows = (*ROWS[:5], (-2.0, 3.0), *ROWS[6:])
    assert PlannedRows(rows, SCHEDULE).weights([0.0, 1.0, 4.0], 5.0) == (0.0, -2.0, 3.0)


@pytest.mark.parametrize(
    ("anchors", "at"),
    [
        ([0.0, 2.0], 3.0),
        ([1.0], 2.0),
        ([4.0, 5.0], 7.0),
        ([0.0, 1.0, 4.0], 6.5),
        ([0.0, 1.0], 2.0000001),
        ([1.0, 4.0, 6.0], 8.0),
        ([1.0, 4.0, 6.0], 1e9),
        ([0.0, 1.0], -1.0),
    ],
    ids=["another step", "after a release", "both", "between", "nearly", "beyond", "far beyond", "before"],
)
def test_anything_else_holds_the_last_anchor(anchors: list[float], at: float) -> None:
    assert FITTED.weights(anchors, at) == (*(0.0 for _ in anchors[:-1]), 1.0)
    assert FITTED.row([*anchors, at], at) is None


def test_a_computed_step_has_a_row_of_its_own() -> None:
    assert FITTED.row([0.0, 1.0], 1.0) == (-0.5, 1.5)
    assert FITTED.row([0.0, 1.0, 4.0], 4.0) == (0.25, -1.0, 1.75)
    assert FITTED.row([1.0, 4.0, 6.0], 6.0) == (-0.25, 0.5, 0.75)
    assert FITTED.row([0.0, 1.0, 3.0], 3.0) is None


def test_a_row_that_changes_nothing_hands_on_the_output_itself(make_policy: Any) -> None:
    values = outputs()
    for row in ((0.0, 1.0), (1.0,)):
        state = state_of(make_policy, weights=(ROWS[0], row, *ROWS[2:]))
        found = handed_on(state, values[:2])
        assert found[0] is values[0]
        assert found[1] is values[1]


def test_the_history_is_the_longest_row() -> None:
    assert FITTED.history == 3
    assert PlannedRows(((1.0,), (1.0,)), (0,)).history == 1


def test_weights_come_with_a_record_and_not_by_name() -> None:
    with pytest.raises(UnknownPredictor, match="comes with the operating point of a record") as caught:
        predictor("fitted")
    assert caught.value.name == "fitted"
    with pytest.raises(UnknownPredictor, match="comes with the operating point"):
        TeaCache.from_registry("reference/moving-digits", forecaster="fitted")
    with pytest.raises(UnknownPredictor) as other:
        predictor("magic")
    assert "comes with" not in str(other.value)


def test_auto_leaves_the_forecaster_to_the_record() -> None:
    wishes = {"speedup": 2.0, "num_steps": 50, "sequence_length": 256}
    auto, plain = (
        TeaCache.from_registry("reference/moving-digits", forecaster=name, **wishes) for name in ("auto", None)
    )
    assert auto.policy == plain.policy
    assert TeaCache.from_registry("reference/moving-digits", forecaster="hold", **wishes).policy.forecaster == "hold"


# A branch of a run --------------------------------------------------------------------------------------------------------


def test_every_step_is_handed_on_as_its_row_times_the_outputs(make_policy: Any) -> None:
    values = outputs()
    computed: list[int] = []
    for step, found in enumerate(handed_on(state_of(make_policy), values)):
        computed += [step] if step in SCHEDULE else []
        row = ROWS[step]
        anchors = computed[-len(row) :]
        expected = sum(weight * values[k] for weight, k in zip(row, anchors, strict=True))
        torch.testing.assert_close(found, expected)


def test_the_outputs_are_remembered_as_they_were_computed(make_policy: Any) -> None:
    values = outputs()
    before = [value.clone() for value in values]
    state = state_of(make_policy)
    handed_on(state, values)
    assert all(torch.equal(a, b) for a, b in zip(values, before, strict=True))
    assert all(torch.equal(tensor, values[int(place)]) for place, tensor in state._anchors)


def test_after_a_step_that_the_schedule_does_not_compute_the_last_output_is_held(make_policy: Any) -> None:
    values = outputs(12)
    rows, schedule = (*ROWS, *((-0.5, 1.5),) * 4), (*SCHEDULE, 8, 9, 11)
    state = state_of(make_policy, schedule=schedule, weights=rows)
    found = handed_on(state, values, computed={2})
    torch.testing.assert_close(found[1], -0.5 * values[0] + 1.5 * values[1])
    # Step 10 sees 8 and 9, as its row says, but what it would correct on the way there was never handed on.
    last = {2: 2, 3: 2, 4: 4, 5: 4, 6: 6, 7: 6, 8: 8, 9: 9, 10: 9, 11: 11}
    assert all(torch.equal(found[step], values[k]) for step, k in last.items())


@pytest.mark.parametrize("when", [2, 4, 5])
def test_after_a_release_the_last_output_is_held_for_the_rest_of_the_run(make_policy: Any, when: int) -> None:
    values = outputs(12)
    rows, schedule = (*ROWS, *((-0.5, 1.5),) * 4), (*SCHEDULE, 8, 9, 11)
    state = state_of(make_policy, schedule=schedule, weights=rows)
    handed_on(state, values[:when])
    state.release()
    last = None
    for step in range(when, 12):
        if state.check(step, None):
            assert last is not None
            assert torch.equal(state.residual(), values[last])
            state.reuse(None)
        else:
            assert computed(state, step, values[step]) is values[step]
            state.store_residual(step, None, values[step])
            last = step


def test_a_branch_that_joins_late_is_not_corrected(make_policy: Any) -> None:
    state, values = state_of(make_policy), outputs()
    for step in (4, 6):
        assert not state.check(step, None) or step not in SCHEDULE
        assert computed(state, step, values[step]) is values[step]
        state.store_residual(step, None, values[step])


def test_another_shape_or_number_type_is_not_corrected(make_policy: Any) -> None:
    values = outputs()
    for other in (values[1].float(), values[1][:1], values[1]):
        state = state_of(make_policy)
        handed_on(state, values[:1])
        state.check(1, None)
        assert (computed(state, 1, other) is other) == (other is not values[1])


def test_a_forecast_of_something_else_is_made_good_all_the_same(make_policy: Any) -> None:
    # Whatever was handed on at the reused steps, after the next computed one the sample is where the weights want it.
    values, wanted = outputs(), handed_on(state_of(make_policy), outputs())
    state = state_of(make_policy, forecaster="linear", applied_to="residual")
    moved, meant = torch.zeros(2, 5, 4), torch.zeros(2, 5, 4)
    for step, value in enumerate(values):
        if state.check(step, None):
            made = torch.full_like(value, float(step))
            given = state.handed(step, made, SAMPLER, reused=True)
            assert given is made
            state.reuse(None)
        else:
            given = computed(state, step, value)
            state.store_residual(step, None, value)
        moved, meant = moved + size_of(step) * given, meant + size_of(step) * wanted[step]
        if step in SCHEDULE:
            torch.testing.assert_close(moved, meant)


def test_under_a_sampler_that_is_not_known_nothing_is_corrected(make_policy: Any) -> None:
    values, state = outputs(), state_of(make_policy)
    for step, value in enumerate(values):
        if state.check(step, None):
            state.handed(step, state.residual(), None, reused=True)
            state.reuse(None)
        else:
            assert state.handed(step, value, None, reused=False) is value
            state.store_residual(step, None, value)


def test_a_row_of_zeros_hands_on_nothing(make_policy: Any) -> None:
    rows = (*ROWS[:2], (0.0, 0.0), (0.0,), (0.0, 0.0, 0.0), *ROWS[5:])
    found = handed_on(state_of(make_policy, weights=rows), outputs())
    assert not any(found[step].any() for step in (2, 3, 4))
    assert found[5].any()


def test_no_forecaster_but_a_fitted_one_corrects(make_policy: Any) -> None:
    values = outputs()
    state = BranchState("b", make_policy(schedule=SCHEDULE, forecaster="cubic", applied_to="output"))
    found = handed_on(state, values)
    assert all(found[step] is values[step] for step in SCHEDULE)


def test_a_copy_of_a_cache_has_the_weights(make_cache: Any) -> None:
    cache = make_cache(schedule=SCHEDULE, weights=ROWS, forecaster="fitted", applied_to="output")
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert other.policy == cache.policy
        assert isinstance(other.session.branch("b", 0).predictor, PlannedRows)


# The three verbs ----------------------------------------------------------------------------------------------------------


def test_the_verbs_refuse_a_plan_that_corrects(make_cache: Any) -> None:
    cache = make_cache(schedule=SCHEDULE, weights=ROWS, forecaster="fitted", applied_to="output")
    with (
        pytest.warns(EasyTeaCacheWarning, match="every step is computed"),
        pytest.raises(InvalidCalibration, match="output"),
    ):
        cache.check(0, None)
