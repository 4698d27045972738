"""How long solving and validating take, and that it does not depend on the model.

    OMP_NUM_THREADS=1 python tools/bench/solver.py
    python tools/bench/solver.py --runs 100 --steps 50 --json

The runs are made up (smooth residuals of any width), because a trace holds inner products only: nothing that is timed here
ever sees how large the model was. Set OMP_NUM_THREADS=1 for
times on one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import click
import numpy as np

from easyteacache.cli import text
from easyteacache.records.calibration import Signal
from easyteacache.records.sampler import SamplerRecord
from easyteacache.records.trace_set import Trace, TraceHeader, TraceSet
from easyteacache.solver.solve import solve
from easyteacache.solver.validation.validate import validate

WIDTHS = (64, 4096)
Result = TypeVar("Result")
SIGNALS: tuple[Signal, ...] = ("timestep_projection", "modulated_input", "hidden_states")


@click.command(help=__doc__)
@click.option("--runs", type=click.IntRange(6), default=100, show_default=True, help="Runs of one bucket.")
@click.option("--steps", type=click.IntRange(10, 1000), default=50, show_default=True, help="Steps of each run.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: runs, steps, rows (width, stage, wall, cpu seconds)."
)
def main(runs: int, steps: int, as_json: bool) -> None:
    """Entry point."""
    rows = [row for width in WIDTHS for row in measure(runs, steps, width)]
    if as_json:
        text.echo_json({"runs": runs, "steps": steps, "rows": rows})
        return
    click.echo(f"{runs} runs of {steps} steps, {len(SIGNALS)} signals")
    columns = [
        text.Column("RESIDUAL WIDTH", "right"),
        text.Column("STAGE"),
        text.Column("WALL", "right"),
        text.Column("CPU", "right"),
    ]
    click.echo(text.table(columns, [(r["width"], r["stage"], f"{r['wall']:.2f} s", f"{r['cpu']:.2f} s") for r in rows]))


def measure(runs: int, steps: int, width: int) -> list[dict[str, object]]:
    """Solve and validate made-up runs of one width."""
    traces = TraceSet(make_run(seed, steps, width) for seed in range(runs))
    solution, solving = timed(lambda: solve(traces))
    report, validating = timed(lambda: validate(solution.calibration, traces))
    if not report.passed:
        raise click.ClickException(report.text())
    return [{"width": width, "stage": "solve", **solving}, {"width": width, "stage": "validate", **validating}]


def timed(work: Callable[[], Result]) -> tuple[Result, dict[str, float]]:
    """What ``work`` returns, and the seconds it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def make_run(seed: int, steps: int, width: int) -> Trace:
    """A made-up run whose residual (steps, width) moves smoothly with sigma, faster towards the image."""
    random, model = np.random.default_rng(seed), np.random.default_rng(7)
    u = np.linspace(1.0, 0.0, steps + 1)
    sigmas = 3.0 * u / (1.0 + 2.0 * u)
    s, pace = sigmas[:-1, None], random.uniform(0.8, 1.2)
    shapes = np.concatenate(
        [np.ones_like(s), s, np.exp(-6 * pace * s), np.cos(4 * pace * s), 0.1 * np.cos(14 * s)], axis=1
    )
    rows = {
        b: shapes @ (model.normal(size=(5, width)) + 0.3 * random.normal(size=(5, width))) for b in ("cond", "uncond")
    }
    distances = {b: np.abs(np.diff(v, axis=0)).mean(1) / np.abs(v[:-1]).mean(1) for b, v in rows.items()}
    rows["guided"] = rows["uncond"] + 3.0 * (rows["cond"] - rows["uncond"])
    grams = {name: values @ values.T for name, values in rows.items()}
    grams |= {f"output:{name}": gram / 4.0 for name, gram in grams.items()}
    header = TraceHeader(
        model_key="bench/smooth", signals=SIGNALS, branches=("cond", "uncond"), num_steps=steps, sequence_length=1024,
        shift=3.0, sampler=SamplerRecord.euler(tuple(sigmas.tolist())), guidance_scale=3.0, prompt=f"prompt {seed}", seed=seed,
    )  # fmt: skip
    by_time = 0.2 * np.diff(-np.log(sigmas[:-1] + 0.05))
    signals = {
        "timestep_projection": dict.fromkeys(header.branches, by_time),
        "modulated_input": {b: d * random.normal(1.0, 0.1, steps - 1) for b, d in distances.items()},
        "hidden_states": {b: random.uniform(0.01, 0.2, steps - 1) for b in header.branches},
    }
    return Trace(header, 1000.0 * sigmas[:-1], sigmas, signals, distances, distances, grams)


if __name__ == "__main__":
    main()
