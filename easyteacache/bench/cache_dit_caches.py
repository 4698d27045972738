"""cache-dit's DBCache with its forecasts, by its own code."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from easyteacache.bench.contender import Bed, Calibrated, Contender, Knob, Settings

TITLES = {"": "DBCache", "taylorseer": "DBCache + TaylorSeer", "foca": "DBCache + FoCa", "dmd": "DBCache + DMD"}


class DBCache(Contender):
    """DBCache without a forecast.

    Args:
        forecast: name of a calibrator: ``""``, ``taylorseer``, ``foca`` or ``dmd``.
    """

    family = "cache-dit"
    knob = Knob("residual_diff_threshold", 1e-4, 5.0)
    packages = ("cache-dit",)
    note = "always runs the first block, which weighs more the fewer blocks a model has"

    def __init__(self, forecast: str = "") -> None:
        self.forecast = forecast
        self.name = TITLES[forecast]
        self.kind = "forecast" if forecast else "hold"

    def inapplicable(self, bed: Bed) -> str | None:
        """Only what cache-dit has an adapter for, one transformer alone."""
        if len(bed.subject.transformers) > 1:
            return "the pipeline has two transformers"
        _quieten()
        from cache_dit import BlockAdapterRegister

        if not BlockAdapterRegister.is_supported(bed.transformer):
            return f"cache-dit has no adapter for {type(bed.transformer).__name__}"
        return None

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """The default warm-up and limit first; on short runs 8 full steps are most of the budget."""
        rows = ((8, -1), (4, -1), (4, 2), (2, 4))
        orders = (1, 2) if self.forecast == "taylorseer" else (None,)
        return tuple(
            {"max_warmup_steps": warm_up, "max_continuous_cached_steps": most, **({"order": order} if order else {})}
            for warm_up, most in rows
            for order in orders
            # The second order is tried where the first one is usually best: a pilot costs time.
            if order != 2 or (warm_up, most) == (4, 2)
        )

    @contextlib.contextmanager
    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Iterator[None]:
        """Enabled inside the block, with a fresh context."""
        import cache_dit
        from cache_dit.caching.block_adapters import FakeDiffusionPipeline

        config = cache_dit.DBCacheConfig(
            Fn_compute_blocks=1,
            Bn_compute_blocks=0,
            max_warmup_steps=settings["max_warmup_steps"],
            max_continuous_cached_steps=settings["max_continuous_cached_steps"],
            residual_diff_threshold=settings["residual_diff_threshold"],
            enable_separate_cfg=bed.separate_branches,
            num_inference_steps=bed.case.steps,
        )
        transformer = bed.transformer
        cache_dit.enable_cache(transformer, cache_config=config, calibrator_config=self._calibrator(settings))
        cache_dit.refresh_context(transformer, num_inference_steps=bed.case.steps)
        try:
            yield
        finally:
            cache_dit.disable_cache(transformer)
            # It marks its own placeholder class, and then takes every later transformer for cached.
            if "_is_cached" in vars(FakeDiffusionPipeline):
                del FakeDiffusionPipeline._is_cached

    def _calibrator(self, settings: Settings) -> Any:
        import cache_dit

        if self.forecast == "taylorseer":
            return cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=settings["order"])
        kinds = {"foca": cache_dit.FoCaCalibratorConfig, "dmd": cache_dit.DMDCalibratorConfig}
        return kinds[self.forecast]() if self.forecast else None


def _quieten() -> None:
    """Before its first import: it logs every context it makes."""
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")
