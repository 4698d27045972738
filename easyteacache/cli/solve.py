"""`easyteacache solve`: traces in, a calibration out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli import text
from easyteacache.cli.lazy import INTERRUPTED
from easyteacache.cli.parameters import MODEL_KEY, loading_options
from easyteacache.cli.progress import bar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easyteacache.records.calibration import Calibration
    from easyteacache.records.trace_set import TraceSet
    from easyteacache.solver.fit.bucket_fit import BucketFit
    from easyteacache.solver.search.measured import Measure, Progress
    from easyteacache.solver.solve import Solution


@click.command("solve")
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Calibration file to write."
)
@click.option("--model-key", type=MODEL_KEY, help="Key of the record.  [that of the traces]")
@click.option("--part", metavar="NAME", help="Solve the runs of this expert only, such as high-noise.")
@click.option("--signal", metavar="NAME", help="Fit this signal.  [the one held-out runs speak for]")
@click.option(
    "--method",
    type=click.Choice(["monotone", "teacache", "auto"]),
    default="monotone",
    show_default=True,
    help="Form of the curve: non-decreasing polynomial; the paper's plain degree 4; or the better of both kinds.",
)
@click.option("--order", type=click.IntRange(1, 8), help="Fix the polynomial's order.  [chosen by cross-validation]")
@click.option("--robust", is_flag=True, help="Huber weights: runs that went wrong count less.")
@click.option(
    "--measure",
    "model",
    metavar="MODEL",
    help="Choose plans and fit their weights by sampling runs with MODEL, as given to `record`.  [traces alone decide]",
)
@click.option(
    "--measure-runs",
    type=click.IntRange(min=2),
    default=6,
    show_default=True,
    help="With --measure: the most runs that a plan is judged on; beyond those recorded, their prompts with further seeds.",
)
@click.option(
    "--measure-batch",
    type=click.IntRange(min=2),
    metavar="N",
    help="With --measure: sample N runs at once, fit the weights on the first N, and after every N go on with the plans alone "
    "that may still win.  [all of them]",
)
@click.option(
    "--measure-all",
    is_flag=True,
    help="With --measure: sample every candidate and every filling, a hundred plans and more.  [two schedules a speed-up, which takes "
    "as long as about ten times as many uncached runs as are judged on]",
)
@loading_options("With --measure: ")
@click.option("--title", help="The model's name as people write it.  [the key]")
@click.option(
    "--modality",
    type=click.Choice(["image", "video", "audio", "video-audio", "multimodal"]),
    help="What the model generates.  [image or video, by the frames of the traces]",
)
@click.option("--license", metavar="SPDX", help="Licence of the numbers, such as CC0-1.0.")
@click.option("--author", help="Who stands for the numbers.")
@click.option("--date", metavar="YYYY-MM-DD", help="Date of the fit.  [day of the last recording]")
@click.option("--note", "notes", multiple=True, help="What a user should know; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the keys listed above as JSON.")
def solve(
    traces: tuple[Path, ...],
    out: Path,
    part: str | None,
    model: str | None,
    measure_runs: int,
    measure_batch: int | None,
    measure_all: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Solve a calibration from TRACES, files or folders that `easyteacache record` wrote.

    Fits a curve and a sigma profile per sequence length, step count and shift, searches schedules and thresholds for speed-ups of
    1.25 to 5, and states the error of each on runs it kept aside. The record is a draft until `easyteacache validate --write`
    has judged it. The same traces and options always give the same file.

    With --measure, plans that correct computed steps are sampled with the model itself before one is chosen, and their weights are
    fitted to what they compute. How long that will take is said first, by one run that is timed. What was measured is kept in
    OUT.measured.json: the same command goes on where it was stopped.

    \b
    Examples:
      easyteacache solve traces --out my-model.json
      easyteacache solve a.safetensors b.safetensors --out my.json \\
          --model-key wan2.1/t2v-1.3b --license CC0-1.0
      easyteacache solve traces --out plain.json --method teacache
      easyteacache solve traces --out my-model.json --measure reference
      easyteacache solve traces --out wan.json --dtype bfloat16 \\
          --measure Wan-AI/Wan2.1-T2V-1.3B-Diffusers \\
          --measure-all --measure-runs 48 --measure-batch 8

    \b
    JSON: file, model_key, revision, signal, explains, signals (each bucket,
      signal, order, r2, heldout_r2, ceiling), points (each bucket, gate,
      forecaster, computed_steps, speedup, error, p90)
    """
    from easyteacache.records import calibration as records
    from easyteacache.records.trace_set import TraceSet
    from easyteacache.solver.fit.options import FitOptions
    from easyteacache.solver.search.measured import QUICK, THOROUGH
    from easyteacache.solver.solve import Labels
    from easyteacache.solver.solve import solve as solve_traces

    runs = TraceSet.load(*traces)
    runs = runs if part is None else runs.part(part)
    if not len(runs):
        raise click.UsageError(
            f"no runs{'' if part is None else f' of the expert {part!r}'} in {', '.join(map(str, traces))}"
        )
    previous = records.load(out) if out.exists() else None
    signal = choices.pop("signal")
    loading = {name: choices.pop(name) for name in ("dtype", "device", "offload")}
    options = FitOptions(choices.pop("method"), choices.pop("order"), choices.pop("robust"))
    kept_in = out.with_name(f"{out.name}.measured.json")
    try:
        with bar("bucket", total=len(runs.settings()), hidden=as_json) as shown:
            tell, measure = _telling(shown, lines=model is not None and not as_json), None
            if model is not None:
                size = {"runs": measure_runs, "batch": measure_batch}
                measure = _measure(model, runs, loading, **size, kept_in=kept_in, on_step=lambda: tell(""))
            solution = solve_traces(
                runs,
                signal=signal,
                options=options,
                labels=Labels(**choices),
                measure=measure,
                effort=THOROUGH if measure_all else QUICK,
                progress=tell,
            )
    except KeyboardInterrupt:
        if model is None or not kept_in.exists():
            raise
        click.echo(f"Stopped. What was sampled is in {kept_in}; the same command goes on.", err=True)
        click.get_current_context().exit(INTERRUPTED)
    record = _next_revision(solution.calibration, previous)
    records.save(record, out)
    if as_json:
        text.echo_json(_summary(solution, record, out))
        return
    click.echo("\n".join(_page(solution, record, runs)))
    click.echo(f"\nWrote {out}. Judge it next, and then use it:")
    click.echo(f"  easyteacache validate {out} --traces {' '.join(map(str, traces))}")
    click.echo(f'  TeaCache.from_file("{out}", speedup=2.0).attach(pipe)')
    if not solution.explains:
        click.echo(text.paragraph(f"Warning: {record.notes[-1]}"), err=True)


def _measure(model: str, recorded: TraceSet, loading: dict[str, Any], **sampling: Any) -> Measure:
    from easyteacache.calibrating.measuring import measure_with
    from easyteacache.cli.record import open_pipeline
    from easyteacache.solver.replay.fitted_weights import correctable
    from easyteacache.solver.replay.runs import Runs

    if not any(correctable(Runs.stack(recorded.group(*setting).runs)) for setting in recorded.settings()):
        raise click.UsageError(
            "--measure is for runs whose output was recorded, under a sampler whose steps are known and draw no noise, and none of "
            "these is one: solve them without it"
        )
    # In another number type it is not quite the same model.
    name = f"{model} in {loading['dtype']}" if loading["dtype"] else model
    return measure_with(open_pipeline(model, **loading), model=name, **sampling)


def _telling(shown: Any, *, lines: bool) -> Progress:
    """What the solver reports, on a bar that grows with every bucket; ``lines``: where there is no bar, and before it, as lines on stderr."""

    def tell(message: str) -> None:
        if message and lines and (shown.disable or "uncached run" in message):
            shown.write(message, file=sys.stderr)
        if message.startswith("solved"):
            shown.update()
        elif message:
            shown.set_description(message)
        else:
            shown.refresh()

    return tell


def _next_revision(record: Calibration, previous: Calibration | None) -> Calibration:
    """The record as the next revision of the file it replaces; the same one when nothing changed."""
    if previous is None or previous.model_key != record.model_key:
        return record
    same = record.model_copy(update={"revision": previous.revision, "status": previous.status})
    if same == previous:
        return previous
    return record.model_copy(update={"revision": previous.revision + 1})


def _page(solution: Solution, record: Calibration, runs: TraceSet) -> Iterator[str]:
    yield click.style(record.model_key, bold=True) + f"  revision {record.revision}, {record.status}, {len(runs)} runs"
    yield text.heading("Signals, R² on runs left out; the chosen one is marked")
    columns = [
        text.Column(""),
        text.Column("SIGNAL"),
        text.Column("LENGTH", align="right"),
        text.Column("STEPS", align="right"),
        text.Column("SHIFT", align="right"),
        text.Column("ORDER", align="right"),
        text.Column("R²", align="right"),
        text.Column("ANY CURVE", align="right"),
    ]
    yield text.table(columns, list(_signal_rows(solution, record)), indent="  ")
    yield text.heading("Operating points, error of the final sample on held-out runs")
    columns = [
        text.Column("LENGTH", align="right"),
        text.Column("STEPS", align="right"),
        text.Column("SPEED-UP", align="right"),
        text.Column("GATE"),
        text.Column("ERROR", align="right"),
        text.Column("P90", align="right"),
        text.Column("FILLED BY"),
    ]
    yield text.table(columns, list(_point_rows(record)), indent="  ")


def _signal_rows(solution: Solution, record: Calibration) -> Iterator[tuple[object, ...]]:
    for signal, fits in solution.fits.items():
        for bucket, fitted in zip(record.buckets, fits, strict=True):
            yield (
                "*" if signal == solution.signal else "",
                signal,
                bucket.sequence_length,
                bucket.num_steps,
                None if bucket.shift is None else f"{bucket.shift:g}",
                fitted.chosen.order,
                _r2(fitted),
                f"{fitted.ceiling:.3f}",
            )


def _r2(fitted: BucketFit) -> str | None:
    value = fitted.quality.heldout_r2
    return None if value is None else f"{value:.3f}"


def _point_rows(record: Calibration) -> Iterator[tuple[object, ...]]:
    for bucket in record.buckets:
        for point in bucket.operating_points:
            yield (
                bucket.sequence_length,
                f"{point.computed_steps}/{bucket.num_steps}",
                f"{point.speedup:.3g}x",
                "schedule" if point.threshold is None else text.number(point.threshold),
                text.number(None if point.error is None else point.error.mean, 3),
                text.number(None if point.error is None else point.error.p90, 3),
                f"{point.forecaster} of {point.applied_to}",
            )


def _summary(solution: Solution, record: Calibration, out: Path) -> dict[str, Any]:
    signals = [
        {
            "bucket": bucket.setting,
            "signal": signal,
            "order": fitted.chosen.order,
            "r2": fitted.quality.r2,
            "heldout_r2": fitted.quality.heldout_r2,
            "ceiling": fitted.ceiling,
        }
        for signal, fits in solution.fits.items()
        for bucket, fitted in zip(record.buckets, fits, strict=True)
    ]
    points = [
        {
            "bucket": bucket.setting,
            "gate": "schedule" if point.threshold is None else "threshold",
            "forecaster": point.forecaster,
            "computed_steps": point.computed_steps,
            "speedup": point.speedup,
            "error": None if point.error is None else point.error.mean,
            "p90": None if point.error is None else point.error.p90,
        }
        for bucket in record.buckets
        for point in bucket.operating_points
    ]
    return {
        "file": str(out),
        "model_key": record.model_key,
        "revision": record.revision,
        "signal": solution.signal,
        "explains": solution.explains,
        "signals": signals,
        "points": points,
    }
