"""How much an error made at a noise level grows until the end of the run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EARLY_GAIN = 2.5


def gains(sigmas: Array, *, early: float = EARLY_GAIN) -> Array:
    """Growth of an error made at each step, (S,): ``early`` at the first noise level, falling linearly to 1 at σ = 0.

    Published plans weigh early errors more in the same way (RA-CFGCache, arXiv 2609.36433: λ(1 − k/T)^α + β). Only ratios
    matter for choosing a plan.

    Args:
        sigmas: (S + 1,) noise levels, falling.
        early: growth at the first one; 1 weighs all steps alike.
    """
    return np.asarray(1.0 + (early - 1.0) * sigmas[:-1] / sigmas[0])
