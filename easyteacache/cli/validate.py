"""`easyteacache validate`: is a calibration what its traces say, and better than what needs none?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from easyteacache.cli import text

if TYPE_CHECKING:
    from easyteacache.solver.validation.verdict import Report


@click.command("validate")
@click.argument("calibration", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--traces",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="DIR",
    help="Trace file or folder; may be repeated. All runs the calibration names, no others.",
)
@click.option(
    "--incumbent",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The record it would replace; it must not be better.",
)
@click.option("--write", is_flag=True, help="Store the status `validated` in the file when it passes.")
@click.option("--json", "as_json", is_flag=True, help="Print the keys listed above as JSON.")
def validate(calibration: Path, traces: tuple[Path, ...], incumbent: Path | None, write: bool, as_json: bool) -> None:
    """Judge CALIBRATION on its traces; exit code 0 when it passes, 1 when it is refused.

    Refits it from the calibration runs and requires the same numbers, then replays every operating point on the held-out runs,
    beside evenly spaced steps, the gate without a fit, sampling with fewer steps, and the incumbent. Which runs are held out
    follows from their content. Every rule, its limit and its reason stand in docs/solver.md.

    \b
    Examples:
      easyteacache validate my-model.json --traces traces
      easyteacache validate my-model.json --traces traces --write
      easyteacache validate new.json --traces traces --incumbent old.json --json

    \b
    JSON: passed, model_key, calibration_runs, heldout_runs, findings (each
      rule, passed, where, found, limit, message), points (each where, gate,
      filling, computed, speedup, error, p90, baselines)
    """
    from easyteacache.solver.validation.validate import validate_files

    report = validate_files(calibration, traces, incumbent)
    if as_json:
        text.echo_json(report.as_json())
    else:
        click.echo(_coloured(report))
    if not report.passed:
        raise SystemExit(1)
    if write:
        _write(calibration, traces)
        click.echo(f"\n{calibration} is now validated.", err=as_json)


def _coloured(report: Report) -> str:
    first, _, rest = report.text().partition("\n")
    return click.style(first, fg="green" if report.passed else "red", bold=True) + "\n" + rest


def _write(path: Path, traces: tuple[Path, ...]) -> None:
    from easyteacache.records import calibration as records
    from easyteacache.records.trace_set import TraceSet

    record = records.load(path)
    origin = record.provenance.model_copy(update={"traces": TraceSet.load(*traces).files})
    # Through the constructor, so that the record's own rules for this status apply.
    content = record.model_copy(update={"status": "validated", "provenance": origin}).to_json()
    records.save(records.Calibration.from_json(content, where=str(path)), path)
