"""DPCache (arXiv 2602.22654) as SGLang's schedules: a straight line through the two latest computed features."""

from __future__ import annotations

from easyteacache.records.plan import Plan
from published.plans.method import Fact, Method, computed_of


def _part(fact: Fact) -> str:
    # Figures of the quantised pipeline are those of another model: a record of its own.
    return "dpcache-fp8" if "fp8" in fact["id"] else "dpcache"


def _setting(fact: Fact) -> Plan:
    return Plan(computed=computed_of(fact), predictor="linear", applied_to="feature")


METHOD = Method(
    takes=("DPCache",),
    part=_part,
    title=lambda part: "DPCache, FP8" if part == "dpcache-fp8" else "DPCache",
    setting=_setting,
    # The published speed-ups of these are those of FP8, SageAttention2 and a fused kernel together with the cache.
    full_claim=lambda fact: "fp8" not in fact["id"] and "klein" not in fact["id"],
)
