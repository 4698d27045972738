"""How a model's outputs answer to disturbances of the state: what is expected of any model, what sampling a plan shows, what is plausible.

A plan's state is a little off, and an output that is computed there is off, too: by ‖δv‖ for ‖δx‖. No trace holds that number, for it is
the model's Jacobian. On the reference model it was measured at shift 3 (``propagation.VIEWS``). Where a sample is decided is not a matter of the
noise level, though, but of matched noise (``policy.matched_noise``), over which models have much in common: so at every step what is expected is
what was measured where the matched noise is the same. A model that is at hand shows its own with the first plans that are sampled.

The typical answer is not the whole of it. Some runs answer an early error several times as much as the typical one, because it makes another
sample of them, and the more so the more guidance there is. A search by the measured answers alone therefore leaves out early steps: its choices
were 1 to 3 dB worse than those of views in which high noise answers more, on the very model that was measured (docs/solver-evidence.md). So schedules are
searched and judged under several *plausible* views at once, and one that is poor under any of them is not taken.

What is answered does not all do harm: a part of it takes the disturbance back, and what several outputs answer to the same one cancels in part. So
``COUNTED`` of the answers counts. With all of it a search spends its steps where errors are answered most and leaves out the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from easyteacache.policy.matched_noise import REFERENCE_LENGTH, matched_noise
from easyteacache.policy.uncalibrated import REFERENCE_VALUES
from easyteacache.records.trace import Array
from easyteacache.solver.replay.propagation import APART, responses
from easyteacache.solver.replay.runs import Runs

#: Names of ``propagation.VIEWS``, the measured one first.
PLAUSIBLE = ("measured", "strong and early", "middle", "rising")
#: ‖v‖² per value of the latent at the first step, where v = noise − mean: noise has variance 1, and latents a mean that is not 0.
FIRST_SQUARE = 1.5
#: Times ÷ σ: the least that is answered. Where hardly any noise is left, much of a disturbance is taken for noise, and a velocity is noise ÷ σ.
LEAST_OF_NOISE = 0.5
# Below this noise level nothing was measured.
_LOWEST_LEVEL = 1e-3
#: Share of the answers that counts when schedules are judged. Of 0.25 to 1 the best on two models, two samplers and two shifts: 0.7 dB better
#: in the mean of 24 cells than all of it, and less leaves too many early steps out (docs/solver-evidence.md).
COUNTED = 0.6
# Runs whose first output is smaller than that of so few values say nothing about their noise.
_FEWEST_VALUES, _MOST_VALUES = 16.0, 1e9
# What few runs show is believed within these factors of what is expected.
_LEAST, _MOST = 0.25, 4.0


@dataclass(frozen=True)
class Answers:
    """What outputs answer to disturbances on the S steps of one setting.

    Attributes:
        levels: (S,) the noise level that a sample of ``uncalibrated.REFERENCE_VALUES`` values has at the same matched noise.
        sigmas: (S,) the noise levels themselves, 0 to 1.
        values: numbers of the latent that a sample has in all, by the size of its first output.
        ratios: (S,) what this model answers, relative to what is expected; 1 where nobody says.
    """

    levels: tuple[float, ...]
    sigmas: tuple[float, ...]
    values: float
    ratios: tuple[float, ...]

    @classmethod
    def expected(cls, runs: Runs) -> Answers:
        """What is expected of any model, for these runs' noise levels and size."""
        gram = runs.residual if runs.output is None else runs.output
        values = float(np.clip(np.median(gram[:, 0, 0]) / FIRST_SQUARE, _FEWEST_VALUES, _MOST_VALUES))
        length = values * REFERENCE_LENGTH / REFERENCE_VALUES
        sigmas = [float(level) for level in np.clip(runs.sigmas[:-1], 0.0, 1.0)]
        places = [matched_noise(sigma, length) for sigma in sigmas]
        levels = (1.0 / (1.0 + np.exp(-np.array(places)))).tolist()
        return cls(tuple(levels), tuple(sigmas), values, (1.0,) * len(places))

    @property
    def curve(self) -> Array:
        """‖δv‖ / ‖δx‖ at every step, (S,), in the typical run."""
        return np.asarray(self._views()[0])

    def observed(self, steps: Sequence[int], answers: Sequence[float]) -> Answers:
        """With what a sampled plan's outputs answered at some steps, each ‖δv‖ / ‖δx‖ above 0; drawn out between them and beyond."""
        order = np.argsort(steps)
        at = np.asarray(steps)[order]
        ratios = np.log(np.asarray(answers, dtype=float)[order] / self.curve[at])
        drawn = np.interp(np.arange(len(self.levels)), at, _smooth(np.clip(ratios, np.log(_LEAST), np.log(_MOST))))
        return replace(self, ratios=tuple((np.asarray(self.ratios) * np.exp(drawn)).tolist()))

    def plausible(self) -> Array:
        """(V, S) what counts of the answers under every view, the typical ones first, for errors that are added up as if at right angles."""
        return COUNTED * self._views()

    def _views(self) -> Array:
        levels = np.array([1.0, *self.levels, 0.0])
        views = np.stack([responses(levels, view=view)[1:] for view in PLAUSIBLE]) / APART
        least = LEAST_OF_NOISE / np.maximum(np.asarray(self.sigmas), _LOWEST_LEVEL)
        return np.asarray(np.maximum(views, least) * np.asarray(self.ratios))


def _smooth(values: Array) -> Array:
    """Mean of every three neighbours: a single step's answer is of few runs."""
    padded = np.concatenate((values[:1], values, values[-1:]))
    return np.asarray((padded[:-2] + padded[1:-1] + padded[2:]) / 3.0)
