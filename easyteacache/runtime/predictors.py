"""Forecasters: fill a reused step from computed ones.

Every forecaster here is a *linear map*: it returns one weight per anchor (a computed step's residual), and the prediction is
Σ w_k r_k. The runtime applies the weights to tensors, replay applies them to a Gram matrix of the same residuals, so an error
predicted on a laptop is the error of exactly this code. Pure Python on floats.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from easyteacache.errors import EasyTeaCacheError

#: The record's own choice for its operating point: what validation found best there.
AUTO = "auto"
#: Weights that an operating point holds, step by step.
FITTED = "fitted"


class UnknownForecaster(EasyTeaCacheError, ValueError):
    """No forecaster of this name.

    Attributes:
        name: what was asked for.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"no forecaster named {name!r}; expected {AUTO}, hold, mean, linear, quadratic, cubic, taylor-1 … taylor-4 or foca"
            + ("; a fitted one comes with the operating point of a record that holds its weights" * (name == FITTED))
        )


class Forecaster(Protocol):
    """Predicts the residual of a reused step from earlier computed ones."""

    @property
    def name(self) -> str:
        """The name it is stored under in records."""
        ...

    @property
    def history(self) -> int:
        """Most anchors it looks at, 1 or more."""
        ...

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """One weight per anchor; the weights always sum to 1, so a constant residual is predicted exactly.

        Args:
            anchors: coordinates (step, timestep or sigma) of the last computed steps, oldest first, at least one and at
                most ``history``; no coordinate twice.
            at: coordinate of the step to predict, beyond the last anchor.
            reused: coordinates of the reused steps since the first anchor, in order; only recursive forecasters look.
        """
        ...


@dataclass(frozen=True, slots=True)
class Hold:
    """The last residual again: what TeaCache does (arXiv 2411.19108)."""

    name: str = "hold"
    history: int = 1

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """All weight on the last anchor."""
        return (*(0.0 for _ in anchors[:-1]), 1.0)


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean of the last two computed residuals: the original project's ``enable_vt_predictor`` (oneflyingfish/EasyTeacache).

    The original also averages in what it forecast itself; here only computed steps count.
    """

    name: str = "mean"
    history: int = 2

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """Half and half, or everything on the only anchor there is."""
        return (0.5, 0.5) if len(anchors) > 1 else (1.0,)


@dataclass(frozen=True, slots=True)
class Polynomial:
    """The polynomial through the last ``order + 1`` anchors, continued: Lagrange's weights, exact for unequal gaps.

    Falls back to the order that the anchors allow, down to hold.
    """

    name: str
    order: int

    @property
    def history(self) -> int:
        """``order + 1`` anchors."""
        return self.order + 1

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """Π_{j≠k} (at − a_j) / (a_k − a_j)."""
        found = []
        for k, anchor in enumerate(anchors):
            weight = 1.0
            for j, other in enumerate(anchors):
                if j != k:
                    weight *= (at - other) / (anchor - other)
            found.append(weight)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Taylor:
    """TaylorSeer (arXiv 2503.06923, eq. 9): Σ D^i F · m^i / i!, with D^i by repeated backward differences.

    The paper divides every difference by the last gap; here each is divided by its own gap, which is the same for equal gaps
    and stays exact to first order for unequal ones.
    """

    name: str
    order: int

    @property
    def history(self) -> int:
        """``order + 1`` anchors."""
        return self.order + 1

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """Weights of the truncated Taylor series around the last anchor."""
        count = len(anchors)
        # rows[k] holds the weights of the i-th difference ending at anchor k; i grows with the loop.
        rows = [[1.0 if j == k else 0.0 for j in range(count)] for k in range(count)]
        total = rows[-1]
        factor, horizon = 1.0, at - anchors[-1]
        for i in range(1, count):
            rows = [
                [(b - a) / (anchors[k + i] - anchors[k + i - 1]) for a, b in zip(rows[k], rows[k + 1], strict=True)]
                for k in range(count - i)
            ]
            factor *= horizon / i
            total = [t + factor * d for t, d in zip(total, rows[-1], strict=True)]
        return tuple(total)


@dataclass(frozen=True, slots=True)
class FoCa:
    """FoCa (arXiv 2508.16211, eqs. 6-8): BDF2 predictor, Heun corrector, for any spacing.

    The history is recursive, as in the paper: a step that was itself forecast serves the next one, so the recursion is run over
    the anchors *and* the reused steps between them, on weight vectors. It is exact on F(t) = t.

    The paper's recursion remembers every step since the first. Here it begins anew at the two oldest anchors, entered with
    the slope between them: three residuals are kept instead of all, and the forecast is the paper's own as long as no more steps
    than that were computed.
    """

    name: str = "foca"
    history: int = 3

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """Run the recursion over every visited coordinate up to ``at``."""
        count = len(anchors)
        if count == 1:
            return (1.0,)
        unit = {anchor: [1.0 if j == k else 0.0 for j in range(count)] for k, anchor in enumerate(anchors)}
        if at in unit:
            return tuple(unit[at])
        direction = 1.0 if anchors[-1] > anchors[0] else -1.0
        start, second = anchors[0], anchors[1]
        values = [(start, unit[start]), (second, unit[second])]
        slope, full = _slope(values[0], values[1]), values[1]
        visited = {*anchors[2:], at, *(r for r in reused if (r - second) * direction > 0 and (at - r) * direction > 0)}
        for coordinate in sorted(visited, reverse=direction < 0):
            if coordinate in unit:
                value = (coordinate, unit[coordinate])
                slope, full = _slope(full, value), value
            else:
                value = (coordinate, _foca_step(values[-2], values[-1], coordinate, slope))
            values.append(value)
        return tuple(values[-1][1])


@dataclass(frozen=True, slots=True)
class Fitted:
    """Weights found by least squares on traces for every step of one schedule (``solver/fitted.py``), along the steps.

    The same rows correct computed steps, whatever fills the reused ones (``correction.py``).

    Attributes:
        rows: per step the weights of the last computed outputs up to and including that step, oldest first.
        schedule: the computed steps that the rows were fitted to, ascending.
    """

    rows: tuple[tuple[float, ...], ...]
    schedule: tuple[int, ...]
    name: str = FITTED

    @property
    def history(self) -> int:
        """The longest row."""
        return max(len(row) for row in self.rows)

    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """The row of step ``at``; the last anchor alone when other steps were computed than those it was fitted to."""
        row = self.row(anchors, at)
        return (*(0.0 for _ in anchors[:-1]), 1.0) if row is None else row

    def row(self, anchors: Sequence[float], at: float) -> tuple[float, ...] | None:
        """The weights of step ``at``, one an anchor; None when others were computed than the schedule's last steps."""
        step = int(at)
        if step != at or not 0 <= step < len(self.rows):
            return None
        row, seen = self.rows[step], bisect.bisect_right(self.schedule, step)
        if tuple(anchors[-len(row) :]) != self.schedule[max(0, seen - len(row)) : seen]:
            return None
        return (*(0.0 for _ in anchors[: len(anchors) - len(row)]), *row)


_Value = tuple[float, list[float]]


def _slope(before: _Value, after: _Value) -> list[float]:
    """F' between two computed steps, divided by their own gap."""
    return [(b - a) / (after[0] - before[0]) for a, b in zip(before[1], after[1], strict=True)]


def _foca_step(before: _Value, now: _Value, at: float, full_slope: list[float]) -> list[float]:
    """F_{k+1} from F_{k-1} and F_k; ``full_slope`` is the slope at the last computed step, F'_{k-N} of eq. 8."""
    (t1, f1), (t0, f0) = before, now
    h, w = at - t0, (at - t0) / (t0 - t1)
    # Predictor (eq. 7) with the backward-difference slope, then the slope at the end (eq. 6), both for spacing ratio w.
    predicted = [a + w * (a - b) for a, b in zip(f0, f1, strict=True)]
    end_slope = [
        ((1 + 2 * w) * p - (1 + w) ** 2 * a + w * w * b) / ((1 + w) * h)
        for p, a, b in zip(predicted, f0, f1, strict=True)
    ]
    return [a + 0.5 * h * (s + e) for a, s, e in zip(f0, full_slope, end_slope, strict=True)]


_NAMED: dict[str, Forecaster] = {
    "hold": Hold(),
    "mean": Mean(),
    "linear": Polynomial("linear", 1),
    "quadratic": Polynomial("quadratic", 2),
    "cubic": Polynomial("cubic", 3),
    "foca": FoCa(),
}
_TAYLOR = re.compile(r"^taylor-([1-4])$")


def forecaster(name: str) -> Forecaster:
    """The forecaster stored in records under ``name``.

    Raises:
        UnknownForecaster: there is none of that name.
    """
    if name in _NAMED:
        return _NAMED[name]
    match = _TAYLOR.match(name)
    if match is None:
        raise UnknownForecaster(name)
    return Taylor(name, int(match.group(1)))


def names() -> tuple[str, ...]:
    """Every forecaster's name, simplest first."""
    return ("hold", "mean", "linear", "quadratic", "cubic", *(f"taylor-{order}" for order in range(1, 5)), "foca")
