"""What all pictures share."""

from __future__ import annotations

import sys

import pytest

from easyteacache.compare import plot_style
from easyteacache.errors import MissingPackage


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([0.2, 0.5], [0.2, 0.5]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.0, 0.0], [0.0, 0.1]),
        ([0.95, 1.0], [0.9, 1.0]),
        ([0.4, 0.5, 0.5], [11 / 30, 14 / 30, 17 / 30]),
    ],
)
def test_labels_are_moved_apart_as_little_as_possible(wanted: list[float], expected: list[float]) -> None:
    assert plot_style.spread(wanted, 0.1) == pytest.approx(expected)


def test_more_labels_than_fit_stay_apart_from_the_bottom_up() -> None:
    assert plot_style.spread([0.5] * 4, 0.5) == pytest.approx([0.0, 0.5, 1.0, 1.5])


@pytest.mark.parametrize(("largest", "factor"), [(0.0, 1), (2.0, 1), (1.0, 1), (0.5, 2), (0.021, 20), (1e-9, 10000)])
def test_a_difference_is_shown_with_the_largest_round_factor_that_fits(largest: float, factor: int) -> None:
    assert plot_style.gain(largest) == factor


def test_the_same_picture_gives_the_same_bytes() -> None:
    def drawn() -> bytes:
        picture = plot_style.figure(2, 1)
        axes = picture.subplots()
        axes.plot([1, 10], [2, 30])
        axes.set_yscale("log")
        plot_style.tidy(axes)
        plot_style.plain_decades(axes.yaxis)
        plot_style.label_ends(axes, [(10, 30, "a line", plot_style.BLUE)], logarithmic=True)
        return plot_style.png(picture)

    assert drawn() == drawn()
    assert drawn().startswith(b"\x89PNG")
    assert b"Matplotlib" not in drawn()


def test_without_matplotlib_a_picture_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackage, match=r'matplotlib.*pip install "easyteacache\[compare\]"'):
        plot_style.figure(1, 1)
