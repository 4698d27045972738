"""Predicted against measured: does a replay of traces know what a plan does to the samples?

    python tools/bench/replay.py --out replay.json
    python tools/bench/replay.py --steps 25 --frames 4 --size 16

For every plan (evenly spaced, equal shares of change, random, the record's thresholds and searched schedules; each filled
by hold, linear, second-order and FoCa forecasts) the runtime samples the held-out runs of the reference model end to end, and the
solver predicts their error from the traces in the repository. Resumes from the output file. Prints the rank correlation, and
for every speed-up how far the record's own schedule is from the best of all plans measured.
"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.stats import spearmanr

from easyteacache import Registry, TeaCache
from easyteacache.cli import text
from easyteacache.files import atomic_write, strict_json
from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.calibration import Bucket, Calibration
from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.replay import Decisions, Replay, filling_of, policy_at
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.search import schedules
from easyteacache.solver.search.planner import changes, computed_steps

ROOT = Path(__file__).resolve().parents[2]
TRACES = ROOT / "tests" / "fixtures" / "traces" / "reference"
KEY = "reference/moving-digits"
FILLINGS = (
    Filling("hold"),
    Filling("linear"),
    Filling("quadratic", "timestep", "output"),
    Filling("taylor-2"),
    Filling("foca"),
)
SPEEDUPS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
JUDGED = (1.5, 2.0, 3.0, 4.0)
PIXEL_RANGE = 2.0


@click.command(help=__doc__)
@click.option("--steps", default=50, show_default=True, help="Sampler steps; the traces hold 25 and 50.")
@click.option("--frames", default=4, show_default=True, help="Frames.")
@click.option("--size", default=16, show_default=True, help="Pixels; the traces hold 16, 24 and 32.")
@click.option("--out", type=click.Path(path_type=Path), default="replay.json", show_default=True, help="Results, JSON.")
def main(steps: int, frames: int, size: int, out: Path) -> None:
    """Entry point."""
    record = Registry.default().find(KEY).calibration
    length = frames * (size // 2) ** 2
    bucket = next(b for b in record.buckets if (b.sequence_length, b.num_steps) == (length, steps))
    seen, unseen = (
        Runs.stack(side.group(length, steps, bucket.shift).runs) for side in TraceSet.load(TRACES).split_heldout()
    )
    plans = make_plans(record, bucket, seen)
    known: dict[str, Any] = (
        strict_json.parse(out.read_bytes()) if out.exists() else {"setting": [length, steps], "plans": {}}
    )
    if known["setting"] != [length, steps]:
        raise click.ClickException(f"{out} holds another setting, {known['setting']}: choose another file")
    measure(plans, unseen, bucket, known, out)
    predict(plans, unseen, known["plans"])
    atomic_write.write_text(out, strict_json.spell(known))
    chosen = {speedup: _named(record, bucket, speedup) for speedup in JUDGED}
    show(known["plans"], plans, chosen)


def make_plans(record: Calibration, bucket: Bucket, seen: Runs) -> dict[str, Policy]:
    """Name → policy of every plan, the record's own among them."""
    open_gate, dice, found = policy_at(record, bucket), random.Random(0), {}
    for computed in [computed_steps(seen.num_steps, speedup) for speedup in SPEEDUPS]:
        kinds = {
            "uniform": schedules.uniform(seen.num_steps, computed),
            "equalised": schedules.equalised(changes(seen), computed),
            "random": tuple(sorted({0, *dice.sample(range(1, seen.num_steps), computed - 1)})),
        }
        for kind, steps in kinds.items():
            for filling in FILLINGS if kind != "random" else dice.sample(FILLINGS, 2):
                found[f"{computed} {kind}, {filling}"] = dataclasses.replace(
                    open_gate,
                    schedule=steps,
                    max_consecutive_skips=None,
                    forecaster=filling.forecaster,
                    coordinate=filling.coordinate,
                    applied_to=filling.applied_to,
                )
    for point in bucket.operating_points:
        kind = "searched" if point.threshold is None else "threshold"
        policy = policy_at(record, bucket, point)
        found[f"{point.computed_steps} {kind}, {filling_of(point)}"] = policy
    return found


def measure(plans: dict[str, Policy], unseen: Runs, bucket: Bucket, known: dict[str, Any], out: Path) -> None:
    """Predict and measure every plan that ``known`` lacks; writes ``out`` after each."""
    from tqdm import tqdm

    replay = Replay(unseen)
    decided = {name: replay.decide(policy) for name, policy in plans.items()}
    missing = [name for name in plans if known["plans"].get(name, {}).get("steps") != _steps(decided[name])]
    if not missing:
        return
    sampler = _Sampler(unseen, bucket)
    exact = sampler.sample()
    for name in tqdm(missing, unit="plan", disable=None):
        policy = plans[name]
        cache = TeaCache.from_policy(policy)
        with cache.attached(sampler.pipe):
            difference = sampler.sample() - exact
            _require_same_steps(cache, decided[name])
        flat = difference.reshape(len(difference), -1)
        known["plans"][name] = {
            "steps": _steps(decided[name]),
            "measured": (np.linalg.norm(flat, axis=1) / unseen.displacement).tolist(),
            "psnr": (10 * np.log10(PIXEL_RANGE**2 / np.maximum(np.mean(flat**2, axis=1), 1e-20))).tolist(),
        }
        atomic_write.write_text(out, strict_json.spell(known))


def predict(plans: dict[str, Policy], unseen: Runs, results: dict[str, Any]) -> None:
    """Add what the solver predicts, which costs nothing, to the measured ``results``."""
    replay = Replay(unseen)
    for name, policy in plans.items():
        results[name]["predicted"] = replay.errors(replay.decide(policy), filling_of(policy)).tolist()


def _steps(decided: list[Decisions]) -> list[int]:
    return list(next(iter(decided[0].values())))


class _Sampler:
    """Samples the recorded runs again: same prompts, same seeds, one batch."""

    def __init__(self, runs: Runs, bucket: Bucket) -> None:
        from easyteacache.reference.pipeline import load_pipeline

        self.pipe = load_pipeline()
        self.pipe.set_progress_bar_config(disable=True)
        heads = [trace.header for trace in runs.traces]
        self._arguments: dict[str, Any] = {
            "prompt": [head.prompt for head in heads],
            "seeds": [head.seed for head in heads],
            "num_frames": bucket.frames,
            "height": bucket.height,
            "width": bucket.width,
            "num_inference_steps": bucket.num_steps,
            "guidance_scale": heads[0].guidance_scale,
            "output_type": "latent",
        }

    def sample(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Latents (R, 1, F, H, W)."""
        latents: Any = self.pipe(**self._arguments, return_dict=False)[0]
        return np.asarray(latents.double().numpy())


def _require_same_steps(cache: TeaCache, decided: list[Decisions]) -> None:
    for branch, statistics in cache.statistics().items():
        computed = tuple(step.step for step in statistics.steps if not step.reused)
        if computed != decided[0][branch]:
            raise click.ClickException(f"the runtime computed {computed}, the replay says {decided[0][branch]}")


def _named(record: Calibration, bucket: Bucket, speedup: float) -> str:
    """The plan that the record has for a speed-up, by its name among all plans."""
    run = RunContext(sequence_length=bucket.sequence_length, num_steps=bucket.num_steps, shift=bucket.shift)
    policy = resolve(record, Request(speedup=speedup), run)
    return f"{len(policy.schedule or ())} searched, {filling_of(policy)}"


def show(results: dict[str, Any], plans: dict[str, Policy], chosen: dict[float, str]) -> None:
    """Print the rank correlation and, per speed-up, the record's schedule beside the best plan of as many computed steps."""
    found = {name: results[name] for name in plans}
    predicted = [np.mean(np.log(r["predicted"])) for r in found.values()]
    measured = [np.mean(np.log(r["measured"])) for r in found.values()]
    runs = len(next(iter(found.values()))["measured"])
    click.echo(f"{len(found)} plans, {runs} held-out runs each")
    click.echo(f"rank correlation of predicted with measured error: {spearmanr(predicted, measured).statistic:.3f}")
    click.echo(f"predicted / measured, geometric mean: {np.exp(np.mean(np.subtract(predicted, measured))):.2f}")
    rows = []
    for speedup, own in chosen.items():
        same = {name: r for name, r in found.items() if name.partition(" ")[0] == own.partition(" ")[0]}
        best = max(same, key=lambda name: float(np.mean(same[name]["psnr"])))
        rows.append((f"{speedup:g}x", *_decibels(same[own]), best.partition(" ")[2], *_decibels(same[best])))
    columns = [text.Column("SPEED-UP"), text.Column("RECORD'S", "right"), text.Column("WORST", "right")]
    columns += [text.Column("BEST MEASURED", cut=True), text.Column("PSNR", "right"), text.Column("WORST", "right")]
    click.echo(text.table(columns, rows))


def _decibels(result: dict[str, Any]) -> tuple[str, str]:
    return f"{np.mean(result['psnr']):.1f} dB", f"{np.min(result['psnr']):.1f} dB"


if __name__ == "__main__":
    main()
