"""A registered predictor takes part in replay and in the solver's search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from easyteacache.runtime.predictors import Predictor, families, register_predictor
from easyteacache.solver.replay.predictor_rows import Filling, Rows
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.search.planner import Planner, candidates


@dataclass(frozen=True)
class Fading(Predictor):
    """Three quarters of the last computed step."""

    names: ClassVar[tuple[str, ...]] = ("fading",)
    axes: ClassVar[tuple[Any, ...]] = ("step",)

    name: str = "fading"
    history: int = 1

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        return (0.75,)


@pytest.fixture
def runs(make_run: Callable[..., Any]) -> Runs:
    return Runs.stack([make_run(seed).trace for seed in range(4)])


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easyteacache.runtime.predictors.registry._families", list(families()))
    register_predictor(Fading)


def test_without_it_the_candidates_are_those_of_this_project(runs: Runs) -> None:
    assert [filling.forecaster for filling in candidates(runs)][:2] == ["hold", "hold"]
    assert {filling.forecaster for filling in candidates(runs)} == {
        "hold",
        "linear",
        "quadratic",
        "cubic",
        "taylor-2",
        "foca",
    }


@pytest.mark.usefixtures("own")
def test_it_is_a_candidate_on_the_axes_it_knows(runs: Runs) -> None:
    mine = [filling for filling in candidates(runs) if filling.forecaster == "fading"]
    assert mine == [Filling("fading", "step", "residual"), Filling("fading", "step", "output")]
    planner = Planner(runs)
    assert set(mine) <= set(planner.fillings)
    assert planner.scheduled(10).computed


@pytest.mark.usefixtures("own")
def test_replay_uses_its_weights(runs: Runs) -> None:
    rows = Rows(Filling("fading", "step", "output"), runs).matrix((0, 5))
    assert rows[3, 0] == 0.75
    assert rows[7, 5] == 0.75
    assert np.all(np.diagonal(rows)[[1, 2, 3, 4, 6]] == -1.0)


def test_one_that_depends_on_noise_levels_is_told_those_of_the_runs(runs: Runs) -> None:
    held = Rows(Filling("hold", "step", "output"), runs).matrix((0, 1, 2, 3, 8))
    mean = Rows(Filling("meancache-3", "step", "output"), runs).matrix((0, 1, 2, 3, 8))
    assert np.count_nonzero(mean[4]) == 4
    assert mean[4].sum() == pytest.approx(0.0, abs=1e-9)
    assert not np.allclose(mean, held)
