"""The geometry of a chart of speed against quality; a template draws it.

Places are percentages of the plot area, so that a phone and a wide screen show the same picture with letters of one size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from easyteacache.pages.tiers import TIERS, Tier, tier_named

#: Ticks that people count in, of every decade.
_STEPS = (1.0, 2.0, 5.0)
#: A figure whose largest value is this many times its smallest is drawn on a logarithmic axis.
_LOGARITHMIC_FROM = 6.0
_MARGIN = 0.06


@dataclass(frozen=True)
class Dot:
    """One setting.

    Attributes:
        target: id of the part of the page that tells all of it.
        speed: speed-up, a factor above 0.
        quality: figure of the chart's metric; None where there is none.
        tier: evidence kind, None without evidence.
        label: what it is, in one line.
        figure: its quality in words.
        run: the runs it holds for, in words; readers may choose those of one kind.
    """

    target: str
    speed: float
    quality: float | None
    tier: str | None
    label: str
    figure: str = ""
    run: str = ""


@dataclass(frozen=True)
class Placed:
    """A dot and where it stands, percent from the left and from the top; ``best`` where no other is faster and as good."""

    dot: Dot
    tier: Tier
    x: float
    y: float
    best: bool = False


@dataclass(frozen=True)
class Tick:
    """A labelled place of an axis, percent from the left or from the top."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A piece of the frontier, in percent."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Beside:
    """A line for comparison: its name, and its places in percent from the left and from the top."""

    name: str
    places: tuple[tuple[float, float], ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        """Its pieces."""
        return tuple(Line(*a, *b) for a, b in pairwise(self.places))


@dataclass(frozen=True)
class Chart:
    """What the template draws.

    Attributes:
        name: of the metric, as records spell it; ``evidence`` for a chart of tiers.
        title, x_label, y_label: for people.
        dots: slowest first.
        frontier: through the dots that no other one beats.
        more: whether a larger figure is better; None for a chart of tiers.
        beside: lines for comparison.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    dots: tuple[Placed, ...]
    frontier: tuple[Line, ...] = ()
    more: bool | None = None
    beside: tuple[Beside, ...] = ()

    @property
    def runs(self) -> tuple[str, ...]:
        """The kinds of runs that its dots hold for, each once."""
        return tuple(dict.fromkeys(one.dot.run for one in self.dots))


def quality_chart(
    dots: Sequence[Dot],
    *,
    metric: str,
    title: str,
    y_label: str,
    x_label: str,
    more: bool,
    shares: bool = False,
    beside: Sequence[tuple[str, Sequence[tuple[float, float]]]] = (),
) -> Chart:
    """Speed to the right, quality upwards: better is up for every metric.

    Args:
        dots: each with a quality.
        more: whether a larger figure is better.
        shares: figures are shares, printed in percent.
        beside: (name, (speed, quality) of every place) of lines for comparison.
    """
    values = [dot.quality for dot in dots if dot.quality is not None]
    values += [value for _, places in beside for _, value in places]
    across = _axis([1.0, *(dot.speed for dot in dots), *(speed for _, places in beside for speed, _ in places)])
    upwards = _axis(values, logarithmic=not more)
    best = {id(dot) for dot in frontier_of(dots, more=more)}
    placed = [
        Placed(dot, tier_named(dot.tier), across.at(dot.speed), _up(upwards.at(dot.quality), more), id(dot) in best)
        for dot in sorted(dots, key=lambda dot: (dot.speed, dot.quality))
        if dot.quality is not None
    ]
    ticks = [
        Tick(_up(upwards.at(value), more), _percent(value) if shares else _plain(value)) for value in upwards.ticks()
    ]
    corners = [(one.x, one.y) for one in placed if one.best]
    lines = tuple(
        Beside(name, tuple((across.at(speed), _up(upwards.at(value), more)) for speed, value in places))
        for name, places in beside
    )
    return Chart(
        name=metric,
        title=title,
        x_label=x_label,
        y_label=y_label,
        x_ticks=_factors(across),
        y_ticks=tuple(ticks),
        dots=tuple(placed),
        frontier=_stairs(corners),
        more=more,
        beside=lines,
    )


def tier_chart(dots: Sequence[Dot], *, title: str, x_label: str) -> Chart:
    """Speed to the right, a row a tier of evidence: for settings whose quality nobody states."""
    across = _axis([1.0, *(dot.speed for dot in dots)])
    present = [tier for tier in TIERS if any(tier_named(dot.tier) is tier for dot in dots)]
    rows = {tier.name: 100 * (row + 0.5) / len(present) for row, tier in enumerate(present)}
    placed, taken = [], set()
    for dot in sorted(dots, key=lambda dot: dot.speed):
        tier = tier_named(dot.tier)
        x, y = across.at(dot.speed), rows[tier.name]
        # Settings of one speed stand above each other, up to the next row.
        lift = 0
        while (round(x), tier.name, lift) in taken and lift < 4:
            lift += 1
        taken.add((round(x), tier.name, lift))
        placed.append(Placed(dot, tier, x, y - lift * min(9.0, 16 / len(present))))
    ticks = tuple(Tick(rows[tier.name], tier.name) for tier in present)
    return Chart("evidence", title, x_label, "evidence", _factors(across), ticks, tuple(placed))


def frontier_of(dots: Sequence[Dot], *, more: bool) -> list[Dot]:
    """The dots that no other one beats: at least as fast and better. Slowest first."""
    found: list[Dot] = []
    best: float | None = None
    for dot in sorted(dots, key=lambda dot: (-dot.speed, -(dot.quality or 0) if more else (dot.quality or 0))):
        if dot.quality is None or (best is not None and not _better(dot.quality, best, more)):
            continue
        best = dot.quality
        found.append(dot)
    return found[::-1]


def _better(a: float, b: float, more: bool) -> bool:
    return a > b if more else a < b


def _stairs(corners: Sequence[tuple[float, float]]) -> tuple[Line, ...]:
    """Up to each corner's speed its quality is there; then the next one's."""
    lines = []
    for (x1, y1), (x2, y2) in pairwise(corners):
        lines += [Line(x1, y1, x1, y2), Line(x1, y2, x2, y2)]
    return tuple(lines)


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    logarithmic: bool

    def at(self, value: float) -> float:
        if self.logarithmic:
            value, low, high = math.log(value), math.log(self.low), math.log(self.high)
        else:
            low, high = self.low, self.high
        return round(100 * (value - low) / (high - low), 3)

    def ticks(self, wanted: int = 6) -> list[float]:
        if self.logarithmic:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for steps in (_STEPS, (1.0, 3.0), (1.0,)):
                found = [s * 10.0**d for d in range(first, last + 1) for s in steps]
                inside = [value for value in found if self.low <= value <= self.high]
                if len(inside) <= wanted + 2:
                    return inside
            return inside[:: -(-len(inside) // wanted)]
        return _round_numbers(self.low, self.high, wanted)


def _axis(values: Sequence[float], *, logarithmic: bool = False) -> _Axis:
    low, high = min(values), max(values)
    if logarithmic and low > 0 and high >= _LOGARITHMIC_FROM * low:
        room = (high / low) ** _MARGIN
        return _Axis(low / room, high * room, True)
    # One value alone gets an axis around it.
    room = _MARGIN * (high - low) or 0.25 * abs(high) or 1.0
    return _Axis(low - room, high + room, False)


def _round_numbers(low: float, high: float, wanted: int) -> list[float]:
    raw = (high - low) / wanted
    decade = 10.0 ** math.floor(math.log10(raw))
    step = next(s * decade for s in (*_STEPS, 10.0) if s * decade >= raw)
    return [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _up(percent: float, more: bool) -> float:
    return round(100 - percent, 3) if more else percent


def _factors(axis: _Axis) -> tuple[Tick, ...]:
    return tuple(Tick(axis.at(value), f"{_plain(value)}×") for value in axis.ticks() if value >= 1)


def _plain(value: float) -> str:
    return f"{value:.4g}"


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"
