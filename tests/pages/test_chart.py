"""Charts: better is up for every metric, ticks are numbers people count in, the frontier is what nobody beats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyteacache.pages.chart import Dot, frontier_of, quality_chart, tier_chart
from easyteacache.pages.environment import factor, number, quality
from easyteacache.pages.links import github, hub_repository, sources, web
from easyteacache.pages.plan_strip import strip


def dot(speed: float, quality: float | None = None, tier: str | None = "submitted", target: str = "s") -> Dot:
    return Dot(target, speed, quality, tier, "label")


def chart(*dots: Dot, more: bool = False, **options: object):
    return quality_chart(dots, metric="m", title="t", y_label="y", x_label="x", more=more, **options)


@pytest.mark.parametrize("more", [True, False])
def test_better_is_up_and_faster_is_right(more: bool) -> None:
    slow, fast = chart(dot(1.5, 0.1), dot(3.0, 0.2), more=more).dots
    assert slow.x < fast.x
    assert (fast.y < slow.y) == more


def test_the_frontier_holds_what_no_other_one_beats() -> None:
    best = [dot(1.2, 0.01), dot(2.0, 0.02), dot(3.0, 0.05)]
    assert frontier_of([dot(1.1, 0.02), *best, dot(2.0, 0.03), dot(2.9, 0.06)], more=False) == best


@given(st.lists(st.tuples(st.floats(0.5, 20), st.floats(1e-6, 1)), min_size=1, max_size=40), st.booleans())
def test_everything_lies_inside_the_plot(values: list[tuple[float, float]], more: bool) -> None:
    found = chart(*(dot(speed, quality) for speed, quality in values), more=more)
    assert len(found.dots) == len(values)
    for place in (*((one.x, one.y) for one in found.dots), *((t.at, t.at) for t in (*found.x_ticks, *found.y_ticks))):
        assert all(-1e-6 <= value <= 100 + 1e-6 for value in place)
    assert any(one.best for one in found.dots)
    assert len(found.y_ticks) <= 12


def test_errors_over_decades_get_ticks_of_one_two_and_five() -> None:
    ticks = chart(dot(1.5, 0.001), dot(3.0, 0.08), shares=True).y_ticks
    assert [tick.text for tick in ticks] == ["0.1 %", "0.2 %", "0.5 %", "1 %", "2 %", "5 %", "10 %"]


def test_one_dot_alone_has_an_axis_around_it() -> None:
    found = chart(dot(2.0, 0.5), more=True)
    assert 10 < found.dots[0].y < 90
    assert found.y_ticks


def test_without_quality_there_is_a_row_a_tier() -> None:
    found = tier_chart(
        [dot(1.5, tier="published"), dot(2.0, tier=None), dot(1.8, tier="published")], title="t", x_label="x"
    )
    assert [tick.text for tick in found.y_ticks] == ["published", "unstated"]
    assert found.more is None
    assert not any(one.best for one in found.dots)


def test_settings_of_one_speed_stand_above_each_other() -> None:
    found = tier_chart([dot(2.0, tier="published")] * 3, title="t", x_label="x")
    assert len({one.y for one in found.dots}) == 3


def test_a_strip_names_its_computed_steps() -> None:
    found = strip((0, 1, 2, 5, 9), 10)
    assert found.told == "computes steps 0–2, 5, 9 of 10"
    assert found.path == "M0 0h3v1h-3zM5 0h1v1h-1zM9 0h1v1h-1z"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (1.8125, "1.81"), (1234567.0, "1.23e+06"), (250.0, "250"), (0.00001, "1.00e-05")],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_figures_are_spelled_as_their_metric_is() -> None:
    assert (factor(2.0), quality("relative-l2", 0.0123), quality("psnr", 31.234), quality("x", 0.5)) == (
        "2×",
        "1.23 %",
        "31.2 dB",
        "0.5",
    )


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)", "data:text/html,x", "//evil.example", "https://user@evil.example/", "https://a b/",
        "https://evil.example/\u202e", "ftp://x/", "",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_no_link(text: str) -> None:
    assert web(text) is None
    assert all(address is None or address.startswith("https://") for _, address in sources(text))


@pytest.mark.parametrize("name", ["javascript:x/y", "owner", "owner/na me", "a/..", "../b", "owner/name/more", ""])
def test_a_repository_that_is_none_is_no_link(name: str) -> None:
    assert github(name) is None
    assert hub_repository(name) is None


def test_places_in_repositories_are_links() -> None:
    assert github("o/n", "a b.py", "a" * 40, 7) == f"https://github.com/o/n/blob/{'a' * 40}/a%20b.py#L7"
    assert github("o/n", "../x") == "https://github.com/o/n"
    assert sources("o/n, a/b.py") == [("o/n, a/b.py", "https://github.com/o/n/blob/HEAD/a/b.py")]
    assert sources("see https://e.org/x. End") == [
        ("see ", None),
        ("https://e.org/x", "https://e.org/x"),
        (". End", None),
    ]
