"""SmoothCache's files: its own schedules and FORA's in the same form; module outputs are held."""

from __future__ import annotations

from easyteacache.policy.methods.intervals import fora_schedule
from easyteacache.records.plan import Plan
from published.plans.method import Fact, Method, computed_of

_FORA = "FORA (uniform) in SmoothCache form"


def _setting(fact: Fact) -> Plan | None:
    if fact["computed_steps"] is None:
        return None
    computed = computed_of(fact)
    if fact["method"] == _FORA:
        interval = computed[1] - computed[0]
        if fora_schedule(fact["num_steps"], interval=interval) != computed:
            raise ValueError(f"{fact['id']}: not every {interval}th step and the last")
    return Plan(computed=computed, predictor="hold", applied_to="residual")


METHOD = Method(
    takes=("SmoothCache", _FORA, "Learning-to-Cache mask in SmoothCache form"),
    part=lambda fact: "fora" if fact["method"] == _FORA else "smoothcache",
    title=lambda part: f"{'FORA' if part == 'fora' else 'SmoothCache'}'s steps, residual held",
    setting=_setting,
    left_out=lambda fact: "every layer has a mask of its own: no plan over steps",
    notes=lambda part: (
        "The computed steps are the source's. It holds the outputs of attention and MLP and recomputes what scales them; here the "
        "residual of the whole block stack is held. So none of the source's figures are this plan's.",
    ),
    full_claim=lambda fact: False,
)
