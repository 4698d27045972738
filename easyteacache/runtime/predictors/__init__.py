"""Predictors: fill a reused step from computed ones.

Every predictor is a *linear map*: it gives one weight per computed step, and the prediction is Σ w_k v_k. The runtime applies the
weights to tensors, replay applies them to a Gram matrix of the same quantities, so an error predicted on a laptop is the error of
exactly this code. Pure Python on floats.

One predictor is one class in one module of this package, which registers itself; names, error texts, the solver's candidates and the
table in ``docs/runtime.md`` follow from the registry.
"""

from __future__ import annotations

import importlib
import pkgutil

from easyteacache.runtime.predictors.planned import PlannedRows, planned
from easyteacache.runtime.predictors.predictor import AUTO, FITTED, Predictor
from easyteacache.runtime.predictors.registry import (
    UnknownPredictor,
    families,
    predictor,
    predictors,
    register_predictor,
)

__all__ = [
    "AUTO",
    "FITTED",
    "PlannedRows",
    "Predictor",
    "UnknownPredictor",
    "families",
    "planned",
    "predictor",
    "predictors",
    "register_predictor",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
