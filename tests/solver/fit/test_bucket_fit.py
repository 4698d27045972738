from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from easyteacache.errors import NotEnoughTraces, SignalMismatch
from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.fit import bucket_fit, crossvalidation, curves
from easyteacache.solver.fit.points import Points, gather

MakeSet = Callable[..., TraceSet]


def noisy(y: Callable[[np.ndarray], np.ndarray], *, runs: int = 12, noise: float = 0.02, seed: int = 0) -> Points:
    random = np.random.default_rng(seed)
    x = random.uniform(0.02, 0.2, (runs, 40))
    run, step = np.meshgrid(np.arange(runs), np.arange(1, 41), indexing="ij")
    values = y(x) * random.normal(1.0, noise, x.shape)
    return Points(x.ravel(), values.ravel(), run.ravel(), step.ravel())


def test_pairs_come_from_every_branch_and_run(make_set: MakeSet) -> None:
    points = gather(make_set(3, steps=10).runs, "timestep_projection")
    assert (len(points), points.runs, points.distinct_distances) == (3 * 2 * 9, 3, 9)
    assert set(points.step) == set(range(1, 10))


def test_a_timestep_signal_has_one_distance_a_step_however_many_runs(make_set: MakeSet) -> None:
    quality = bucket_fit.fit_bucket(make_set(6, steps=12).runs, "timestep_projection").quality
    assert (quality.runs, quality.points, quality.distinct_distances) == (6, 6 * 2 * 11, 11)


def test_a_straight_line_is_fitted_with_order_one() -> None:
    points = noisy(lambda x: 0.1 + 2.0 * x)
    chosen = bucket_fit._choose(bucket_fit._candidates(points, "monotone", None, False), "monotone")
    assert chosen.fitted.order == 1


def test_a_bent_curve_earns_a_higher_order() -> None:
    points = noisy(lambda x: 50.0 * x**3)
    chosen = bucket_fit._choose(bucket_fit._candidates(points, "monotone", None, False), "monotone")
    assert chosen.fitted.order >= 2


def test_runs_left_out_are_runs_not_pairs() -> None:
    seen: list[set[int]] = []

    def remember(points: Points) -> curves.Fitted:
        seen.append(set(points.run.tolist()))
        return curves.isotonic(points)

    crossvalidation.over_runs(noisy(lambda x: x, runs=4), remember)
    assert sorted(map(sorted, seen)) == [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]


def test_only_blocks_of_steps_expose_a_curve_that_leaves_its_data() -> None:
    x = np.tile(np.linspace(0.02, 0.2, 40), 8)
    run, step = np.repeat(np.arange(8), 40), np.tile(np.arange(1, 41), 8)
    y = 0.002 / x * np.random.default_rng(0).normal(1.0, 0.03, len(x))
    points = Points(x, y, run, step)
    over_runs, over_steps = (
        crossvalidation.over_runs(points, curves.teacache),
        crossvalidation.over_steps(points, curves.teacache),
    )
    assert over_runs is not None
    assert over_steps is not None
    assert over_runs.r2 > 0.9
    assert over_steps.r2 < over_runs.r2 - 0.2


def test_the_signal_that_explains_the_output_is_chosen(make_set: MakeSet) -> None:
    runs = make_set(8, steps=24).runs
    fits = {signal: [bucket_fit.fit_bucket(runs, signal)] for signal in ("modulated_input", "hidden_states")}
    assert bucket_fit.best_signal(fits) == "modulated_input"


def test_a_signal_known_before_the_run_wins_a_close_call(make_set: MakeSet) -> None:
    runs = make_set(8, steps=24).runs
    fits = {signal: [bucket_fit.fit_bucket(runs, signal)] for signal in ("timestep_projection", "modulated_input")}
    by_name = {name: fits[name][0].quality.heldout_r2 for name in fits}
    assert by_name["modulated_input"] - by_name["timestep_projection"] < bucket_fit.PREFERENCE
    assert bucket_fit.best_signal(fits) == "timestep_projection"


def test_a_signal_that_explains_nothing_is_called_so(make_set: MakeSet) -> None:
    runs = make_set(8, steps=24).runs
    assert not bucket_fit.fit_bucket(runs, "hidden_states").explains
    assert bucket_fit.fit_bucket(runs, "modulated_input").explains


@pytest.mark.parametrize("method", ["monotone", "teacache", "auto"])
def test_every_method_gives_coefficients(make_set: MakeSet, method: bucket_fit.Method) -> None:
    fitted = bucket_fit.fit_bucket(make_set(4, steps=20).runs, "modulated_input", method=method)
    assert fitted.chosen.coefficients
    assert fitted.quality.heldout_r2 is not None
    assert fitted.quality.heldout_r2 > 0.8


def test_a_fixed_order_is_kept(make_set: MakeSet) -> None:
    assert bucket_fit.fit_bucket(make_set(4).runs, "modulated_input", order=5).chosen.order == 5


def test_one_run_is_not_enough(make_set: MakeSet) -> None:
    with pytest.raises(NotEnoughTraces):
        bucket_fit.fit_bucket(make_set(1).runs, "modulated_input")


def test_an_unrecorded_signal_is_refused_with_what_there_is(make_set: MakeSet) -> None:
    with pytest.raises(SignalMismatch, match="modulated_input"):
        bucket_fit.fit_bucket(make_set(3).runs, "timestep_embedding")


def test_an_order_that_cannot_be_written_in_powers_of_x_is_not_chosen() -> None:
    points = noisy(lambda x: 50.0 * x**3)
    far = Points(points.x * 1e-4 + 1.0, points.y, points.run, points.step)
    candidates = bucket_fit._candidates(far, "monotone", None, False)
    assert any(c.fitted.rounding > bucket_fit.MOST_ROUNDING for c in candidates)
    assert bucket_fit._choose(candidates, "monotone").fitted.rounding <= bucket_fit.MOST_ROUNDING
