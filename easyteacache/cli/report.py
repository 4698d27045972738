"""`easyteacache report`: a calibration and its evidence as one page with pictures."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from easyteacache.cli.progress import bar


@click.command("report")
@click.argument("calibration", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--traces",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="DIR",
    help="Trace file or folder; may be repeated. All runs the calibration names.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder to write to."
)
def report(calibration: Path, traces: tuple[Path, ...], out: Path) -> None:
    """Draw CALIBRATION and its evidence: one HTML page that needs no other file, and its pictures as PNG.

    Shows per bucket the fitted pairs with domain and curves, error against speed-up for every forecaster, which steps are
    computed, and the distances along the run; then all buckets side by side and the verdict of `easyteacache validate`.

    \b
    Examples:
      easyteacache report my-model.json --traces traces --out report
    """
    if find_spec("matplotlib") is None:
        raise click.ClickException(
            'the report needs matplotlib, which is not installed: pip install "easyteacache[demo]"'
        )
    from easyteacache.records import calibration as records
    from easyteacache.records.trace_set import TraceSet
    from easyteacache.solver.report.page import DRAWINGS, write_report

    record = records.load(calibration)
    runs = TraceSet.load(*traces)
    with bar("picture", total=len(record.buckets) * (1 + len(DRAWINGS)) + 1) as shown:

        def tell(message: str) -> None:
            shown.set_description(message)
            shown.update()

        files, verdict = write_report(record, runs, out, progress=tell)
    click.echo(f"Wrote {files[0]} and {len(files) - 1} pictures.")
    if not verdict.passed:
        click.echo(f"The calibration is refused: {verdict.failures[0].rule}. The page says why.", err=True)
