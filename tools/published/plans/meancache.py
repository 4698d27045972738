"""MeanCache (arXiv 2601.19961): the mean velocity over a step, of the guided output, with a span for every gap."""

from __future__ import annotations

from easyteacache.policy.methods.meancache import spans_of_edges
from easyteacache.records.plan import Plan
from published.plans.method import Fact, Method, computed_of


def _setting(fact: Fact) -> Plan:
    computed, edges = computed_of(fact), list(fact["extra"]["span_per_edge"])
    printed = {int(step): span for step, span in fact["extra"]["span_per_reused_step"].items()}
    if spans_of_edges(computed, edges) != printed:
        raise ValueError(f"{fact['id']}: its spans an edge and its spans a step say different things")
    if any(not 0 <= span <= 9 for span in edges):
        raise ValueError(f"{fact['id']}: a span of more than one digit")
    # Behind the last computed step, which is the last step, nothing is reused.
    name = "meancache-" + "".join(map(str, edges))
    return Plan(computed=computed, predictor=name, applied_to="output", combined=True)


METHOD = Method(
    takes=("MeanCache",),
    part=lambda fact: "meancache",
    title=lambda part: "MeanCache",
    setting=_setting,
    notes=lambda part: (
        "The weights follow from the noise levels of the run and from a span for every gap between two computed steps, which the "
        "predictor's name holds digit by digit.",
    ),
)
