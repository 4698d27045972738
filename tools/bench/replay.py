"""Predicted against measured: does a replay of traces know what a plan does to the samples?

    python tools/bench/replay.py --out replay.json
    python tools/bench/replay.py --steps 25 --sampler unipc --out replay-unipc.json

For every plan (evenly spaced, equal shares of change, random, each filled by hold, linear, second-order and FoCa predictors; searched
schedules whose weights fill, or correct a linear predictor; the record's own where it has a bucket for the sampler) the runtime
samples the held-out runs of the reference model end to end, and the solver predicts their error from traces: those of the repository, or
where it has none of this sampler, runs that are recorded first. Resumes from the output file. Prints the rank correlation, of all plans and
of the best twenty, predicted ÷ measured by filling, and for every speed-up how far the record's own schedule is from the best plan measured.
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
from easyteacache.records.plan import FITTED
from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.replay.fitted_weights import StateFit
from easyteacache.solver.replay.predictor_rows import Filling
from easyteacache.solver.replay.replay import Decisions, Replay, filling_of, policy_at
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.search import schedules
from easyteacache.solver.search.fitted_search import FittedSearch
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
SPEEDUPS = (1.5, 2.0, 2.5, 3.0, 4.0)
# Of every speed-up: the schedules whose weights are fitted, each with two fillings.
CANDIDATES = 3
SAMPLERS = {
    "euler": "FlowMatchEulerDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
}
SHIFT, RUNS = 3.0, 20
BEST = 20
JUDGED = (1.5, 2.0, 3.0, 4.0)
PIXEL_RANGE = 2.0


@click.command(help=__doc__)
@click.option("--steps", default=50, show_default=True, help="Sampler steps; the traces hold 25 and 50.")
@click.option("--frames", default=4, show_default=True, help="Frames.")
@click.option("--size", default=16, show_default=True, help="Pixels; the traces hold 16, 24 and 32.")
@click.option("--sampler", type=click.Choice(list(SAMPLERS)), default="euler", show_default=True, help="The sampler.")
@click.option("--out", type=click.Path(path_type=Path), default="replay.json", show_default=True, help="Results, JSON.")
def main(steps: int, frames: int, size: int, sampler: str, out: Path) -> None:
    """Entry point."""
    record = Registry.default().find(KEY).calibration
    length = frames * (size // 2) ** 2
    seen, unseen = _runs(length, frames, size, steps, sampler, out)
    of_sampler = unseen.traces[0].header.sampler
    assert of_sampler is not None
    own = [b for b in record.buckets if b.sampler is not None and b.sampler.agrees(of_sampler)]
    bucket = next((b for b in own if b.sequence_length == length), None)
    plans = make_plans(record, bucket, seen)
    setting = [length, steps, sampler]
    known: dict[str, Any] = strict_json.parse(out.read_bytes()) if out.exists() else {"setting": setting, "plans": {}}
    if known["setting"] != setting:
        raise click.ClickException(f"{out} holds another setting, {known['setting']}: choose another file")
    measure(plans, unseen, scheduler_of(sampler), known, out)
    predict(plans, unseen, known["plans"])
    atomic_write.write_text(out, strict_json.spell(known))
    chosen = {} if bucket is None else {speedup: _named(record, bucket, speedup) for speedup in JUDGED}
    show(known["plans"], plans, chosen)


def scheduler_of(sampler: str) -> Any:
    """The scheduler of one of ``SAMPLERS``."""
    import diffusers

    kind = getattr(diffusers, SAMPLERS[sampler])
    if sampler == "euler":
        return kind(shift=SHIFT)
    return kind(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT)


def _runs(length: int, frames: int, size: int, steps: int, sampler: str, out: Path) -> tuple[Runs, Runs]:
    """Calibration and held-out runs: of the repository, or recorded beside ``out``."""
    kept = TraceSet.load(TRACES).group(length, steps, SHIFT, SAMPLERS[sampler])
    if not len(kept):
        folder = out.with_suffix(".traces")
        _record(folder, frames, size, steps, sampler)
        kept = TraceSet.load(folder)
    seen, unseen = kept.split_heldout()
    return Runs.stack(seen.runs), Runs.stack(unseen.runs)


def _record(folder: Path, frames: int, size: int, steps: int, sampler: str) -> None:
    from easyteacache.cli.record import prompts_for
    from easyteacache.integrations.diffusers.recording import RecordingSettings, plan_jobs, record_pipeline
    from easyteacache.reference.pipeline import load_pipeline

    pipe = load_pipeline()
    pipe.scheduler = scheduler_of(sampler)
    prompts = prompts_for("reference", None, RUNS)
    jobs = plan_jobs(prompts=prompts, sizes=((size, size),), frames=(frames,), steps=(steps,))
    record_pipeline(pipe, jobs, folder, RecordingSettings(KEY, features=False))


def make_plans(record: Calibration, bucket: Bucket | None, seen: Runs) -> dict[str, Policy]:
    """Name → policy of every plan, the record's own among them."""
    head = seen.traces[0].header
    run = RunContext(sequence_length=head.sequence_length, num_steps=seen.num_steps, shift=SHIFT)
    shut = resolve(record, Request(threshold=0.0), run)
    shut = dataclasses.replace(
        shut, max_consecutive_skips=None, threshold=0.0, refusal=None, num_steps=seen.num_steps, fitted_for=head.sampler
    )
    counts = [computed_steps(seen.num_steps, speedup) for speedup in SPEEDUPS]
    dice, found = random.Random(0), dict[str, Policy]()
    fit, search = StateFit(seen), FittedSearch(seen, counts)

    def add(kind: str, steps: tuple[int, ...], filling: Filling) -> None:
        found[f"{len(steps)} {kind}, {filling}"] = dataclasses.replace(
            shut,
            schedule=steps,
            weights=filling.weights,
            forecaster=filling.forecaster,
            coordinate=filling.coordinate,
            applied_to=filling.applied_to,
        )

    for computed in counts:
        kinds = {
            "uniform": schedules.uniform(seen.num_steps, computed),
            "equalised": schedules.equalised(changes(seen), computed),
            "random": tuple(sorted({0, *dice.sample(range(1, seen.num_steps), computed - 1)})),
        }
        for kind, steps in kinds.items():
            for filling in FILLINGS if kind != "random" else dice.sample(FILLINGS, 2):
                add(kind, steps, filling)
        for place, steps in enumerate(search.candidates(computed)[:CANDIDATES]):
            weights = fit.weights(steps)
            add(f"candidate {place}", steps, Filling(FITTED, "step", "output", weights))
            add(f"candidate {place}", steps, Filling("linear", weights=weights))
            add(f"candidate {place}", steps, Filling("linear"))
    for point in () if bucket is None else bucket.operating_points:
        kind = "searched" if point.threshold is None else "threshold"
        found[f"{point.computed_steps} {kind}, {filling_of(point)}"] = policy_at(record, bucket, point)
    return found


def measure(plans: dict[str, Policy], unseen: Runs, scheduler: Any, known: dict[str, Any], out: Path) -> None:
    """Predict and measure every plan that ``known`` lacks; writes ``out`` after each."""
    from tqdm import tqdm

    replay = Replay(unseen)
    decided = {name: replay.decide(policy) for name, policy in plans.items()}
    missing = [name for name in plans if known["plans"].get(name, {}).get("steps") != _steps(decided[name])]
    if not missing:
        return
    sampler = _Sampler(unseen, scheduler)
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

    def __init__(self, runs: Runs, scheduler: Any) -> None:
        from easyteacache.reference.pipeline import load_pipeline

        self.pipe = load_pipeline()
        self.pipe.scheduler = scheduler
        self.pipe.set_progress_bar_config(disable=True)
        heads = [trace.header for trace in runs.traces]
        self._arguments: dict[str, Any] = {
            "prompt": [head.prompt for head in heads],
            "seeds": [head.seed for head in heads],
            "num_frames": heads[0].frames,
            "height": heads[0].height,
            "width": heads[0].width,
            "num_inference_steps": runs.num_steps,
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
    run = RunContext(
        sequence_length=bucket.sequence_length, num_steps=bucket.num_steps, shift=bucket.shift, sampler=bucket.sampler
    )
    policy = resolve(record, Request(speedup=speedup), run)
    return f"{len(policy.schedule or ())} searched, {filling_of(policy)}"


def show(results: dict[str, Any], plans: dict[str, Policy], chosen: dict[float, str]) -> None:
    """Print the rank correlation and, per speed-up, the record's schedule beside the best plan of as many computed steps."""
    found = {name: results[name] for name in plans}
    predicted = [np.mean(np.log(r["predicted"])) for r in found.values()]
    measured = [np.mean(np.log(r["measured"])) for r in found.values()]
    runs = len(next(iter(found.values()))["measured"])
    click.echo(f"{len(found)} plans, {runs} held-out runs each")
    best = np.argsort(measured)[:BEST]
    click.echo(f"rank correlation of predicted with measured error: {spearmanr(predicted, measured).statistic:.3f}")
    among = spearmanr(np.take(predicted, best), np.take(measured, best)).statistic
    click.echo(f"among the best {len(best)}: {among:.3f}")
    apart = np.subtract(predicted, measured)
    click.echo(f"predicted / measured, geometric mean: {np.exp(apart.mean()):.2f}")
    by_filling: dict[str, list[float]] = {}
    for name, each in zip(found, apart, strict=True):
        by_filling.setdefault(name.partition(", ")[2], []).append(float(each))
    for filling, values in sorted(by_filling.items()):
        click.echo(f"  {filling}: {np.exp(np.mean(values)):.2f} ({len(values)} plans)")
    if not chosen:
        return
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
