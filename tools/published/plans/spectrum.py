"""Spectrum (arXiv 2603.01623): a growing window, and a ridge fit of Chebyshev polynomials blended with a straight line."""

from __future__ import annotations

from easyteacache.policy.methods.intervals import spectrum_schedule
from easyteacache.records.plan import Plan
from published.plans.method import Fact, Method, computed_of

#: Models whose denoiser is no transformer: their plans cannot be applied here.
_NO_TRANSFORMER = ("sdxl/base-1.0",)


def _setting(fact: Fact) -> Plan | None:
    if fact["model_key_suggestion"] in _NO_TRANSFORMER:
        return None
    extra = fact["extra"]
    follows = spectrum_schedule(
        fact["num_steps"],
        warmup=extra["warmup_steps"],
        window=extra["window_size"],
        growth=extra["flex_window"],
        stop=extra.get("stop_caching_step"),
    )
    if follows != computed_of(fact):
        raise ValueError(f"{fact['id']}: the rule gives {follows}")
    return Plan(computed=follows, predictor=_name(fact), applied_to="feature")


def _name(fact: Fact) -> str:
    extra = fact["extra"]
    name = f"spectrum-{extra['m']}-{round(1000 * extra['lam'])}-{round(100 * extra['w'])}"
    if name == "spectrum-4-100-50" and extra["tau_horizon"] == 50:
        return "spectrum"
    # The fork maps the run's own step count to the end of the interval, the original always step 50.
    return name if extra.get("tau_horizon") == 50 else f"{name}-{fact['num_steps']}"


METHOD = Method(
    takes=("Spectrum",),
    part=lambda fact: "spectrum",
    title=lambda part: "Spectrum",
    setting=_setting,
    left_out=lambda fact: "its denoiser is a U-Net, which no adapter of this project runs",
    notes=lambda part: (
        "The sums are added up in single precision here; the reference passes its design matrix through bfloat16.",
    ),
)
