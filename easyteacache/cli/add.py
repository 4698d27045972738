"""`easyteacache add`: file a record in the local layer by hand."""

from __future__ import annotations

import os
from pathlib import Path

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import json_option


@click.command("add")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--traces",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="DIR",
    help="Judge the record on its traces first, as `easyteacache validate` does; may be repeated.",
)
@click.option("--force", is_flag=True, help="Replace another record of this key.")
@json_option
def add(file: Path, traces: tuple[Path, ...], force: bool, as_json: bool) -> None:
    """File a calibration in the local layer, under its own model key, where every lookup on this machine finds it.

    FILE is checked as strictly as anything that is published; with --traces it is judged on its runs, too. Another record of the
    same key is never overwritten without --force.

    \b
    Examples:
      easyteacache add my-model.json
      easyteacache add my-model.json --traces traces --force

    \b
    JSON: model_key, revision, status, filed
    """
    from easyteacache.calibrating.filing import file_record
    from easyteacache.files import strict_json
    from easyteacache.hub.review.check_record import check_record
    from easyteacache.records import parsing
    from easyteacache.records.calibration import Calibration
    from easyteacache.solver.validation.validate import validate_files

    data = parsing.read_file(file, rules="record", max_bytes=strict_json.MAX_BYTES)
    wrong = [finding for finding in check_record(data, str(file)) if finding.severity == "error"]
    if wrong:
        for finding in wrong:
            click.echo(text.paragraph(str(finding), bullet="refused: "), err=True)
        raise click.ClickException(f"{file} was not filed: it breaks {len(wrong)} rules of the format")
    if traces:
        report = validate_files(file, traces)
        if not report.passed:
            click.echo(report.text(), err=True)
            raise click.ClickException(f"{file} was not filed: it does not pass on its traces")
    record = Calibration.from_json(data, where=str(file))
    filed = file_record(record, replace=force)
    if as_json:
        content = {"model_key": record.model_key, "revision": record.revision, "status": record.status}
        text.echo_json({**content, "filed": os.fspath(filed)})
        return
    click.echo(f"Filed {record.model_key}, revision {record.revision} ({record.status}):")
    click.echo(text.path(os.fspath(filed), indent="  "))
