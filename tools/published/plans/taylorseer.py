"""TaylorSeer (arXiv 2503.06923): the Lite form extrapolates one feature, the full form every module's output."""

from __future__ import annotations

from easyteacache.policy.methods.intervals import stride_between, taylorseer_schedule
from easyteacache.records.plan import Plan
from published.plans.method import Fact, Method, computed_of

_LITE = ("TaylorSeer-Lite", "TaylorCache")


def _setting(fact: Fact) -> Plan:
    extra, computed = fact["extra"], computed_of(fact)
    if "interval" in extra:
        follows = taylorseer_schedule(
            fact["num_steps"], interval=extra["interval"], first_enhance=extra["first_enhance"]
        )
        if follows != computed:
            raise ValueError(f"{fact['id']}: the rule gives {follows}")
    order = fact["filling"]["order"]
    return Plan(computed=computed, predictor=f"taylor-{order}" if order else "hold", applied_to="feature")


def _part(fact: Fact) -> str:
    if fact["method"] == "TaylorCache":
        return "taylorcache"
    return "taylorseer-lite" if fact["method"] in _LITE else "taylorseer"


def _title(part: str) -> str:
    return {"taylorcache": "TaylorCache", "taylorseer-lite": "TaylorSeer-Lite"}.get(
        part, "TaylorSeer's steps, Lite form"
    )


def _notes(part: str) -> tuple[str, ...]:
    if part != "taylorseer":
        return ()
    return (
        "The computed steps are the source's. It extrapolates the output of attention and MLP in every block and recomputes what scales "
        "them, which is no linear map of one feature; here the output of the block stack is extrapolated with the same order, "
        "TaylorSeer's Lite form. So none of the source's figures are this plan's.",
    )


TAYLORSEER = Method(
    takes=("TaylorSeer", *_LITE),
    part=_part,
    title=_title,
    setting=_setting,
    notes=_notes,
    full_claim=lambda fact: fact["method"] in _LITE,
)


def _own(fact: Fact) -> Plan | None:
    extra = fact["extra"]
    follows = stride_between(
        fact["num_steps"],
        start=extra["cache_start_step"],
        end=extra["cache_end_step"],
        interval=extra["cache_step_interval"],
    )
    if follows != computed_of(fact):
        raise ValueError(f"{fact['id']}: the rule gives {follows}")
    if extra["no_cache_block_id"] is not None:
        return None
    return Plan(computed=follows, predictor="hold", applied_to="feature")


HUNYUAN_OWN = Method(
    takes=("fixed schedule, feature hold (named TeaCache)", "DeepCache (block hold)"),
    part=lambda fact: "hold",
    title=lambda part: "its own fixed steps",
    setting=_own,
    left_out=lambda fact: "one block is recomputed at reused steps, so that no single feature is held",
    notes=lambda part: ("The model's own code calls this TeaCache; it measures nothing.",),
)
