"""`easyteacache report`: one page that shows what a calibration is and how good."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli.extras import require
from easyteacache.cli.parameters import loading_options
from easyteacache.cli.progress import bar

if TYPE_CHECKING:
    from easyteacache.records.calibration import Bucket, Calibration
    from easyteacache.solver.report.page import Advice, Sampled

#: Pixels of the longer side of a sampled picture; smaller ones are enlarged without smoothing.
_SIDE = 320
#: Frames shown of a video.
_FRAMES = 4


@click.command("report")
@click.argument("calibration", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--traces",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="DIR",
    help="Trace file or folder; may be repeated.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("report"),
    show_default=True,
    help="Folder to write.",
)
@click.option("--model", metavar="MODEL", help="Show samples of this model, named as `record` takes it.  [no samples]")
@click.option("--prompt", "prompts", multiple=True, help="With --model: what to sample; may be repeated.")
@loading_options("With --model: ")
def report(
    calibration: Path,
    traces: tuple[Path, ...],
    out: Path,
    model: str | None,
    prompts: tuple[str, ...],
    **loading: Any,
) -> None:
    """Write a page about CALIBRATION and its traces, every picture inside it and beside it as PNG.

    It begins with what to use: the argument, the error on held-out runs, how much nearer that is than as many steps without a cache,
    and the code. Then for every bucket speed against error with each operating point's computed steps, the table of what has to be
    beaten, and the fit. With --model it shows samples of the same noise: uncached, cached, and with fewer steps.

    \b
    Examples:
      easyteacache report my-model.json --traces traces --out report
      easyteacache report my-model.json --traces traces --model reference \\
          --prompt "3 up"
    """
    require("the report", "matplotlib")
    if prompts and model is None:
        raise click.UsageError("--prompt says what to sample and needs --model")
    from easyteacache.records import calibration as records
    from easyteacache.records.trace_set import TraceSet
    from easyteacache.solver.report.page import DRAWINGS, write_report

    record = records.load(calibration)
    runs = TraceSet.load(*traces)
    with bar("picture", total=len(record.buckets) * (1 + len(DRAWINGS)) + 1) as shown:

        def tell(message: str) -> None:
            shown.set_description(message)
            shown.update()

        def samples(advice: Advice) -> list[Sampled]:
            assert model is not None
            tell("sampling")
            return _sampled(record, calibration, advice, model, prompts, loading)

        files, verdict = write_report(
            record,
            runs,
            out,
            use=f'TeaCache.from_file("{calibration.name}"',
            samples=None if model is None else samples,
            progress=tell,
        )
    click.echo(f"Wrote {files[0]} and {len(files) - 1} pictures.")
    if not verdict.passed:
        click.echo(f"The calibration is refused: {verdict.failures[0].rule}. The page says why.", err=True)


def _sampled(
    record: Calibration, file: Path, advice: Advice, model: str, prompts: tuple[str, ...], loading: dict[str, Any]
) -> list[Sampled]:
    """Each prompt uncached, under what is advised, and with as many steps as that computes."""
    import dataclasses

    from easyteacache.cli.record import open_pipeline
    from easyteacache.integrations.diffusers.recording.final_sample import decoded
    from easyteacache.integrations.diffusers.recording.jobs import Job
    from easyteacache.solver.report.page import Sampled, SamplePicture
    from easyteacache.teacache import TeaCache

    pipe = open_pipeline(model, **loading)
    bucket = _bucket(record, advice)
    found = []
    for number, prompt in enumerate(prompts or ("3 up", "7 left")[: 2 if model == "reference" else 1]):
        job = Job(
            prompt=prompt,
            seed=number,
            width=bucket.width,
            height=bucket.height,
            frames=bucket.frames if record.modality == "video" else None,
            num_steps=bucket.num_steps or 50,
            shift=bucket.shift,
            guidance_scale=record.conditions.guidance_scale,
        )
        with TeaCache.from_file(file, speedup=advice.asked).attached(pipe):
            cached = decoded(pipe, job)
        few = dataclasses.replace(job, num_steps=round(advice.point.computed))
        ways = (
            ("uncached", decoded(pipe, job), f"{job.num_steps} steps"),
            (f"speedup={advice.asked}", cached, f"{few.num_steps} of {job.num_steps} steps computed"),
            ("fewer steps", decoded(pipe, few), f"{few.num_steps} steps"),
        )
        exact = ways[0][1]
        shown = tuple(
            SamplePicture(name, _png(frames), said if frames is exact else f"{said}, {_decibels(exact, frames)}")
            for name, frames, said in ways
        )
        found.append(Sampled(prompt, shown))
    return found


def _bucket(record: Calibration, advice: Advice) -> Bucket:
    from easyteacache.solver.validation.points import describe

    return next(one for one in record.buckets if describe(one) == advice.point.where)


def _decibels(exact: Any, frames: Any) -> str:
    from easyteacache.compare.quality import psnr

    value = psnr(exact, frames)
    return "equal" if value == float("inf") else f"PSNR {value:.1f} dB"


def _png(frames: Any) -> str:
    """Frames (F, H, W, C) with values of 0 to 1 side by side, as a PNG in base64."""
    import numpy as np
    from PIL import Image

    places = sorted({round(i * (len(frames) - 1) / max(_FRAMES - 1, 1)) for i in range(_FRAMES)})
    row = np.concatenate([frames[place] for place in places], axis=1)
    row = np.repeat(row, 3, axis=-1) if row.shape[-1] == 1 else row
    picture = Image.fromarray((255 * np.clip(row, 0, 1)).round().astype("uint8"))
    scale = max(1, _SIDE // picture.height)
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    target = io.BytesIO()
    picture.save(target, "PNG")
    return base64.b64encode(target.getvalue()).decode()
