"""An exact denoiser of a finite set of scenes at several resolutions: what the law is derived for, without any network."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import scenes
import torch
from law_runs import Recorded
from numpy.typing import NDArray

from easyteacache.policy.carry import shifted_levels

Array = NDArray[np.float64]
COUNT, RUNS, STEPS, SEED = 2000, 16, 50, 11


def recorded(pixels: int, *, shift: float = 1.0) -> Recorded:
    """Euler runs with E[x | x_σ] over ``COUNT`` scenes of ``pixels`` × ``pixels``; the same scenes at every size.

    A scene that was seen at one size is seen at all, so that only the number of pixels that show it differs.
    """
    known = scenes.draw(COUNT, pixels, np.random.default_rng(SEED)).pixels.flatten(1).double().numpy()
    squares = np.einsum("nd,nd->n", known, known)
    levels = np.array(shifted_levels(STEPS, shift))
    rng = np.random.default_rng(SEED + pixels)
    state = rng.standard_normal((RUNS, known.shape[1]))
    outputs = []
    for before, after in pairwise(levels):
        signal = 1.0 - before
        # ‖x − signal · x_i‖² up to what all i share.
        fit = (signal * state @ known.T - 0.5 * signal**2 * squares) / before**2
        weights = np.exp(fit - fit.max(axis=1, keepdims=True))
        expected = weights @ known / weights.sum(axis=1, keepdims=True)
        outputs.append((state - expected) / before)
        state = state + (after - before) * outputs[-1]
    stacked = np.stack(outputs, axis=1)
    gram = stacked @ stacked.transpose(0, 2, 1) / stacked.shape[-1]
    return Recorded(gram.mean(axis=0), levels, torch.from_numpy(state))
