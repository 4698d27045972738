"""Everybody who takes part, in the order of the tables."""

from __future__ import annotations

from collections.abc import Sequence

from easyteacache.bench import cache_dit_caches, dicache, diffusers_caches, easycache, planned, samplers, scheduled
from easyteacache.bench.contender import Contender
from easyteacache.errors import BenchError

#: The record of LeMiCa's published plans of Wan2.1-14B.
WAN_PLANS = "wan2.1/t2v-14b/lemica"


def everybody() -> tuple[Contender, ...]:
    """Every contender, made new."""
    return (
        scheduled.EasyTeaCache(),
        scheduled.MeasuredEasyTeaCache(),
        scheduled.OfficialTeaCache(),
        scheduled.Uniform("hold"),
        scheduled.Uniform("linear"),
        scheduled.RecordFree("uncalibrated"),
        scheduled.RecordFree("even"),
        scheduled.PublishedPlan("LeMiCa's plan of Wan2.1", WAN_PLANS, "hold"),
        scheduled.PublishedPlan("LeMiCa's plan of Wan2.1, linear", WAN_PLANS, "linear"),
        diffusers_caches.FirstBlockCache(),
        diffusers_caches.MagCache(),
        diffusers_caches.TaylorSeer(),
        diffusers_caches.TaylorSeerModules(),
        diffusers_caches.SeaCache(),
        diffusers_caches.PyramidAttentionBroadcast(),
        diffusers_caches.FasterCache(),
        easycache.EasyCache(),
        dicache.DiCache(),
        planned.DPCache(),
        planned.MeanCache(),
        planned.L2P(),
        planned.Spectrum(),
        planned.LeMiCa(),
        cache_dit_caches.DBCache(),
        cache_dit_caches.DBCache("taylorseer"),
        cache_dit_caches.DBCache("foca"),
        cache_dit_caches.DBCache("dmd"),
        samplers.FewerSteps(),
        samplers.Multistep(),
    )


def chosen(names: Sequence[str]) -> tuple[Contender, ...]:
    """The contenders of these names; all of them where none is named.

    Raises:
        BenchError: nobody has such a name.
    """
    known = {contender.name.lower(): contender for contender in everybody()}
    unknown = [name for name in names if name.lower() not in known]
    if unknown:
        titles = ", ".join(repr(contender.name) for contender in known.values())
        raise BenchError(f"no contender is called {unknown[0]!r}; expected one of {titles}")
    wanted = {name.lower() for name in names}
    return tuple(contender for key, contender in known.items() if not wanted or key in wanted)
