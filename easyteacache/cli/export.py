"""`easyteacache export`: a record's numbers in another engine's format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli import parameters, text
from easyteacache.cli.parameters import (
    MODEL_KEY,
    NumberType,
    find,
    one_target,
    open_registry,
    operating_options,
    registry_option,
)
from easyteacache.export.table import ENGINES

if TYPE_CHECKING:
    from easyteacache.policy.request import Request, RunContext
    from easyteacache.records.trace_set import Setting, TraceSet
    from easyteacache.registry.registry import Found

RULES = ("model", "signal", "abs", "window", "forecast", "branches", "mask")
# Engines take at most five coefficients where they take a fixed number.
REFIT_ORDER = 4


@click.command("export")
@click.argument("key", type=MODEL_KEY, metavar="KEY|FILE")
@click.option("--to", "engine", required=True, type=click.Choice(list(ENGINES)), metavar="ENGINE", help="The engine.")
@click.option(
    "--sequence-length", type=click.IntRange(min=1), help="Tokens of the generated stream entering the blocks."
)
@click.option("--steps", type=click.IntRange(min=1), help="Sampler steps of the run.")
@click.option("--shift", type=NumberType(min=0, min_open=True), help="Flow-matching time shift of the run.")
@operating_options
@click.option(
    "--allow",
    type=click.Choice(RULES),
    multiple=True,
    metavar="RULE",
    help=f"Export although the engine differs in RULE ({', '.join(RULES)}); the file says so.",
)
@click.option("--refit", is_flag=True, help="Fit what the engine can evaluate, to the runs of --traces.")
@click.option(
    "--traces", type=click.Path(path_type=Path, exists=True), metavar="PATH", help="Trace file or folder for --refit."
)
@click.option(
    "--server",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="For sglang-dpcache: a schedule that the server's own calibration wrote, or a JSON object with fields of its request.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [standard output]")
@registry_option
def export(
    key: str, engine: str, allow: tuple[str, ...], server: Path | None, out: Path | None, **options: Any
) -> None:
    """Write the calibration KEY, a key, an alias or a calibration file, in the format of ENGINE.

    Refuses, with exit code 1, where the engine would compute something else than what was calibrated: another signal, |p(x)| of
    a polynomial that goes negative, more coefficients than it takes, steps outside the skip window, another filling of reused steps.
    Smaller differences are told on standard error and in the file. A record of another engine's settings goes to the engines that
    run that method. docs/engines.md says what each engine does.

    \b
    Engines: vllm-omni, sglang, sglang-dpcache, sglang-cache-dit,
      sglang-request, tensorrt-llm, comfyui-teacache, comfyui-lemica,
      lightx2v, diffusers, cache-dit, cache-dit-python, xdit, nunchaku,
      stable-diffusion.cpp, wan2gp, seed, json, python

    \b
    Examples:
      easyteacache export wan2.1/t2v-14b --to lightx2v
      easyteacache export flux.1/dev --to comfyui-teacache --threshold 0.4
      easyteacache export flux.1/dev/magcache --to diffusers --steps 50
      easyteacache export my.json --to vllm-omni --refit --traces traces/
      easyteacache export wan2.1/t2v-14b/lemica --to sglang-cache-dit
      easyteacache export qwen-image/2.1/dpcache --to sglang-dpcache \\
          --server K16.json
    """
    from easyteacache.export import read_server, write

    folder = options.pop("registry")
    refit, traces = options.pop("refit"), options.pop("traces")
    if refit != (traces is not None):
        raise click.UsageError("--refit and --traces belong together: the runs to fit to.")
    request, run = _asked(**options)
    found, registry = find(key, folder), open_registry(folder)
    if refit:
        found = _refitted(found, run, traces)
    known = None if server is None else read_server(parameters.text_of(server), engine, file=str(server))
    exported = write(
        found, ENGINES[engine], request, run, allow=allow, registry=None if refit else registry, server=known
    )
    record = exported.numbers.record
    chosen = [note for note in exported.numbers.notes if note not in record.notes]
    for remark in (*chosen, *exported.remarks):
        click.echo(text.paragraph(remark, bullet="Note: "), err=True)
    if out is None:
        click.echo(exported.text, nl=False)
        return
    from easyteacache.files import atomic_write

    atomic_write.write_text(out, exported.text)
    click.echo(f"Wrote {out}.", err=True)


def _asked(
    sequence_length: int | None,
    steps: int | None,
    shift: float | None,
    threshold: float | None,
    speedup: float | None,
    max_error: float | None,
    quality: str | None,
) -> tuple[Request, RunContext]:
    from easyteacache.policy.request import request_and_run

    one_target(threshold, speedup, max_error, quality)
    return request_and_run(
        sequence_length=sequence_length,
        num_steps=steps,
        shift=shift,
        threshold=threshold,
        speedup=speedup,
        max_error=max_error,
        quality=quality,
    )


def _refitted(found: Found, run: RunContext, traces: Path) -> Found:
    """The record with its buckets replaced by one of order 4, non-negative and non-decreasing where the runs were."""
    from easyteacache.records.calibration import Calibration
    from easyteacache.records.trace_set import TraceSet
    from easyteacache.registry.registry import Found
    from easyteacache.solver.fit.bucket_fit import fit_bucket

    record = found.calibration
    runs = TraceSet.load(traces)
    keys = {run.header.model_key for run in runs}
    if not any(record.model_key == key or record.model_key.startswith(f"{key}/") for key in keys):
        raise click.UsageError(f"--traces hold runs of {', '.join(sorted(keys))}, not of {record.model_key}.")
    chosen = _nearest(runs, run)
    group = runs.group(*chosen)
    fitted = fit_bucket(list(group), record.signal, order=REFIT_ORDER)
    content = record.model_dump(mode="json")
    # The nearest old bucket gives window and operating points.
    old = min(content["buckets"], key=lambda bucket: abs((bucket["sequence_length"] or chosen[0]) - chosen[0]))
    assert fitted.chosen.coefficients is not None
    assert fitted.chosen.domain is not None
    old |= {"coefficients": list(fitted.chosen.coefficients), "domain": list(fitted.chosen.domain), "quality": None}
    old |= {"sequence_length": chosen[0], "num_steps": chosen[1], "shift": chosen[2]}
    content |= {"buckets": [old], "rescale_post": "none", "status": "draft", "retirement": None}
    content["notes"] = [
        f"Refitted with order {REFIT_ORDER} to {len(group)} runs, R² {fitted.quality.r2:g}; thresholds are those of the original "
        "polynomial and were not judged again.",
        *content["notes"],
    ]
    click.echo(text.paragraph(content["notes"][0], bullet="Note: "), err=True)
    return Found(Calibration.from_mapping(content, where=record.model_key), found.layer, found.asked, found.notes)


def _nearest(runs: TraceSet, run: RunContext) -> Setting:
    """The traces' setting that is asked for; the one with the most runs where nothing is asked."""
    settings = list(runs.settings())
    wanted = [
        one
        for one in settings
        if run.sequence_length in (None, one[0]) and run.num_steps in (None, one[1]) and run.shift in (None, one[2])
    ]
    if not wanted:
        listed = "; ".join(f"{one[0]} tokens, {one[1]} steps, shift {one[2]}" for one in settings)
        raise click.UsageError(f"--traces hold no runs of this setting. There are: {listed}.")
    return max(wanted, key=lambda one: len(runs.group(*one)))
