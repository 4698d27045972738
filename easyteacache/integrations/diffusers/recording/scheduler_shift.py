"""What a pipeline's scheduler says about a run: its shift, its noise levels, what the model predicts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

from easyteacache.errors import AttachError

SHIFT_NAMES = ("shift", "flow_shift")


@contextlib.contextmanager
def shifted(pipe: Any, shift: float | None) -> Iterator[None]:
    """Give the pipeline a scheduler with another time shift inside the block; None leaves it alone.

    Raises:
        AttachError: the scheduler has no shift, or derives it from the sequence length.
    """
    original = pipe.scheduler
    if shift is not None:
        names = [name for name in SHIFT_NAMES if name in original.config]
        if not names or original.config.get("use_dynamic_shifting"):
            why = "derives its shift from the sequence length" if names else "has no time shift"
            raise AttachError(
                f"{type(original).__name__} {why}; leave the shift out, or give the pipeline another scheduler"
            )
        pipe.scheduler = type(original).from_config(original.config, **{names[0]: shift})
    try:
        yield
    finally:
        pipe.scheduler = original


def shift_of(scheduler: Any) -> float | None:
    """The scheduler's constant time shift; None where it has none."""
    if scheduler.config.get("use_dynamic_shifting"):
        return None
    if "flow_shift" in scheduler.config and not scheduler.config.get("use_flow_sigmas"):
        return None
    return next((float(scheduler.config[name]) for name in SHIFT_NAMES if name in scheduler.config), None)


def name_of(scheduler: Any) -> str:
    """The scheduler's class; marked where it draws noise at every step, because it then steps as no other of its class does."""
    name = type(scheduler).__name__
    return f"{name} (stochastic)" if scheduler.config.get("stochastic_sampling") else name


def prediction_of(scheduler: Any) -> Literal["velocity", "epsilon", "x0", "unknown"]:
    """What the model's output is, as far as the scheduler's configuration tells."""
    if scheduler.config.get("use_flow_sigmas") or type(scheduler).__name__.startswith("FlowMatch"):
        return "velocity"
    kinds: dict[str, Literal["velocity", "epsilon", "x0"]] = {
        "flow_prediction": "velocity",
        "epsilon": "epsilon",
        "sample": "x0",
    }
    return kinds.get(str(scheduler.config.get("prediction_type")), "unknown")


def noise_levels(scheduler: Any) -> list[float]:
    """(S + 1,) noise levels of the run the scheduler was last set up for, the last one after its final step.

    Where a scheduler keeps no sigmas, √(1 − ᾱ) at its timesteps, then 0.

    Raises:
        AttachError: the scheduler keeps neither.
    """
    steps = len(scheduler.timesteps)
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) == steps + 1:
        return [float(sigma) for sigma in sigmas]
    cumulative = getattr(scheduler, "alphas_cumprod", None)
    if cumulative is None:
        raise AttachError(f"{type(scheduler).__name__} keeps no noise level per step; sample with another scheduler")
    return [float((1 - cumulative[int(t)]) ** 0.5) for t in scheduler.timesteps] + [0.0]
