"""What it costs to know a run's sampler: its facts at the run's first forward, and its map, measured once a setting.

    python tools/bench/probe_cost.py
    python tools/bench/probe_cost.py --steps 50 --sampler "UniPC" --json

`first` is all that the first run of a setting waits for: facts, what the class remembers, and the map. `map` is the map alone.
`later` is what every later run of the same setting waits for. Each is the least CPU time of several measurements, which other work
on the machine hardly changes; none of them remembers those before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import click
import diffusers
import torch

from easyteacache.cli import text
from easyteacache.integrations.diffusers import scheduler_facts

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SAMPLERS: dict[str, Callable[[], Any]] = {
    "Euler, flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    "Heun, flow": lambda: diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0),
    "UniPC 2, flow": lambda: diffusers.UniPCMultistepScheduler(**FLOW),
    "UniPC 3, flow": lambda: diffusers.UniPCMultistepScheduler(**FLOW, solver_order=3),
    "DPM++ 2M, flow": lambda: diffusers.DPMSolverMultistepScheduler(**FLOW),
    "DPM++ 2S, flow": lambda: diffusers.DPMSolverSinglestepScheduler(**FLOW),
    "DEIS, flow": lambda: diffusers.DEISMultistepScheduler(**FLOW),
    "DDIM": lambda: diffusers.DDIMScheduler(clip_sample=False),
    "DDIM, CogVideoX": lambda: diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction"),
    "PNDM": lambda: diffusers.PNDMScheduler(),
    "Euler, epsilon": lambda: diffusers.EulerDiscreteScheduler(),
    "Euler, EDM": lambda: diffusers.EDMEulerScheduler(),
    "DPM++, EDM": lambda: diffusers.EDMDPMSolverMultistepScheduler(),
    "LMS": lambda: diffusers.LMSDiscreteScheduler(),
    "SDE-DPM++, flow (draws noise)": lambda: diffusers.DPMSolverMultistepScheduler(
        **FLOW, algorithm_type="sde-dpmsolver++"
    ),
    "SA, flow (draws noise)": lambda: diffusers.SASolverScheduler(**FLOW),
    "DPM, CogVideoX (draws noise)": lambda: diffusers.CogVideoXDPMScheduler(prediction_type="v_prediction"),
}


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds of one sampler, the least of several measurements.

    Attributes:
        sampler: what it is called here.
        calls: model calls of the run.
        first: facts and map of a setting that was never seen.
        map: the map of it.
        later: facts and map of one that was.
        mapped: it has a map.
    """

    sampler: str
    calls: int
    first: float
    map: float
    later: float
    mapped: bool


def measure(name: str, steps: int, repeat: int) -> Cost:
    """Every cost of one sampler."""
    scheduler = SAMPLERS[name]()
    scheduler.set_timesteps(steps)
    timed: dict[str, list[float]] = {"first": [], "map": [], "later": []}
    for _ in range(repeat):
        scheduler_facts.forget_probes()
        begin = time.process_time()
        facts = _facts(scheduler)
        known = time.process_time()
        mapped = facts.map is not None
        probed = time.process_time()
        again = _facts(scheduler).probe
        end = time.process_time()
        assert again is facts.probe
        for key, spent in (("first", probed - begin), ("map", probed - known), ("later", end - probed)):
            timed[key].append(spent * 1000.0)
    least = {key: min(values) for key, values in timed.items()}
    return Cost(name, facts.calls, mapped=mapped, **least)


def _facts(scheduler: Any) -> scheduler_facts.SchedulerFacts:
    facts = scheduler_facts.facts_of(scheduler)
    assert facts is not None
    return facts


@click.command(help=__doc__)
@click.option("--steps", type=click.IntRange(2), default=50, show_default=True, help="Sampler steps.")
@click.option("--sampler", help="Only samplers with this in their name.")
@click.option("--repeat", type=click.IntRange(1), default=9, show_default=True, help="Measurements of each.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(steps: int, sampler: str | None, repeat: int, as_json: bool) -> None:
    """Entry point."""
    torch.set_num_threads(1)
    names = [name for name in SAMPLERS if sampler is None or sampler.lower() in name.lower()]
    costs = [measure(name, steps, repeat) for name in names]
    if as_json:
        click.echo(json.dumps([asdict(cost) for cost in costs], indent=2))
        return
    columns = [
        text.Column("SAMPLER"),
        *(text.Column(title, align="right") for title in ("CALLS", "FIRST", "MAP", "LATER")),
    ]
    rows = [
        (cost.sampler, str(cost.calls), *(f"{value:.1f}" for value in (cost.first, cost.map, cost.later)))
        for cost in costs
    ]
    click.echo(text.table(columns, rows))
    click.echo(f"The least of {repeat} in ms of CPU time, one thread, diffusers {diffusers.__version__}.")


if __name__ == "__main__":
    main()
