from __future__ import annotations

import pytest

from easyteacache.bench import curves
from easyteacache.bench.contender import allowed, most_steps
from easyteacache.bench.subject import Case


def test_a_target_allows_two_hundredths_more_and_no_step_beyond() -> None:
    assert allowed(2.0) == pytest.approx(0.51)
    case = Case(4, 16, 16, 50)
    assert [most_steps(case, target) for target in (1.5, 2.0, 3.0, 4.0)] == [34, 25, 17, 12]
    assert most_steps(Case(1, 16, 16, 4), 100.0) == 1


def test_the_envelope_is_the_best_at_no_more_work(make_cell) -> None:
    cells = [
        make_cell("a", share=0.50, psnr=[40.0]),
        make_cell("a", share=0.40, psnr=[42.0]),
        make_cell("a", share=0.25, psnr=[30.0]),
        make_cell("a", share=0.24, psnr=[29.0]),
    ]
    # The point at 2x is worse than that at 2.5x, which computed less.
    assert curves.envelope(cells) == [(2.5, 42.0), (4.0, 30.0), (pytest.approx(1 / 0.24), 29.0)]


def test_a_point_that_computed_more_never_counts(make_cell) -> None:
    cells = [make_cell("a", share=0.511, psnr=[50.0]), make_cell("a", share=0.51, psnr=[40.0])]
    best = curves.best_within(cells, 2.0)
    assert best is not None
    assert best.share == 0.51
    assert curves.best_within(cells, 3.0) is None


def test_the_bootstrap_of_equal_values_has_no_width_and_of_others_holds_the_mean() -> None:
    assert curves.bootstrap([3.0, 3.0, 3.0]) == curves.Interval(3.0, 3.0, 3.0)
    values = [0.0, 10.0] * 50
    found = curves.bootstrap(values)
    # The standard error of the mean is 5 / √100 = 0.5.
    assert found.mean == 5.0
    assert found.low == pytest.approx(5 - 1.96 * 0.5, abs=0.15)
    assert found.high == pytest.approx(5 + 1.96 * 0.5, abs=0.15)
    assert curves.bootstrap(values) == found


def test_the_worst_tenth_is_rounded_up_to_whole_pairs() -> None:
    assert curves.worst_tenth([5.0, 1.0, 9.0]) == 1.0
    assert curves.worst_tenth([float(i) for i in range(32)]) == pytest.approx((0 + 1 + 2 + 3) / 4)


def test_differences_are_taken_pair_by_pair(make_cell) -> None:
    points = {
        "EasyTeaCache": [make_cell("EasyTeaCache", share=0.5, psnr=[50.0, 40.0], kind="own")],
        "held": [make_cell("held", share=0.5, psnr=[40.0, 30.0])],
        "forecast": [make_cell("forecast", share=0.5, psnr=[45.0, 37.0], kind="forecast")],
        "too much": [make_cell("too much", share=0.9, psnr=[90.0, 90.0], kind="forecast")],
    }
    others, hold = curves.differences(points, 2.0)
    assert (others.other, others.psnr.mean, others.worst) == ("forecast", 4.0, 3.0)
    assert (hold.against, hold.other) == ("hold", "held")
    # Both pairs differ by 10 dB, so there is nothing uncertain about it.
    assert hold.psnr == curves.Interval(10.0, 10.0, 10.0)


def test_without_easyteacache_there_are_no_differences(make_cell) -> None:
    assert curves.differences({"held": [make_cell("held", share=0.5, psnr=[40.0])]}, 2.0) == []
