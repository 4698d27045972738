"""Make the bundled calibration of the reference model from the traces that are kept beside the tests.

Buckets under UniPC, Wan's own sampler, and at the shifts at which the model is like large ones (docs/benchmarks.md, "Matched regime") are
solved from their traces alone, in two minutes and to the byte. The others, under Euler at shift 3, were chosen by sampling their candidate
plans on 144 runs each, which takes hours: they stay as the record has them unless ``--measure`` says otherwise. ``--record`` records traces anew.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from easyteacache.records.bucket import Bucket

ROOT = Path(__file__).resolve().parents[2]
TRACES = ROOT / "tests" / "fixtures" / "traces" / "reference"
# What sampling the candidates gave: with it, the record is made again without sampling, to the byte.
MEASURED = TRACES / "measured.json"
RECORD = ROOT / "registry" / "reference" / "moving-digits.json"
VIDEOS = ("--size", "16x16", "--size", "24x24", "--size", "32x32", "--frames", "4")
IMAGES = ("--size", "16x16", "--frames", "1")
STEP_COUNTS = (50, 25)
SIGNAL = "timestep_projection"
# Wan's own sampler, at its own shift for small videos.
UNIPC_STEP_COUNTS = (50, 30, 25)
UNIPC = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
MATCHED_SHIFTS = (0.25, 0.35, 0.5)
# Fewer choose by chance: samples differ by more than schedules do (docs/solver-evidence.md).
MEASURE = ("--measure", "reference", "--measure-all", "--measure-runs", "144", "--measure-batch", "48")
LABELS = (
    *("--title", "Moving digits, the reference model", "--license", "Apache-2.0"),
    *("--author", "The EasyTeaCache authors", "--modality", "video"),
)


@click.command()
@click.option(
    "--record",
    "kinds",
    type=click.Choice(["steps", "unipc", "matched"]),
    multiple=True,
    help="Record these traces again with the model, then solve; may be repeated.",
)
@click.option("--runs", default=20, show_default=True, type=click.IntRange(6), help="With --record: runs per setting.")
@click.option("--measure", is_flag=True, help="Sample the candidates of Euler's buckets at shift 3 anew; takes hours.")
@click.option("--check", is_flag=True, help="Change nothing; fail when the record is not what the traces give.")
def main(kinds: tuple[str, ...], runs: int, measure: bool, check: bool) -> None:
    """Solve and validate registry/reference/moving-digits.json from the traces in tests/fixtures/traces/reference."""
    for kind in kinds:
        RECORDERS[kind](runs)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / RECORD.name
        # So that a changed record is its next revision.
        shutil.copyfile(RECORD, fresh)
        kept = fresh.with_name(f"{fresh.name}.measured.json")
        if measure:
            if MEASURED.exists() and "steps" not in kinds:
                shutil.copyfile(MEASURED, kept)
            _easyteacache("solve", *_traces("steps"), "--out", str(fresh), *MEASURE, *LABELS)
        for kind in ("unipc", "matched"):
            alone = Path(folder) / f"{kind}.json"
            # The record has one signal for all of its buckets.
            _easyteacache("solve", *_traces(kind), "--out", str(alone), "--signal", SIGNAL, *LABELS)
            _join(fresh, alone)
        _restate(fresh)
        _easyteacache("validate", str(fresh), "--traces", str(TRACES), "--write")
        if check:
            _compare(fresh)
            return
        if measure:
            shutil.copyfile(kept, MEASURED)
        shutil.copyfile(fresh, RECORD)
    subprocess.run(
        [sys.executable, "-m", "easyteacache.cli.hub", "index", "--registry", str(ROOT / "registry")], check=True
    )


def _traces(*kinds: str) -> list[str]:
    return [str(path) for kind in kinds for path in sorted(TRACES.glob(f"{kind}-*.safetensors"))]


def _join(target: Path, other: Path) -> None:
    """Put the buckets of another record of the model in the place of those of ``target`` for the same runs."""
    from easyteacache.records import calibration

    record, more = calibration.load(target), calibration.load(other)
    made = {_runs_of(bucket) for bucket in more.buckets}
    kept = [bucket for bucket in record.buckets if _runs_of(bucket) not in made]
    buckets = sorted([*kept, *more.buckets], key=lambda bucket: (*bucket.setting, _runs_of(bucket)[-1]))
    files = {file.file: file for file in (*record.provenance.traces, *more.provenance.traces)}
    joined = record.model_copy(
        update={
            "buckets": tuple(buckets),
            "provenance": record.provenance.model_copy(update={"traces": tuple(files[name] for name in sorted(files))}),
            "conditions": record.conditions.model_copy(update={"sampler": None}),
        }
    )
    calibration.save(joined, target)


def _restate(target: Path) -> None:
    """State every point's errors as replay has them today: plans that were chosen by sampling stay, the ruler may have changed.

    What differs from the record of before is its next revision.
    """
    from easyteacache.records import calibration
    from easyteacache.records.trace_set import TraceSet
    from easyteacache.solver.replay.replay import Replay, filling_of, policy_at
    from easyteacache.solver.replay.runs import Runs
    from easyteacache.solver.solve import replayed

    record = calibration.load(target)
    _, heldout = TraceSet.load(TRACES).split_heldout()
    buckets = []
    for bucket in record.buckets:
        replay, points = (
            Replay(Runs.stack(heldout.group(*bucket.setting, bucket.sampler and bucket.sampler.name).runs)),
            [],
        )
        for point in bucket.operating_points:
            policy = policy_at(record, bucket, point)
            errors = replay.errors(replay.decide(policy), filling_of(policy))
            speedup = bucket.num_steps / point.computed_steps
            others = [each for each in point.evidence if each.how != "replayed"]
            points.append(point.model_copy(update={"evidence": (replayed(errors, speedup), *others)}))
        buckets.append(bucket.model_copy(update={"operating_points": tuple(points)}))
    before = calibration.load(RECORD) if RECORD.exists() else record
    revision = before.revision + (before.buckets != tuple(buckets))
    calibration.save(record.model_copy(update={"buckets": tuple(buckets), "revision": revision}), target)


def _runs_of(bucket: Bucket) -> tuple[object, ...]:
    return (*bucket.setting, "" if bucket.sampler is None else bucket.sampler.name)


def _record_steps(runs: int) -> None:
    for steps in STEP_COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            for shapes in (VIDEOS, IMAGES):
                _easyteacache(
                    "record", "reference", "--out", folder, "--num-prompts", str(runs), "--steps", str(steps), *shapes
                )
            _kept(folder, TRACES / f"steps-{steps}.safetensors")


def _kept(folder: str, target: Path) -> None:
    """The runs of a folder as one file."""
    target.unlink(missing_ok=True)
    _easyteacache("traces", "merge", str(target), folder)


def _record_unipc(runs: int) -> None:
    """With the library, because the command takes a pipeline's own sampler."""
    from diffusers import UniPCMultistepScheduler

    for steps in UNIPC_STEP_COUNTS:
        _record_videos(TRACES / f"unipc-{steps}.safetensors", runs, UniPCMultistepScheduler(**UNIPC), steps=steps)


def _record_matched(runs: int) -> None:
    _record_videos(TRACES / "matched-50.safetensors", runs, None, shifts=MATCHED_SHIFTS)


def _record_videos(
    target: Path, runs: int, scheduler: Any, *, steps: int = 50, shifts: Sequence[float | None] = (None,)
) -> None:
    """Videos of 4x16x16."""
    from easyteacache.cli.record import REFERENCE_KEY, checkpoint_name, prompts_for
    from easyteacache.integrations.diffusers.recording import RecordingSettings, plan_jobs, record_pipeline
    from easyteacache.reference.pipeline import load_pipeline

    pipe = load_pipeline()
    pipe.scheduler = scheduler or pipe.scheduler
    jobs = plan_jobs(
        prompts=prompts_for("reference", None, runs), sizes=((16, 16),), frames=(4,), steps=(steps,), shifts=shifts
    )
    settings = RecordingSettings(REFERENCE_KEY, checkpoint=checkpoint_name("reference", None), features=False)
    with tempfile.TemporaryDirectory() as folder:
        record_pipeline(pipe, jobs, folder, settings)
        _kept(folder, target)


def _compare(fresh: Path) -> None:
    """Same bytes here; another machine's linear algebra may differ in the last bits, which validation allows for."""
    if fresh.read_bytes() != RECORD.read_bytes():
        raise click.ClickException(f"{RECORD.relative_to(ROOT)} is stale: run python tools/reference/calibrate.py")
    click.echo(f"{RECORD.relative_to(ROOT)} is what its traces give")


def _easyteacache(*arguments: str) -> None:
    finished = subprocess.run([sys.executable, "-m", "easyteacache.cli.main", *arguments], check=False)
    if finished.returncode:
        raise click.ClickException(f"easyteacache {arguments[0]} failed")


RECORDERS = {"steps": _record_steps, "unipc": _record_unipc, "matched": _record_matched}

if __name__ == "__main__":
    main()
