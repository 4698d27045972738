from __future__ import annotations

import math

import pytest

from easyteacache.bench.contender import Knob, allowed
from easyteacache.bench.pilot import Piloted, bisect, choose

KNOB = Knob("threshold", 1e-4, 10.0)
TARGETS = (1.5, 2.0, 3.0, 4.0)


def test_a_smooth_knob_is_turned_to_just_what_a_target_allows() -> None:
    found = bisect(lambda s: 1 / (1 + s["threshold"]), {"other": 1}, KNOB, TARGETS)
    assert list(found) == list(TARGETS)
    for target, value in found.items():
        share = 1 / (1 + value)
        assert 0.95 * allowed(target) <= share <= allowed(target)


def test_a_knob_that_moves_in_steps_is_not_halved_for_nothing() -> None:
    tried: list[float] = []

    def share(settings: dict[str, float]) -> float:
        tried.append(settings["threshold"])
        return 1.0 if settings["threshold"] < 0.3 else 0.6 if settings["threshold"] < 3 else 0.3

    found = bisect(share, {}, KNOB, TARGETS, grain=0.31)
    assert found[1.5] == pytest.approx(0.3, rel=9)
    assert 4.0 not in found
    assert len(tried) == len(set(tried)) <= 12


def test_a_hint_saves_most_of_the_search() -> None:
    def search(hints: dict[float, float] | None) -> int:
        tried = []
        bisect(lambda s: tried.append(1) or 1 / (1 + s["threshold"]), {}, KNOB, TARGETS, hints=hints)
        return len(tried)

    near = {target: target - 0.97 for target in TARGETS}
    assert search(near) < search(None)


def test_what_skips_too_little_even_at_its_most_is_found_out_at_once() -> None:
    tried = []
    assert bisect(lambda s: tried.append(s) or 0.9, {}, KNOB, TARGETS) == {}
    assert len(tried) == 1


def test_the_best_setting_of_each_target_is_chosen_and_a_near_one_of_another_variant() -> None:
    piloted = [
        Piloted({"order": 1, "threshold": 0.1}, 0.66, 40.0),
        Piloted({"order": 2, "threshold": 0.2}, 0.66, 39.8),
        Piloted({"order": 1, "threshold": 0.3}, 0.65, 39.9),
        Piloted({"order": 3, "threshold": 0.1}, 0.66, 39.0),
        Piloted({"order": 1, "threshold": 2.0}, 0.50, 35.0),
    ]
    assert choose(piloted, (1.5, 2.0), KNOB) == [piloted[0].settings, piloted[1].settings, piloted[4].settings]


def test_where_nothing_reaches_a_target_what_skips_most_is_measured() -> None:
    piloted = [Piloted({"n": 2}, 0.95, 40.0), Piloted({"n": 8}, 0.9, 39.0)]
    assert choose(piloted, TARGETS) == [{"n": 8}]
    assert math.isclose(allowed(1.5), 0.68, abs_tol=1e-6)
