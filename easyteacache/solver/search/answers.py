"""How a model's outputs answer to disturbances of the state: what is known beforehand, what sampling a plan shows, and what is plausible.

A plan's state is a little off, and an output that is computed there is off, too: by ‖δv‖ for ‖δx‖. No trace holds that number, for it is
the model's Jacobian. It was measured on three small models at shifts of 0.25 to 3 (docs/solver.md): over matched noise
(``policy.matched_noise``) they have much in common, over the noise level itself they have not. ``Answers.expected`` is their mean. A
model that is at hand shows its own with the first plan that is sampled (``Answers.observed``).

What is measured on one plan holds for another within a factor, and the first steps of a run say least about themselves. So schedules are
searched and judged under several *plausible* curves at once: the curve itself, a stronger one, and two in which the first outputs answer
more. A schedule that is the best of one and poor under another is not taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from easyteacache.policy.matched_noise import REFERENCE_LENGTH, matched_noise
from easyteacache.policy.uncalibrated import REFERENCE_VALUES
from easyteacache.records.trace import Array
from easyteacache.solver.replay.propagation import APART
from easyteacache.solver.replay.runs import Runs

#: Matched noise → ‖δv‖ / ‖δx‖, geometric mean over models, plans and runs.
EXPECTED: tuple[tuple[float, float], ...] = (
    (-4.0, 4.0),
    (-1.5, 2.7),
    (0.0, 2.7),
    (0.5, 3.1),
    (1.0, 4.0),
    (1.5, 3.4),
    (2.0, 2.3),
    (2.5, 1.7),
    (3.0, 1.1),
    (4.0, 1.0),
)
#: ‖v‖² per value of the latent at the first step, where v = noise − mean: noise has variance 1, latents a mean that is not 0.
FIRST_SQUARE = 1.5
#: What plans show differs from what others would by about this factor.
STRONGER = 1.5
#: Matched noise from which on, upwards, an output may answer more than was seen; and what it then answers, in the two early views.
EARLY_FROM, EARLY, EARLIEST = 2.0, 4.0, 6.0
# Runs whose first output is smaller than that of so few values say nothing about their noise.
_FEWEST_VALUES, _MOST_VALUES = 16.0, 1e9
_FAR = 12.0


@dataclass(frozen=True)
class Answers:
    """What outputs answer to disturbances on the steps of one setting.

    Attributes:
        places: matched noise of every step, falling, (S,).
        values: numbers of the latent that a sample has in all, by the size of its first output.
        curve: ‖δv‖ / ‖δx‖ at every step, (S,).
    """

    places: tuple[float, ...]
    values: float
    curve: tuple[float, ...]

    @classmethod
    def expected(cls, runs: Runs) -> Answers:
        """What is known beforehand, for runs of any model."""
        values = _values(runs)
        places = _places(runs.sigmas, values)
        known, answers = zip(*EXPECTED, strict=True)
        curve = np.exp(np.interp(places, known, np.log(answers)))
        return cls(tuple(places.tolist()), values, tuple(curve.tolist()))

    def observed(self, steps: Sequence[int], answers: Sequence[float]) -> Answers:
        """With what a sampled plan's outputs answered at its computed steps, each a number above 0; between them it is drawn out.

        Before the first of the steps and after the last one the shape of the curve is kept.
        """
        order = np.argsort(steps)
        at = np.asarray(steps, dtype=float)[order]
        ratios = np.log(np.asarray(answers, dtype=float)[order] / np.asarray(self.curve)[np.asarray(steps)[order]])
        moved = np.interp(np.arange(len(self.curve)), at, _smooth(ratios))
        return Answers(self.places, self.values, tuple((np.asarray(self.curve) * np.exp(moved)).tolist()))

    def plausible(self) -> Array:
        """(V, S) in units of ``propagation.responses``: the curve itself first."""
        curve, places = np.asarray(self.curve), np.asarray(self.places)
        early = places > EARLY_FROM
        views = [curve, STRONGER * curve]
        for least in (EARLY, EARLIEST):
            views.append(np.where(early, np.maximum(curve, least), curve))
        return APART * np.stack(views)


def _values(runs: Runs) -> float:
    gram = runs.residual if runs.output is None else runs.output
    return float(np.clip(np.median(gram[:, 0, 0]) / FIRST_SQUARE, _FEWEST_VALUES, _MOST_VALUES))


def _places(sigmas: Array, values: float) -> Array:
    length = values * REFERENCE_LENGTH / REFERENCE_VALUES
    levels = np.clip(sigmas[:-1], 0.0, 1.0)
    return np.clip([matched_noise(float(level), length) for level in levels], -_FAR, _FAR)


def _smooth(values: Array) -> Array:
    """Mean of every three neighbours: a single step's answer is of few runs."""
    padded = np.concatenate((values[:1], values, values[-1:]))
    return np.asarray((padded[:-2] + padded[1:-1] + padded[2:]) / 3.0)
