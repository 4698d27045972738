"""ComfyUI-CacheDiT's intervals, and the fixed masks of cache-dit (SCM, static)."""

from __future__ import annotations

from easyteacache.policy.methods.intervals import compute_every, skip_every
from easyteacache.records.plan import Plan
from easyteacache.records.preset import Preset
from published.plans.method import Fact, Method, computed_of


def _interval(fact: Fact) -> Plan:
    extra = fact["extra"]
    num_steps, warmup, every = fact["num_steps"], extra["warmup"], extra["skip_interval"]
    if extra["rule"].startswith("skip"):
        follows = skip_every(num_steps, warmup=warmup, every=every)
    else:
        # LTX-2's node computes the first call behind the warm-up, Wan's the last one of each interval.
        after = 0 if extra["rule"].startswith("compute at the first") else every - 1
        follows = compute_every(num_steps, warmup=warmup, every=every, after=after)
    if follows != computed_of(fact):
        raise ValueError(f"{fact['id']}: the rule gives {follows}")
    return Plan(computed=follows, predictor="hold", applied_to="output")


INTERVAL = Method(
    takes=("ComfyUI-CacheDiT (interval hold)",),
    part=lambda fact: "cachedit",
    title=lambda part: "ComfyUI-CacheDiT",
    setting=_interval,
    notes=lambda part: ("Where the node adds noise to a reused output (noise_scale), this plan adds none.",),
)


def _masked(fact: Fact) -> Plan | Preset:
    extra = fact["extra"]
    mask = extra["mask"]
    if fact["kind"] == "schedule":
        computed = tuple(step for step, bit in enumerate(mask) if bit == "1")
        if computed != computed_of(fact):
            raise ValueError(f"{fact['id']}: the mask computes {computed}")
        return Plan(computed=computed, predictor="hold", applied_to="residual")
    parameters = {
        "Fn_compute_blocks": extra["Fn"],
        "Bn_compute_blocks": extra["Bn"],
        "residual_diff_threshold": extra["residual_diff_threshold"],
        "steps_computation_mask": tuple(int(bit) for bit in mask),
        "steps_computation_policy": extra["steps_computation_policy"],
    }
    if "max_warmup_steps" in extra:
        parameters["max_warmup_steps"] = extra["max_warmup_steps"]
    return Preset(engine="cache-dit", method="DBCache with a step mask", parameters=parameters)


MASK = Method(
    takes=("cache-dit SCM",),
    part=lambda fact: "scm" if fact["kind"] == "schedule" else "scm-dynamic",
    title=lambda part: "cache-dit's fixed mask" if part == "scm" else "cache-dit's mask with a threshold",
    setting=_masked,
    notes=lambda part: (
        (
            "cache-dit computes the first block at every step and holds the residual of the others; here all blocks are skipped.",
        )
        if part == "scm"
        else ()
    ),
)
