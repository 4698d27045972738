"""`easyteacache-hub index`: make a registry folder's table of contents, or check that it is fresh."""

from __future__ import annotations

from pathlib import Path

import click

from easyteacache.cli import text


@click.command("index")
@click.option(
    "--registry",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("registry"),
    show_default=True,
    metavar="FOLDER",
    help="Registry folder.",
)
@click.option("--check", is_flag=True, help="Exit 1 when the index is stale, naming the records; write nothing.")
def index(folder: Path, check: bool) -> None:
    """Write FOLDER/index.json from the records below FOLDER, where it has changed.

    Lookups and pulls read the index instead of every record, so a folder that others read needs a fresh one.

    \b
    Examples:
      easyteacache-hub index
      easyteacache-hub index --registry my-registry --check
    """
    from easyteacache.hub.review.stale_index import differences
    from easyteacache.registry import index as indices

    path = folder / indices.FILE_NAME
    found = indices.build(folder)
    differing = differences(folder, found)
    count = f"{len(found.records)} record{'' if len(found.records) == 1 else 's'}"
    if not differing:
        click.echo(f"{path} is fresh: {count}")
    elif check:
        for line in differing:
            click.echo(text.plain(line), err=True)
        raise click.ClickException(f"{path} is stale: run easyteacache-hub index --registry {folder}")
    else:
        indices.write(folder, found)
        click.echo(f"wrote {path}: {count}")
