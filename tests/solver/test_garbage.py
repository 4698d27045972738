"""Cycles are looked for less often within, and as before afterwards, whoever leaves last."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from easyteacache.solver.garbage import THRESHOLD, rarely_collected


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_thresholds_return_where_something_goes_wrong() -> None:
    gc.set_threshold(701, 11, 12)

    def fail() -> None:
        with rarely_collected():
            assert gc.get_threshold() == (THRESHOLD, 11, 12)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert gc.get_threshold() == (701, 11, 12)


def test_of_two_that_overlap_the_last_one_returns_them() -> None:
    gc.set_threshold(701, 11, 12)
    first, second = rarely_collected(), rarely_collected()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold()[0] == THRESHOLD
    second.__exit__(None, None, None)
    assert gc.get_threshold() == (701, 11, 12)


@pytest.mark.parametrize("own", [0, 2 * THRESHOLD])
def test_who_collects_less_already_keeps_that(own: int) -> None:
    gc.set_threshold(own, 11, 12)
    with rarely_collected():
        assert gc.get_threshold()[0] == own
