"""Make the bundled calibration of the reference model: the commands a user would type, and nothing else.

The traces are kept in the repository and so is what sampling the candidate plans gave, so that the record can be made again in a
minute; ``--record`` makes both anew, in some hours. ``--matched`` records runs at the shifts at which the model is like large ones
(docs/benchmarks.md, "Matched regime"), beside those that are there, and solves buckets for them, too: what was sampled for the other
buckets is used again. Buckets under UniPC, Wan's own sampler, are solved from their traces alone and put beside the others; ``--unipc``
makes them anew and leaves the others as the record has them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
TRACES = ROOT / "tests" / "fixtures" / "traces" / "reference"
# What sampling the candidates gave: with it, the record is made again without sampling, to the byte.
MEASURED = TRACES / "measured.json"
RECORD = ROOT / "registry" / "reference" / "moving-digits.json"
VIDEOS = ("--size", "16x16", "--size", "24x24", "--size", "32x32", "--frames", "4")
IMAGES = ("--size", "16x16", "--frames", "1")
STEP_COUNTS = (50, 25)
# Wan's own sampler, at its own shift for small videos.
UNIPC_STEP_COUNTS = (50, 30, 25)
UNIPC = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
MATCHED_SHIFTS = (0.25, 0.35, 0.5)
MATCHED = TRACES / "matched-50.safetensors"
MATCHED_VIDEOS = ("--size", "16x16", "--frames", "4")
# Fewer choose by chance: samples differ by more than schedules do (docs/solver.md).
MEASURE = ("--measure", "reference", "--measure-all", "--measure-runs", "144", "--measure-batch", "48")
LABELS = (
    *("--title", "Moving digits, the reference model", "--license", "Apache-2.0"),
    *("--author", "The EasyTeaCache authors", "--modality", "video"),
)


@click.command()
@click.option("--record", "record_traces", is_flag=True, help="Record the traces again with the model, then solve.")
@click.option("--runs", default=20, show_default=True, type=click.IntRange(6), help="With --record: runs per setting.")
@click.option("--matched", is_flag=True, help="Record runs at matched shifts, too, then solve.")
@click.option(
    "--matched-runs", default=12, show_default=True, type=click.IntRange(6), help="With --matched: runs per setting."
)
@click.option("--unipc", "only_unipc", is_flag=True, help="Make the buckets under UniPC anew, and no others.")
@click.option("--check", is_flag=True, help="Change nothing; fail when the record is not what the traces give.")
def main(record_traces: bool, runs: int, matched: bool, matched_runs: int, only_unipc: bool, check: bool) -> None:
    """Solve and validate registry/reference/moving-digits.json from the traces in tests/fixtures/traces/reference."""
    if record_traces:
        _record(runs)
    if matched:
        _record_matched(matched_runs)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / RECORD.name
        if RECORD.exists():
            # So that a changed record is its next revision.
            shutil.copyfile(RECORD, fresh)
        kept = fresh.with_name(f"{fresh.name}.measured.json")
        if MEASURED.exists() and not record_traces:
            shutil.copyfile(MEASURED, kept)
        if not only_unipc:
            _easyteacache("solve", *_traces("steps", "matched"), "--out", str(fresh), *MEASURE, *LABELS)
        under_unipc = Path(folder) / "unipc.json"
        _easyteacache("solve", *_traces("unipc"), "--out", str(under_unipc), *LABELS)
        _join(fresh, under_unipc)
        _easyteacache("validate", str(fresh), "--traces", str(TRACES), "--write")
        if check:
            _compare(fresh)
            return
        RECORD.parent.mkdir(parents=True, exist_ok=True)
        if not only_unipc:
            shutil.copyfile(kept, MEASURED)
        shutil.copyfile(fresh, RECORD)
    subprocess.run(
        [sys.executable, "-m", "easyteacache.cli.hub", "index", "--registry", str(ROOT / "registry")], check=True
    )


def _traces(*kinds: str) -> list[str]:
    return [str(path) for kind in kinds for path in sorted(TRACES.glob(f"{kind}-*.safetensors"))]


def _join(target: Path, other: Path) -> None:
    """Put the buckets of another record of the model beside those of ``target`` that have other samplers, as its next revision."""
    from easyteacache.records import calibration

    record, more = calibration.load(target), calibration.load(other)
    names = {bucket.sampler.name for bucket in more.buckets if bucket.sampler is not None}
    kept = [bucket for bucket in record.buckets if bucket.sampler is None or bucket.sampler.name not in names]
    buckets = sorted([*kept, *more.buckets], key=lambda bucket: bucket.setting)
    files = {file.file: file for file in (*record.provenance.traces, *more.provenance.traces)}
    before = calibration.load(RECORD) if RECORD.exists() else None
    joined = record.model_copy(
        update={
            "buckets": tuple(buckets),
            "provenance": record.provenance.model_copy(update={"traces": tuple(files[name] for name in sorted(files))}),
            "conditions": record.conditions.model_copy(update={"sampler": None}),
            "revision": record.revision if before is None else before.revision + (before.buckets != tuple(buckets)),
        }
    )
    calibration.save(joined, target)


def _record(runs: int) -> None:
    for steps in STEP_COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            for shapes in (VIDEOS, IMAGES):
                _easyteacache(
                    "record", "reference", "--out", folder, "--num-prompts", str(runs), "--steps", str(steps), *shapes
                )
            _kept(folder, TRACES / f"steps-{steps}.safetensors")
    for steps in UNIPC_STEP_COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            _record_unipc(folder, steps, runs)
            _kept(folder, TRACES / f"unipc-{steps}.safetensors")


def _kept(folder: str, target: Path) -> None:
    """The runs of a folder as one file."""
    target.unlink(missing_ok=True)
    _easyteacache("traces", "merge", str(target), folder)


def _record_unipc(folder: str, steps: int, runs: int) -> None:
    """Videos of 4x16x16 under UniPC: with the library, because the command takes a pipeline's own sampler."""
    from diffusers import UniPCMultistepScheduler

    from easyteacache.cli.record import REFERENCE_KEY, checkpoint_name, prompts_for
    from easyteacache.integrations.diffusers.recording import RecordingSettings, plan_jobs, record_pipeline
    from easyteacache.reference.pipeline import load_pipeline

    pipe = load_pipeline()
    pipe.scheduler = UniPCMultistepScheduler(**UNIPC)
    jobs = plan_jobs(prompts=prompts_for("reference", None, runs), sizes=((16, 16),), frames=(4,), steps=(steps,))
    settings = RecordingSettings(REFERENCE_KEY, checkpoint=checkpoint_name("reference", None), features=False)
    record_pipeline(pipe, jobs, folder, settings)


def _record_matched(runs: int) -> None:
    shifts = [argument for shift in MATCHED_SHIFTS for argument in ("--shift", f"{shift:g}")]
    with tempfile.TemporaryDirectory() as folder:
        for shapes in (MATCHED_VIDEOS, IMAGES):
            _easyteacache("record", "reference", "--out", folder, "--num-prompts", str(runs), *shifts, *shapes)
        _kept(folder, MATCHED)


def _compare(fresh: Path) -> None:
    """Same bytes here; another machine's linear algebra may differ in the last bits, which validation allows for."""
    if fresh.read_bytes() != RECORD.read_bytes():
        raise click.ClickException(f"{RECORD.relative_to(ROOT)} is stale: run python tools/reference/calibrate.py")
    click.echo(f"{RECORD.relative_to(ROOT)} is what its traces give")


def _easyteacache(*arguments: str) -> None:
    finished = subprocess.run([sys.executable, "-m", "easyteacache.cli.main", *arguments], check=False)
    if finished.returncode:
        raise click.ClickException(f"easyteacache {arguments[0]} failed")


if __name__ == "__main__":
    main()
