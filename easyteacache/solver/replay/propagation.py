"""How much an error made at a noise level grows until the end of the run."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from easyteacache.records.trace import Array

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


# Noise level → how much the output answers to a disturbance of the state, ‖δv‖ / ‖δx‖.
_LEVELS = (0.0, 0.22, 0.38, 0.5, 0.6, 0.72, 0.81, 0.86, 0.92, 0.955, 1.0)
_MEASURED = (2.7, 2.7, 2.1, 1.9, 2.7, 2.8, 4.0, 3.9, 1.7, 1.0, 1.0)
#: Views of how outputs answer to disturbances: the measured one first, then stronger ones, of which the first steps say most.
VIEWS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "measured": _MEASURED,
        "strong": tuple(1.5 * answer for answer in _MEASURED),
        "early": (*_MEASURED[:8], 4.0, 4.0, 4.0),
        "earliest": (*_MEASURED[:8], 6.0, 6.0, 6.0),
        "strong and early": (*(1.5 * answer for answer in _MEASURED[:8]), 9.0, 9.0, 9.0),
        "middle": (2.0, 2.0, 2.0, 2.0, 3.5, 5.0, 5.0, 5.0, 4.7, 3.9, 3.0),
        "rising": tuple(1.0 + 7.0 * level for level in _LEVELS),
    }
)
# Errors made at different steps point different ways, so that adding their sizes up counts too much; 0.47 of them predicts the
# typical error of the reference model's plans to within 1.3, under Euler, UniPC and DPM++ (docs/solver-evidence.md).
APART = 0.47


#: How outputs answer to disturbances: a name of ``VIEWS``, or the answers at every step themselves, (S,) or (V, S) of V views at once.
View: TypeAlias = "str | Array"


def responses(sigmas: Array, *, view: View = "measured") -> Array:
    """How much of a disturbance of the state before each step its output repeats, (S,) or (V, S), in units of the state.

    Measured on plans of the reference model: ‖δv‖/‖δx‖ between runs that follow a plan and full ones, the same seeds. The part of δv along
    δx is small; what matters is that outputs computed between σ 0.9 and 0.7, where a sample is decided, answer most.

    Args:
        sigmas: (S + 1,) noise levels, falling from about 1.
        view: a name of ``VIEWS``; answers of a model's own are returned as they are.
    """
    if not isinstance(view, str):
        return view
    return np.asarray(APART * np.interp(sigmas[:-1] / sigmas[0], _LEVELS, VIEWS[view]))
