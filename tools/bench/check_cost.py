"""What a decision costs, against the published formulation, in one run.

    python tools/bench/check_cost.py
    python tools/bench/check_cost.py --signal 1x6x5120:float32 --repeat 2000 --json

The published formulation is that of ali-vilab/TeaCache: mean|a − b| / mean|b| in the signal's own number type, brought to the CPU
with `.cpu().item()`, and a `numpy.poly1d` built in every call; it keeps a reference to the signal. `check` is timed inside
the skip window, outside it, and with a fixed schedule; `keep` is the copy of the signal that follows a decision, because a model
may go on to change the tensor in place. Both sides take turns on the same tensors; medians are compared.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy as np
import torch

from easyteacache import TeaCache
from easyteacache.cli import text
from easyteacache.policy.curves import Polynomial
from easyteacache.policy.policy import BucketShare, Policy
from easyteacache.runtime.branch_state import BranchState

# Wan2.1 T2V-14B with retention steps (ali-vilab/TeaCache, TeaCache4Wan2.1).
COEFFICIENTS = (-303318.725, 49053.7029, -2655.30556, 58.7365115, -0.315583525)
SIGNALS = ("1x6x5120:float32", "1x6x5120:bfloat16", "1x32760x5120:bfloat16")
# About as long as this many elements take; large signals are timed a few times only.
ELEMENTS = 2_000_000_000


@dataclass(frozen=True)
class Cost:
    """Median microseconds of one signal.

    Attributes:
        signal: shape and number type.
        repeats: decisions timed.
        published: the published formulation.
        check: ``check`` inside the window; ``keep``: the copy that follows.
        outside: ``check`` outside the window.
        schedule: ``check`` with a fixed schedule.
    """

    signal: str
    repeats: int
    published: float
    check: float
    keep: float
    outside: float
    schedule: float


class Published:
    """The published decision, step by step."""

    def __init__(self) -> None:
        self.previous: torch.Tensor | None = None
        self.accumulated = 0.0

    def decide(self, signal: torch.Tensor, threshold: float) -> bool:
        """Reuse or compute; ``signal`` is remembered."""
        if self.previous is None:
            self.previous = signal
            return False
        rescale = np.poly1d(COEFFICIENTS)
        distance = ((signal - self.previous).abs().mean() / self.previous.abs().mean()).cpu().item()
        self.accumulated += rescale(distance)
        self.previous = signal
        if self.accumulated < threshold:
            return True
        self.accumulated = 0.0
        return False


def policy(**changes: Any) -> Policy:
    """A policy that reuses whatever it may, so that every step is decided by a distance."""
    base: dict[str, Any] = {
        "model_key": "bench",
        "revision": 1,
        "status": "draft",
        "layer": "given",
        "signal": "timestep_projection",
        "curve": Polynomial(COEFFICIENTS),
        "threshold": 1e30,
        "first_skip_step": 1,
        "last_skip_step": None,
        "max_consecutive_skips": None,
        "buckets": (BucketShare(None, None, None, 1.0),),
    }
    return Policy(**{**base, **changes})


class Ours:
    """One cache, driven step by step."""

    def __init__(self, signal: torch.Tensor, **changes: Any) -> None:
        self.cache, self.step, self.signal = TeaCache.from_policy(policy(**changes)), 0, signal
        tiny = torch.zeros(1, 1, 1)
        self.cache.store_truth(0, signal, tiny, tiny)
        self.state: BranchState = self.cache.session.branch("default", 1)

    def check(self, signal: torch.Tensor) -> None:
        """Ask for the next step."""
        self.step += 1
        self.signal, self.admitted = signal, self.cache.check(self.step, signal)

    def keep(self) -> None:
        """What ``update`` does besides the addition."""
        if self.admitted:
            self.state.reuse(self.signal)
        else:
            self.state.store_residual(self.step, self.signal, torch.zeros(1, 1, 1))


def microseconds(call: Callable[[], object]) -> float:
    """One call."""
    begin = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - begin) / 1000.0


@torch.inference_mode()
def measure(name: str, repeat: int | None) -> Cost:
    """All costs for one signal given as ``1x6x5120:float32``."""
    shape, _, dtype = name.partition(":")
    size = tuple(map(int, shape.split("x")))
    first = torch.randn(size).to(getattr(torch, dtype))
    signals = (first, first * 1.01)
    repeats = repeat or max(5, min(1000, ELEMENTS // first.numel()))
    published, inside = Published(), Ours(first)
    outside, schedule = Ours(first, last_skip_step=0), Ours(first, schedule=(0,))
    timed: dict[str, list[float]] = {key: [] for key in ("published", "check", "keep", "outside", "schedule")}
    for turn in range(repeats + 3):
        signal = signals[turn % 2]
        timed["published"].append(microseconds(lambda signal=signal: published.decide(signal, 1e30)))  # type: ignore[misc]
        for key, ours in (("check", inside), ("outside", outside), ("schedule", schedule)):
            timed[key].append(microseconds(lambda ours=ours, signal=signal: ours.check(signal)))  # type: ignore[misc]
            kept = microseconds(ours.keep)
            if key == "check":
                timed["keep"].append(kept)
    # The first turns allocate.
    return Cost(name, repeats, **{key: statistics.median(values[3:]) for key, values in timed.items()})


@click.command(help=__doc__)
@click.option("--signal", "signals", multiple=True, default=SIGNALS, show_default=True, help="Shape and number type.")
@click.option("--repeat", type=click.IntRange(1), help="Decisions timed per signal; by default fewer for large ones.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(signals: tuple[str, ...], repeat: int | None, threads: int, as_json: bool) -> None:
    """Entry point."""
    torch.set_num_threads(threads)
    costs = [measure(name, repeat) for name in signals]
    if as_json:
        click.echo(json.dumps([asdict(cost) for cost in costs], indent=2))
        return
    right = ("PUBLISHED", "CHECK", "RATIO", "+KEEP", "RATIO", "OUTSIDE", "PLAN")
    columns = [text.Column("SIGNAL"), *(text.Column(title, align="right") for title in right)]
    rows = [
        (
            cost.signal,
            *(f"{value:,.0f}" for value in (cost.published, cost.check)),
            f"{cost.check / cost.published:.2f}",
            f"{cost.check + cost.keep:,.0f}",
            f"{(cost.check + cost.keep) / cost.published:.2f}",
            f"{cost.outside:.0f}",
            f"{cost.schedule:.0f}",
        )
        for cost in costs
    ]
    click.echo(text.table(columns, rows))
    click.echo(f"Medians in µs on {threads} CPU thread(s); ratios to the published formulation.")


if __name__ == "__main__":
    main()
