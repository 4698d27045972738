"""`easyteacache calibrate`: make the calibration of a model, in one command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from easyteacache.cli import text
from easyteacache.cli.lazy import INTERRUPTED
from easyteacache.cli.parameters import (
    MODEL_KEY,
    json_option,
    loading_options,
    process_share,
    prompts_in,
    run_options,
)


@click.command("calibrate")
@click.argument("model")
@click.option("--model-key", type=MODEL_KEY, help="family/variant of the record.  [from the checkpoint]")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="One prompt a line; six or more are best.  [12 that come with the program]",
)
@click.option("--steps", type=click.IntRange(min=2, max=1000), multiple=True, help="Sampler steps; may be repeated.")
@run_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of trace files.  [one in this machine's home]",
)
@click.option("--measure", is_flag=True, help="Sample plans with the model before one is chosen; about twice the time.")
@click.option("--license", metavar="SPDX", help="Licence of the numbers, such as CC0-1.0; needed to share them.")
@click.option("--author", help="Who stands for the numbers; needed to share them.")
@click.option("--title", help="The model's name as people write it.  [the key]")
@click.option("--publish-prompts", is_flag=True, help="Store the prompts' text, not only a hash of each.")
@click.option("--replace", is_flag=True, help="Overwrite another record of this key in the local layer.")
@loading_options()
@click.option("--revision", help="Branch, tag or commit of the model on the Hub.")
@json_option
def calibrate(
    model: str,
    model_key: str | None,
    prompts: Path | None,
    out: Path | None,
    as_json: bool,
    branches: str | None,
    dtype: str | None,
    device: str | None,
    offload: bool,
    revision: str | None,
    **options: Any,
) -> None:
    """Calibrate MODEL: record runs, solve, judge on runs held out, and file the record where every lookup finds it.

    MODEL is what `easyteacache record` takes: 'reference', a diffusers pipeline on the Hub or in a folder. One step is timed
    first, and what it all will take is said. Stop it at any time: the same command goes on. Under torchrun or accelerate launch
    the processes share the runs.

    \b
    Examples:
      easyteacache calibrate reference --steps 20
      easyteacache calibrate Wan-AI/Wan2.1-T2V-1.3B-Diffusers \\
          --size 832x480 --frames 81 --shift 3 --dtype bfloat16
      torchrun --nproc-per-node 4 -m easyteacache.cli.main \\
          calibrate MODEL --prompts my-prompts.txt

    \b
    JSON: model_key, revision, status, passed, filed (null where it did not
      pass), points (each steps, computed_steps, speedup, error, p90)
    """
    from easyteacache.calibrating.filing import path_in_local
    from easyteacache.calibrating.one_call import calibrate as calibrate_pipeline
    from easyteacache.cli.record import open_pipeline

    given: dict[str, Any] = {name: value if name in _FLAGS else value or None for name, value in options.items()}
    labels = {name: given.pop(name) for name in ("license", "author", "title")}
    lines = None if prompts is None else prompts_in(prompts)
    process_share()
    pipe = open_pipeline(model, dtype=dtype, device=device, offload=offload, revision=revision)
    try:
        record = calibrate_pipeline(
            pipe,
            lines,
            model_key=model_key,
            out=out,
            labels=labels,
            branches=tuple(branches.split(",")) if branches else (),
            progress=not as_json,
            **given,
        )
    except KeyboardInterrupt:
        # What is there was said.
        click.get_current_context().exit(INTERRUPTED)
    passed = record.status == "validated"
    filed = path_in_local(record.model_key) if passed else None
    if as_json:
        text.echo_json(
            {
                "model_key": record.model_key,
                "revision": record.revision,
                "status": record.status,
                "passed": passed,
                "filed": None if filed is None else os.fspath(filed),
                "points": [
                    {
                        "steps": bucket.num_steps,
                        "computed_steps": point.computed_steps,
                        "speedup": point.speedup,
                        "error": None if point.error is None else point.error.mean,
                        "p90": None if point.error is None else point.error.p90,
                    }
                    for bucket in record.buckets
                    for point in bucket.operating_points
                ],
            }
        )
    elif filed is not None:
        click.echo(f"See it: easyteacache show {record.model_key}")
        click.echo(f'Use it: TeaCache.from_registry("{record.model_key}", speedup=2.0).attach(pipe)')
    if not passed:
        raise SystemExit(1)


_FLAGS = ("measure", "publish_prompts", "replace")
