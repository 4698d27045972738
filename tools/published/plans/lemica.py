"""LeMiCa (arXiv 2511.00090): the block stack's last residual again, or, through angelslim, its last output."""

from __future__ import annotations

from easyteacache.records.plan import Plan
from published.plans.method import Fact, Method, computed_of


def _setting(fact: Fact) -> Plan:
    # For HunyuanVideo-1.5 the script goes through angelslim's helper, which adds the residual to the last *computed* step's input.
    feature = fact["filling"]["applied_to"].startswith("feature")
    return Plan(computed=computed_of(fact), predictor="hold", applied_to="feature" if feature else "residual")


METHOD = Method(
    takes=("LeMiCa",),
    part=lambda fact: "lemica",
    title=lambda part: "LeMiCa",
    setting=_setting,
)
