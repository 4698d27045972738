"""`record`: run a model without any cache and keep what a calibration is fitted to."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli import text
from easyteacache.cli.lazy import INTERRUPTED
from easyteacache.cli.parameters import (
    MODEL_KEY,
    loading_options,
    process_share,
    prompts_in,
    run_options,
    usable_device,
)
from easyteacache.cli.text import echo_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easyteacache.integrations.diffusers.recording import Job, RecordingSettings, RecordingSummary

REFERENCE = "reference"
REFERENCE_KEY = "reference/moving-digits"
MOST_SEEDS = 100_000


class _Seeds(click.ParamType):  # type: ignore[type-arg]
    """``0,1,2`` or ``0-15``."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        found: list[int] = []
        for piece in str(value).split(","):
            match = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", piece.strip())
            first, last = (0, -1) if match is None else (int(match[1]), int(match[2] or match[1]))
            if last < first:
                self.fail(f"{piece!r} is not a seed or a range of seeds; expected 0,1,2 or 0-15", param, ctx)
            if last - first >= MOST_SEEDS - len(found):
                self.fail(f"more than {MOST_SEEDS} seeds", param, ctx)
            found.extend(range(first, last + 1))
        return tuple(found)


@click.command()
@click.argument("model")
@click.option(
    "--model-key", type=MODEL_KEY, help=f"family/variant that the runs are stored under. [{REFERENCE}: {REFERENCE_KEY}]"
)
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Folder of trace files; runs it already holds are not repeated.",
)
@click.option(
    "--prompts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="One prompt a line. Without it a list that comes with the program.",
)
@click.option(
    "--num-prompts", type=click.IntRange(min=1), metavar="N", help="Take the first N prompts.  [12 without FILE]"
)
@click.option(
    "--seeds",
    type=_Seeds(),
    help="Run every prompt with each of these, as 0,1,2 or 0-15. Without it prompt i has seed i.",
)
@run_options
@click.option(
    "--steps",
    type=click.IntRange(min=2, max=1000),
    multiple=True,
    default=(50,),
    show_default=True,
    help="Sampler steps; may be repeated.",
)
@click.option("--signals", metavar="NAMES", help="Signals to record, joined by commas.  [all that the model has]")
@click.option(
    "--sketch",
    type=click.Choice(["auto", "exact", "count", "tokens"]),
    default="auto",
    show_default=True,
    help="How residuals are kept: whole, as a count-sketch, as a sample of tokens, or whole only while they are short.",
)
@click.option("--dimension", type=click.IntRange(min=1), help="Numbers kept of each residual by a sketch.  [65536]")
@click.option(
    "--chunk", type=click.IntRange(min=1), default=8, show_default=True, help="Runs per file; what a kill can cost."
)
@click.option("--hide-prompts", is_flag=True, help="Store only the hash of each prompt.")
@loading_options()
@click.option("--revision", help="Branch, tag or commit of the model on the Hub.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print a summary as JSON: recorded, skipped, files, folder, rank, seconds."
)
def record(model: str, folder: Path, as_json: bool, **options: Any) -> None:
    """Run MODEL in full and store a trace of every run in DIR.

    MODEL is 'reference' (the small model that comes with the program), a diffusers pipeline on the Hub or in a folder, or a
    transformer that tools/reference/train.py saved.
    Every combination of size, frames, steps, shift and guidance is recorded with every prompt. A trace holds distances
    and inner products of residuals, no images and no activations; a run of 50 steps takes about 175 kB.

    Stop it at any time: the same command goes on where it stopped. Under torchrun each process records its share.

    \b
    Examples:
      easyteacache record reference --out traces --num-prompts 16 \\
          --size 16x16 --size 24x24 --frames 4
      easyteacache record Wan-AI/Wan2.1-T2V-1.3B-Diffusers \\
          --model-key wan2.1/t2v-1.3b --size 832x480 --frames 81 \\
          --shift 3 --dtype bfloat16 --out traces
      torchrun --nproc-per-node 4 -m easyteacache.cli.main record MODEL \\
          --model-key KEY --out traces
    """
    started = time.monotonic()
    rank, world_size = process_share()
    try:
        summary = _record(model, folder, options, rank=rank, world_size=world_size)
    except KeyboardInterrupt:
        click.echo(f"Stopped. Finished runs are in {folder}; the same command records the rest.", err=True)
        click.get_current_context().exit(INTERRUPTED)
    seconds = round(time.monotonic() - started, 1)
    if as_json:
        numbers = {"recorded": summary.recorded, "skipped": summary.skipped, "files": list(summary.files)}
        echo_json({**numbers, "folder": str(folder), "rank": rank, "seconds": seconds})
        return
    click.echo(f"Recorded {summary.recorded} runs in {seconds} s; {summary.skipped} were there already.")
    click.echo(f"See them: easyteacache traces show {folder}")


def _record(model: str, folder: Path, options: dict[str, Any], *, rank: int, world_size: int) -> RecordingSummary:
    if model != REFERENCE and options["model_key"] is None:
        raise click.UsageError("--model-key is needed: what should the calibration of this model be called?")
    from easyteacache.integrations.diffusers.recording import record_pipeline

    jobs, settings = _jobs(model, options), _settings(model, options)
    pipe = open_pipeline(
        model,
        dtype=options["dtype"],
        device=options["device"],
        offload=options["offload"],
        revision=options["revision"],
    )
    return record_pipeline(
        pipe, jobs, folder, settings, chunk=options["chunk"], rank=rank, world_size=world_size, progress=rank == 0
    )


def _jobs(model: str, options: dict[str, Any]) -> Sequence[Job]:
    from easyteacache.integrations.diffusers.recording import plan_jobs

    prompts = prompts_for(model, options["prompts"], options["num_prompts"])
    return plan_jobs(
        prompts=prompts,
        seeds=options["seeds"],
        sizes=options["sizes"] or (None,),
        frames=options["frames"] or (None,),
        steps=options["steps"],
        shifts=options["shifts"] or (None,),
        guidance_scales=options["guidance_scales"] or (None,),
    )


def prompts_for(model: str, file: Path | None, count: int | None) -> list[str]:
    """The prompts that a recording of ``model`` takes: of a file, or those that come with the program; None counts as few as it takes."""
    if file is not None:
        known = prompts_in(file)
    elif _is_reference(model):
        from easyteacache.reference.prompts import DIGITS, DIRECTIONS

        names = list(DIRECTIONS)
        turns = range(len(names))
        known = [f"{digit} {names[(digit + turn) % len(names)]}" for turn in turns for digit in range(DIGITS)]
    else:
        from easyteacache.integrations.diffusers.recording.prompts import PROMPTS

        known = list(PROMPTS)
    wanted = count or (len(known) if file is not None else 12)
    if wanted > len(known):
        raise click.UsageError(
            f"{wanted} prompts are wanted, {file or 'the list'} has {len(known)}; add --seeds for more runs"
        )
    return known[:wanted]


def first_prompt(model: str) -> str:
    """What a command that samples once takes where nobody says what."""
    return prompts_for(model, None, 1)[0]


def _settings(model: str, options: dict[str, Any]) -> RecordingSettings:
    from easyteacache.integrations.diffusers.recording import RecordingSettings
    from easyteacache.recording.recorder import DIMENSION

    signals, branches = options["signals"], options["branches"]
    return RecordingSettings(
        model_key=options["model_key"] or REFERENCE_KEY,
        signals=tuple(signals.split(",")) if signals else None,
        sketch=None if options["sketch"] == "exact" else options["sketch"],
        dimension=options["dimension"] or DIMENSION,
        branch_names=tuple(branches.split(",")) if branches else (),
        checkpoint=checkpoint_name(model, options["revision"]),
        publish_prompts=not options["hide_prompts"],
    )


def checkpoint_name(model: str, revision: str | None) -> str:
    """What a recording of ``model`` stores as the checkpoint's name."""
    if model == REFERENCE:
        import hashlib

        from easyteacache.reference.pipeline import WEIGHTS

        weights = WEIGHTS / "transformer" / "diffusion_pytorch_model.safetensors"
        return f"{REFERENCE_KEY}@sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}"
    # A folder's place on this machine is nobody's business, its name may be.
    name = Path(model).name if Path(model).exists() else model
    return f"{name}@{revision}" if revision else name


def open_pipeline(
    model: str,
    *,
    dtype: str | None = None,
    device: str | None = None,
    offload: bool = False,
    revision: str | None = None,
) -> Any:
    """The pipeline that people name MODEL on the command line."""
    import torch

    number_type = getattr(torch, dtype) if dtype else None
    device = usable_device(device or _default_device(torch))
    if model == REFERENCE:
        from easyteacache.reference import load_pipeline

        pipe: Any = load_pipeline(dtype=number_type or torch.float32)
    elif _is_reference(model):
        from easyteacache.reference.saved import load_saved

        pipe = load_saved(Path(model))
        pipe = pipe if number_type is None else pipe.to(number_type)
    else:
        from diffusers import DiffusionPipeline

        try:
            pipe = DiffusionPipeline.from_pretrained(model, torch_dtype=number_type, revision=revision)
        except ValueError as error:
            # Its errors of the network and of files are OSErrors, which are told as they are.
            reason = text.shorten(" ".join(str(error).split()), 200)
            raise click.ClickException(
                f"{text.plain(model)} is no model that can be loaded: {text.plain(reason)}"
            ) from error
    pipe.set_progress_bar_config(disable=True)
    if offload:
        pipe.enable_model_cpu_offload(device=device)
        return pipe
    return pipe.to(device)


def _is_reference(model: str) -> bool:
    """'reference', or a transformer that tools/reference/train.py saved."""
    if model == REFERENCE or not Path(model).is_dir():
        return model == REFERENCE
    from easyteacache.reference.saved import is_saved

    return is_saved(Path(model))


def _default_device(torch: Any) -> str:
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "mps" if torch.backends.mps.is_available() else "cpu"
