"""A predictor is one class, registered once: everything that lists or looks up predictors knows it from then on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from easyteacache import TeaCache
from easyteacache.runtime.predictors import (
    FITTED,
    Predictor,
    UnknownPredictor,
    families,
    predictor,
    predictors,
    register_predictor,
)


@dataclass(frozen=True)
class Fading(Predictor):
    """Three quarters of the last computed step."""

    names: ClassVar[tuple[str, ...]] = ("fading",)

    name: str = "fading"
    history: int = 1

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        return (0.75,)


@dataclass(frozen=True)
class Scaled(Predictor):
    """A share of the last computed step, in percent."""

    names: ClassVar[tuple[str, ...]] = ("scaled-50",)
    pattern: ClassVar[str] = r"scaled-\d{1,3}"
    spelling: ClassVar[str] = "scaled-P (percent)"
    axes: ClassVar[tuple[Any, ...]] = ("step",)
    places: ClassVar[tuple[Any, ...]] = ("output",)
    candidates: ClassVar[tuple[str, ...] | None] = ("scaled-90", "scaled-95")

    name: str = "scaled-50"
    history: int = 1

    @classmethod
    def named(cls, name: str) -> Scaled:
        return cls(name)

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        return (int(self.name.split("-")[1]) / 100,)


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two predictors of our own, for one test."""
    monkeypatch.setattr("easyteacache.runtime.predictors.registry._families", list(families()))
    register_predictor(Fading)
    register_predictor(Scaled)


def test_it_is_found_by_its_name_and_listed_with_the_simplest() -> None:
    assert isinstance(predictor("fading"), Fading)
    assert predictors().index("hold") < predictors().index("fading") < predictors().index("linear")
    assert predictor("scaled-30").weights([1.0], 2.0) == (0.3,)
    with pytest.raises(UnknownPredictor, match=r"hold, fading, scaled-50, scaled-P .* or spectrum-M-L-W"):
        predictor("scaled-")


@pytest.mark.parametrize("argument", ["predictor", "forecaster"])
def test_from_registry_takes_it_by_the_new_and_the_old_name_of_the_argument(argument: str) -> None:
    cache = TeaCache.from_registry("wan2.1/t2v-14b", threshold=0.1, **{argument: "fading"})
    assert cache.policy.forecaster == "fading"
    latent = torch.ones(1, 8, 4)
    state = cache.session.branch("default", 0)
    state.store_residual(0, None, 4 * latent)
    state._proposal = None
    assert isinstance(state.predictor, Fading)
    assert state.predictor.history == 1


def test_two_names_of_one_argument_are_given_once() -> None:
    with pytest.raises(ValueError, match="two names of one argument"):
        TeaCache.from_registry("wan2.1/t2v-14b", threshold=0.1, forecaster="hold", predictor="fading")


def test_a_reused_step_is_filled_with_its_weights(make_cache: Callable[..., Any]) -> None:
    cache = make_cache(schedule=(0,), forecaster="fading")
    latent = torch.ones(1, 8, 4)
    cache.check(0, None)
    cache.store_truth(0, None, latent, 5 * latent)
    assert cache.check(1, None)
    assert torch.equal(cache.update(None, latent), 4 * latent)


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="cannot be named 'fading': that is Fading"):
        register_predictor(Fading)
    for taken in ("spectrum-3-10-50", FITTED, "auto"):

        @dataclass(frozen=True)
        class Other(Fading):
            """Another one."""

            names: ClassVar[tuple[str, ...]] = (taken,)
            name: str = taken

        with pytest.raises(ValueError, match=f"cannot be named '{taken}'"):
            register_predictor(Other)


def test_a_class_that_does_not_answer_to_its_names_is_refused() -> None:
    @dataclass(frozen=True)
    class Two(Fading):
        """It forgot ``named``."""

        names: ClassVar[tuple[str, ...]] = ("one", "two")
        name: str = "one"

    with pytest.raises(ValueError, match="named 'one'; it must be what was asked for"):
        register_predictor(Two)
    with pytest.raises(ValueError, match="has no names"):
        register_predictor(type("Nameless", (Predictor,), {}))
    assert "one" not in predictors()


def test_rows_are_the_weights_of_every_step_of_a_schedule() -> None:
    assert predictor("fading").rows((0, 2), 4) == ((1.0,), (0.75,), (1.0,), (0.75,))
    linear = predictor("linear").rows((0, 1, 4), 6, places=[10.0, 8.0, 7.0, 6.0, 4.0, 3.0])
    assert [len(row) for row in linear] == [1, 1, 2, 2, 1, 2]
    assert np.allclose(linear[2], (-0.5, 1.5))
    assert np.allclose(linear[5], (-0.25, 1.25))
