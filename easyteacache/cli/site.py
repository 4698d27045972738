"""`easyteacache-hub site`: the registry as a static web site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import json_option, open_registry
from easyteacache.cli.progress import bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from easyteacache.catalogue.models import RecordShown


@click.command("site")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder to write."
)
@click.option(
    "--registry",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Show this registry folder and no other layer.",
)
@click.option(
    "--traces",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="PATH",
    help="Trace file or folder; records whose traces are all there get a report. May be repeated.",
)
@click.option(
    "--engines",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="What engines ship, as tools/audit_engines.py writes it.  [that of this package]",
)
@json_option
def site(out: Path, registry: Path | None, traces: tuple[Path, ...], engines: Path | None, as_json: bool) -> None:
    """Write the registry as a static web site: a table of all models, a page a model, badges, data.

    The site needs no server and asks none: it works from the file system, below any path, without scripts, too. Records that cannot be
    read are left out and named.

    \b
    Examples:
      easyteacache-hub site --out site
      easyteacache-hub site --out site --registry registry --traces traces

    \b
    JSON: folder, models, records, settings, files, damaged (each key, reason)
    """
    from easyteacache.catalogue.site import build
    from easyteacache.registry.registry import Layer, Registry

    shown = open_registry(None) if registry is None else open_registry(registry)
    if registry is not None:
        # One damaged file must not keep the others from being shown.
        shown = Registry([Layer(layer.name, layer.folder, around=True) for layer in shown.layers])
    with bar("model", total=None, hidden=as_json) as progress:
        built = build(shown, out, audit=engines, reports=_reports(traces), progress=lambda _: progress.update())
    damaged = {one.key: one.reason for one in built.damaged}
    damaged |= {key: str(error) for layer in shown.layers for key, error in layer.damaged.items()}
    if as_json:
        told = {name: getattr(built, name) for name in ("models", "records", "settings", "files")}
        listed = [{"key": key, "reason": reason} for key, reason in damaged.items()]
        text.echo_json({"folder": str(built.folder), **told, "damaged": listed})
        return
    click.echo(f"Wrote {built.files} files: {built.models} models, {built.records} records, {built.settings} settings.")
    click.echo(f"Open {built.folder / 'index.html'}")
    for key, reason in damaged.items():
        click.echo(text.paragraph(f"{key} was left out: {reason}", bullet="Warning: "), err=True)


def _reports(traces: tuple[Path, ...]) -> Callable[[RecordShown, Path], bool]:
    """What writes the report of a record whose traces are all at hand."""
    if not traces:
        return lambda record, page: False
    from easyteacache.hub.review.check_submission import TraceFiles
    from easyteacache.records.trace_set import TraceSet
    from easyteacache.solver.report.page import write_page

    files = TraceFiles(traces)

    def write(record: RecordShown, page: Path) -> bool:
        named = record.calibration.provenance.traces
        found = [path for reference in named if (path := files.find(reference)[0]) is not None]
        if not named or len(found) < len(named):
            return False
        write_page(record.calibration, TraceSet.load(*found), page)
        return True

    return write
