"""How far is the record's plan from the best one that knows the evaluation runs?

    python tools/bench/oracle.py --steps 25
    python tools/bench/oracle.py --steps 25 --frames 1 --record my.json --kept oracle.json

The oracle is found on the very runs of the benchmark that it is judged on, and nobody could have it beforehand: they are recorded,
schedules are searched on their traces under every view of how errors travel, weights are fitted to what each plan computes on
these runs, and from the best plan single computed steps are moved as long as the typical error falls. The record's plan at the same
speed-up was made from other runs. Prints both and the difference, in PSNR of the frames, decoded and clamped as in the benchmark,
and in the latents, which the search goes by. Goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from easyteacache import Registry, TeaCache
from easyteacache.bench.curves import worst_tenth
from easyteacache.bench.run import FIRST_SEED
from easyteacache.bench.subject import Case, ReferenceSubject, load_reference
from easyteacache.calibrating.measuring import measure_with, policy_of
from easyteacache.cli import text
from easyteacache.compare import quality
from easyteacache.integrations.diffusers.recording import RecordingSettings, record_pipeline
from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import Request, RunContext
from easyteacache.records import calibration
from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.replay.fitted_weights import Schedule, StateFit
from easyteacache.solver.replay.replay import filling_of
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.search.fitted_search import neighbours
from easyteacache.solver.search.measured import THOROUGH, FittedPlans, Measure, Measured
from easyteacache.solver.search.planner import Plan, computed_steps

KEY = "reference/moving-digits"
# A move is tried on all runs when it gained this much, in natural logarithms of the error, on the first ones.
SCREENED, PROMISING = 8, 0.02
TRIED_IN_FULL = 3
UNITS = ("frames", "latents")


@click.command(help=__doc__)
@click.option("--steps", default=25, show_default=True, help="Sampler steps.")
@click.option("--frames", default=4, show_default=True, help="Frames.")
@click.option("--size", default=16, show_default=True, help="Pixels.")
@click.option("--pairs", default=32, show_default=True, type=click.IntRange(SCREENED), help="Runs of the benchmark.")
@click.option(
    "--target", "targets", multiple=True, type=float, default=(1.5, 2.0, 3.0, 4.0), help="Speed-up; repeat it."
)
@click.option("--record", type=click.Path(path_type=Path, exists=True), help="Calibration.  [the bundled one]")
@click.option(
    "--model-path", type=click.Path(path_type=Path, exists=True), help="Transformer of tools/reference/train.py."
)
@click.option(
    "--kept", type=click.Path(path_type=Path), default="oracle.json", show_default=True, help="What was sampled."
)
def main(
    steps: int,
    frames: int,
    size: int,
    pairs: int,
    targets: tuple[float, ...],
    record: Path | None,
    model_path: Path | None,
    kept: Path,
) -> None:
    """Entry point."""
    from tqdm import tqdm

    subject, case = load_reference(model_path), Case(frames, size, size, steps)
    found = Registry.default().find(KEY).calibration if record is None else calibration.load(record)
    runs, rows, plans = _recorded(subject, case, pairs), [], list[str]()
    with tqdm(unit="step", disable=None) as bar:
        measure = measure_with(subject.pipe, model=subject.digest, runs=None, kept_in=kept, on_step=bar.update)
        exact, oracle = Samples.of(subject, runs, None), Oracle(runs, measure, bar.set_description)
        for target in targets:
            count = computed_steps(steps, target)
            run = RunContext(sequence_length=subject.tokens(case), num_steps=steps)
            policy = resolve(found, Request(speedup=target), run)
            plan, measured = oracle.best(count, policy)
            best = Plan(dataclasses.replace(plan.filling, weights=measured.weights), plan.computed)
            own, other = (Samples.of(subject, runs, each).decibels(exact) for each in (policy, policy_of(best, runs)))
            for unit in UNITS:
                difference = f"{np.mean(other[unit] - own[unit]):+.1f} dB"
                rows.append((f"{target:g}x", str(count), unit, _shown(own[unit]), _shown(other[unit]), difference))
            plans += [f"{target:g}x  record  {filling_of(policy)}, {_steps(policy.schedule)}"]
            plans += [f"{target:g}x  oracle  {plan.filling}, {_steps(plan.computed)}"]
    titles = ("SPEED-UP", "COMPUTED", "OF", "RECORD'S", "ORACLE'S", "DIFFERENCE")
    click.echo(f"{case.name}, {len(runs)} runs: PSNR of frames and dB of latents over their error, mean (worst tenth)")
    click.echo(text.table([text.Column(title, "left" if title == "OF" else "right") for title in titles], rows))
    click.echo("\n".join(("", *plans)))


@dataclasses.dataclass(frozen=True)
class Samples:
    """The R runs sampled again as one batch: latents (R, D) and frames (R, F, H, W, C) in [0, 1]."""

    latents: np.ndarray[Any, Any]
    frames: np.ndarray[Any, Any]

    @classmethod
    def of(cls, subject: ReferenceSubject, runs: Runs, policy: Policy | None) -> Samples:
        """Under ``policy``; uncached with None."""
        if policy is None:
            return cls._of(subject, runs)
        with TeaCache.from_policy(policy).attached(subject.pipe, allow_borrowed=True):
            return cls._of(subject, runs)

    @classmethod
    def _of(cls, subject: ReferenceSubject, runs: Runs) -> Samples:
        heads, last = [trace.header for trace in runs.traces], dict[str, Any]()

        def keep(_pipe: Any, _step: int, _timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
            last.update(state)
            return {}

        frames = subject.pipe(
            prompt=[head.prompt for head in heads],
            seeds=[head.seed for head in heads],
            num_frames=heads[0].frames or 1,
            height=heads[0].height,
            width=heads[0].width,
            num_inference_steps=runs.num_steps,
            guidance_scale=heads[0].guidance_scale,
            callback_on_step_end=keep,
            return_dict=False,
        )[0]
        return cls(last["latents"].flatten(1).double().numpy(), np.asarray(frames))

    def decibels(self, exact: Samples) -> dict[str, np.ndarray[Any, Any]]:
        """(R,) each against the uncached samples, under ``UNITS``."""
        errors = np.linalg.norm(self.latents - exact.latents, axis=1) / np.linalg.norm(exact.latents, axis=1)
        psnr = [quality.psnr(*each) for each in zip(exact.frames, self.frames, strict=True)]
        return dict(zip(UNITS, (np.array(psnr), -20.0 * np.log10(np.maximum(errors, 1e-12))), strict=True))


class Oracle:
    """Searches plans on the runs that they are judged on.

    Args:
        runs: R of them.
        measure: samples a plan on all of them.
        tell: told what is being done.
    """

    def __init__(self, runs: Runs, measure: Measure, tell: Callable[[str], None]) -> None:
        self._runs, self._measure, self._tell = runs, measure, tell
        self._few, self._fit = runs.take(range(SCREENED)), StateFit(runs)

    def best(self, count: int, known: Policy) -> tuple[Plan, Measured]:
        """The best plan of ``count`` computed steps, sampled with weights fitted to these runs; ``known`` is one to begin with."""
        begin = [FittedPlans(self._measure, THOROUGH).plans(self._runs, [count], self._tell)[count]]
        if known.schedule is not None and len(known.schedule) == count:
            begin.append(Plan(filling_of(known), known.schedule))
        tried = [self._started(plan, plan.computed) for plan in begin]
        best, plan = min(((self._measure(self._runs, plan), plan) for plan in tried), key=lambda each: each[0].typical)
        while (better := self._moved(plan, best)) is not None:
            plan, best = better
        return plan, best

    def _started(self, plan: Plan, schedule: Schedule) -> Plan:
        """``plan`` with another schedule and the weights that these runs' traces have for it."""
        return Plan(dataclasses.replace(plan.filling, weights=self._fit.weights(schedule)), schedule)

    def _moved(self, plan: Plan, best: Measured) -> tuple[Plan, Measured] | None:
        self._tell(f"moving steps of {len(plan.computed)}")
        before, screened = self._measure(self._few, plan).typical, []
        for schedule in neighbours(plan.computed, self._runs.num_steps, reach=1):
            moved = self._started(plan, schedule)
            screened.append((self._measure(self._few, moved).typical - before, schedule, moved))
        for gain, _, moved in sorted(screened)[:TRIED_IN_FULL]:
            if gain < -PROMISING and (found := self._measure(self._runs, moved)).typical < best.typical:
                return moved, found
        return None


def _recorded(subject: ReferenceSubject, case: Case, pairs: int) -> Runs:
    jobs = [subject.job(case, pair) for pair in subject.pairs(pairs, first_seed=FIRST_SEED)]
    with tempfile.TemporaryDirectory() as folder:
        record_pipeline(subject.pipe, jobs, folder, RecordingSettings(model_key="bench/evaluation"))
        return Runs.stack(TraceSet.load(folder).runs)


def _steps(schedule: Schedule | None) -> str:
    return "no schedule" if schedule is None else " ".join(map(str, schedule))


def _shown(decibels: np.ndarray[Any, Any]) -> str:
    return f"{decibels.mean():.1f} ({worst_tenth(decibels.tolist()):.1f}) dB"


if __name__ == "__main__":
    main()
