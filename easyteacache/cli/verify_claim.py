"""`easyteacache-hub verify-claim`: repeat a record's points on prompts that its submitter never saw."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import (
    MODEL_KEY,
    NumberType,
    find,
    json_option,
    loading_options,
    prompts_in,
    registry_option,
)
from easyteacache.cli.progress import bar

if TYPE_CHECKING:
    from easyteacache.integrations.diffusers.recording.jobs import Job
    from easyteacache.records.bucket import Bucket, OperatingPoint
    from easyteacache.records.calibration import Calibration
    from easyteacache.records.evidence import Evidence

#: Seeds of people begin at 0; these lie where nobody records.
_SEEDS = 1 << 31


@dataclass(frozen=True)
class _Repeated:
    """One point of one bucket, by their places in the record, and its error on every run."""

    place: tuple[int, int]
    errors: tuple[float, ...]


@click.command("verify-claim")
@click.argument("key", type=MODEL_KEY, metavar="KEY|FILE")
@click.option("--model", required=True, metavar="MODEL", help="Model to sample with, as given to `record`.")
@click.option(
    "--prompts",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Prompts that the submitter never saw, one a line.",
)
@click.option("--by", required=True, metavar="NAME", help="Who repeats it, as verifiers.txt names them.")
@click.option("--date", metavar="YYYY-MM-DD", help="Day of the measurement.  [today]")
@click.option(
    "--sign",
    "key_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="KEY",
    help="Ed25519 key of ssh to sign with; without one the block is not accepted by the public registry.",
)
@click.option("--steps", type=click.IntRange(1), help="Only points of this step count.")
@click.option("--sequence-length", type=click.IntRange(1), help="Only points of this sequence length.")
@click.option(
    "--speedup",
    "speedups",
    multiple=True,
    type=NumberType(min=1),
    help="Only points of this speed-up; may be repeated.",
)
@click.option(
    "--traces",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="PATH",
    help="The record's traces: a prompt that stands in them is refused. May be repeated.",
)
@click.option("--seed", type=click.IntRange(0), help="First seed.  [drawn anew]")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Record to write.  [KEY|FILE's file]"
)
@loading_options()
@registry_option
@json_option
def verify_claim(
    key: str,
    model: str,
    prompts: Path,
    by: str,
    date: str | None,
    key_file: Path | None,
    steps: int | None,
    sequence_length: int | None,
    speedups: tuple[float, ...],
    traces: tuple[Path, ...],
    seed: int | None,
    out: Path | None,
    registry: Path | None,
    as_json: bool,
    **loading: Any,
) -> None:
    """Repeat the points of KEY with MODEL on private prompts and fresh seeds, and write what they gave as verified evidence.

    Every run is sampled without a cache and then under every point, by the same code that people use. The block holds the figures, the
    hash of the prompt list, who and when, and with --sign a signature over it and over the record's numbers: the review refuses it where
    either was changed since, where the signer is not in the published registry's verifiers.txt, and where the prompts are the
    record's own.

    \b
    Examples:
      easyteacache-hub verify-claim reference/moving-digits --model reference \\
          --prompts private.txt --by "A. Verifier" --sign ~/.ssh/id_ed25519 \\
          --steps 50 --speedup 2 --out verified.json

    \b
    JSON: file, prompts_sha256, signed, points (each num_steps,
      sequence_length, how, speedup, value, p50, p90, worst, runs)
    """
    import datetime

    from easyteacache.hub import claims
    from easyteacache.records import calibration as records

    found = find(key, registry)
    record = found.calibration
    target = out or (Path(key) if Path(key).is_file() else None)
    if target is None:
        raise click.UsageError(
            "name the file to write with --out: records of a registry's layers are not changed in place"
        )
    signer = None if key_file is None else claims.Signer(key_file)
    lines = list(dict.fromkeys(prompts_in(prompts)))
    _require_private(lines, record, traces)
    chosen = list(_chosen(record, steps, sequence_length, speedups))
    if not chosen:
        raise click.UsageError(f"{record.model_key} has no such point; presets are run by their own engine")
    first = secrets.randbelow(_SEEDS) if seed is None else seed
    done = list(_repeated(record, chosen, model, loading, lines, first, hidden=as_json))
    digest, day = claims.prompts_digest(lines), date or datetime.date.today().isoformat()
    for one in done:
        record = _with(record, one, digest, by, day, signer)
    records.save(record, target)
    _tell(record, done, target, digest, signer is not None, as_json)


def _require_private(lines: Sequence[str], record: Calibration, traces: Sequence[Path]) -> None:
    """Refuse prompts that the record was made with, as far as that can be known."""
    import hashlib

    from easyteacache.hub import claims
    from easyteacache.records.trace_set import TraceSet

    seen = {run.header.prompt_sha256 for run in TraceSet.load(*traces)} if traces else set()
    known = [line for line in lines if hashlib.sha256(line.encode()).hexdigest() in seen]
    if known or claims.prompts_digest(lines) == record.provenance.prompt_set_sha256:
        told = f"{len(known)} of these prompts stand" if known else "this list of prompts stands"
        raise click.UsageError(f"{told} in what the record was made with; verify it on others")


def _chosen(
    record: Calibration, steps: int | None, length: int | None, speedups: Sequence[float]
) -> Iterator[tuple[int, int]]:
    """(bucket, point) of those that are asked for and can be run here."""
    from easyteacache.policy.figures import rate_of

    for b, bucket in enumerate(record.buckets):
        if steps not in (None, bucket.num_steps) or length not in (None, bucket.sequence_length):
            continue
        for p, point in enumerate(bucket.operating_points):
            rate = rate_of(point, bucket.num_steps)
            near = not speedups or (rate is not None and any(abs(rate - one) <= 0.01 * one for one in speedups))
            if point.preset is None and near and bucket.num_steps:
                yield b, p


def _repeated(
    record: Calibration,
    chosen: Sequence[tuple[int, int]],
    model: str,
    loading: dict[str, Any],
    prompts: Sequence[str],
    seed: int,
    *,
    hidden: bool,
) -> Iterator[_Repeated]:
    import tempfile

    from easyteacache.cli.record import open_pipeline
    from easyteacache.integrations.diffusers.recording.final_sample import final_sample, relative_l2
    from easyteacache.records import calibration as records
    from easyteacache.teacache import TeaCache

    pipe = open_pipeline(model, **loading)
    exact: dict[int, list[Any]] = {}
    with tempfile.TemporaryDirectory() as folder, bar("run", total=len(chosen) * len(prompts), hidden=hidden) as shown:
        for b, p in chosen:
            jobs = _jobs(record, record.buckets[b], prompts, seed)
            if b not in exact:
                exact[b] = [final_sample(pipe, job) for job in jobs]
            alone = Path(folder, "point.json")
            records.save(_alone(record, b, p), alone)
            errors = []
            for job, sample in zip(jobs, exact[b], strict=True):
                with TeaCache.from_file(alone).attached(pipe):
                    errors.append(relative_l2(final_sample(pipe, job), sample))
                shown.update()
            yield _Repeated((b, p), tuple(errors))


def _jobs(record: Calibration, bucket: Bucket, prompts: Sequence[str], seed: int) -> list[Job]:
    from easyteacache.integrations.diffusers.recording.jobs import Job

    return [
        Job(
            prompt=prompt,
            seed=(seed + number) % _SEEDS,
            width=bucket.width,
            height=bucket.height,
            frames=bucket.frames if record.modality == "video" else None,
            num_steps=bucket.num_steps or 1,
            shift=bucket.shift,
            guidance_scale=record.conditions.guidance_scale,
        )
        for number, prompt in enumerate(prompts)
    ]


def _alone(record: Calibration, b: int, p: int) -> Calibration:
    """The record with this one point, so that no other can be chosen."""
    bucket = record.buckets[b].model_copy(update={"operating_points": (record.buckets[b].operating_points[p],)})
    return record.model_copy(update={"buckets": (bucket,)})


def _with(record: Calibration, done: _Repeated, digest: str, by: str, day: str, signer: Any) -> Calibration:
    """The record with what was found; what the same person found before is replaced."""
    import numpy as np

    from easyteacache.policy.figures import rate_of
    from easyteacache.records import calibration as records
    from easyteacache.records.evidence import RELATIVE_L2, Evidence

    b, p = done.place
    bucket, point = record.buckets[b], record.buckets[b].operating_points[p]
    rate = rate_of(point, bucket.num_steps)
    block: Evidence = Evidence(
        kind="verified",
        how="measured",
        metric=RELATIVE_L2,
        value=float(np.mean(done.errors)),
        p50=float(np.percentile(done.errors, 50)),
        p90=float(np.percentile(done.errors, 90)),
        worst=float(np.max(done.errors)),
        runs=len(done.errors),
        speedup=rate,
        prompts_sha256=digest,
        by=by,
        date=day,
    )
    if signer is not None:
        block = signer.signed(record, bucket, point, block)
    content = record.model_dump(mode="json")
    listed = content["buckets"][b]["operating_points"][p]["evidence"]
    kept = [one for one in listed if not (one["kind"] == "verified" and one["by"] == by)]
    content["buckets"][b]["operating_points"][p]["evidence"] = [block.model_dump(mode="json"), *kept]
    return records.Calibration.from_mapping(content, where=record.model_key)


def _tell(
    record: Calibration, done: Sequence[_Repeated], target: Path, digest: str, signed: bool, as_json: bool
) -> None:
    def told(one: _Repeated) -> tuple[Bucket, OperatingPoint, Evidence]:
        bucket = record.buckets[one.place[0]]
        point = bucket.operating_points[one.place[1]]
        return bucket, point, point.evidence[0]

    if as_json:
        points = [
            {
                "num_steps": bucket.num_steps,
                "sequence_length": bucket.sequence_length,
                "how": _how(point),
                **{name: getattr(block, name) for name in ("speedup", "value", "p50", "p90", "worst", "runs")},
            }
            for bucket, point, block in map(told, done)
        ]
        text.echo_json({"file": str(target), "prompts_sha256": digest, "signed": signed, "points": points})
        return
    columns = [
        text.Column("LENGTH", align="right"),
        text.Column("STEPS", align="right"),
        text.Column("POINT", cut=True),
        text.Column("SPEED-UP", align="right"),
        text.Column("STATED", align="right"),
        text.Column("FOUND", align="right"),
        text.Column("P90", align="right"),
        text.Column("WORST", align="right"),
    ]
    rows = []
    for bucket, point, block in map(told, done):
        others = [one.error.mean for one in point.by_strength if one.kind == "submitted" and one.error is not None]
        figures = [
            text.number(value, 3) for value in (others[0] if others else None, block.value, block.p90, block.worst)
        ]
        speedup = None if block.speedup is None else f"{block.speedup:.3g}x"
        rows.append((bucket.sequence_length, bucket.num_steps, _how(point), speedup, *figures))
    click.echo(text.table(columns, rows))
    click.echo(f"\nWrote {target}; {'signed' if signed else 'not signed, so that the public registry refuses it'}.")


def _how(point: OperatingPoint) -> str:
    kind = f"threshold {point.threshold:g}" if point.schedule is None else f"plan of {len(point.schedule)}"
    return f"{kind}, {point.forecaster} of {point.applied_to}"
