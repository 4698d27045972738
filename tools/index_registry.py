"""Generate ``registry/index.json`` from the records, or check that it is fresh.

python tools/index_registry.py            # write it when it changed
python tools/index_registry.py --check    # exit 1 and name what differs, write nothing
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from easyteacache.errors import EasyTeaCacheError
from easyteacache.registry import index
from easyteacache.registry.index import Index

REGISTRY = Path(__file__).resolve().parent.parent / "registry"


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Exit 1 when the index is stale, naming the records; write nothing.")
@click.option(
    "--registry",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=REGISTRY,
    help="Registry folder.",
)
def main(check: bool, folder: Path) -> None:
    """Entry point."""
    try:
        found = index.build(folder)
        differing = differences(folder, found)
    except EasyTeaCacheError as error:
        raise click.ClickException(str(error)) from error
    if not differing:
        click.echo(f"{folder / index.FILE_NAME} is fresh: {len(found.records)} records")
    elif check:
        for line in differing:
            click.echo(line, err=True)
        click.echo(f"{folder / index.FILE_NAME} is stale: run python tools/index_registry.py", err=True)
        sys.exit(1)
    else:
        index.write(folder, found)
        click.echo(f"wrote {folder / index.FILE_NAME}: {len(found.records)} records")


def differences(folder: Path, fresh: Index) -> list[str]:
    """One line for each way in which the index on disk differs from the records."""
    path = folder / index.FILE_NAME
    if not path.exists():
        return [f"{path}: missing"]
    if path.read_bytes() == fresh.to_json().encode():
        return []
    try:
        known = index.read(folder)
    except EasyTeaCacheError as error:
        return [str(error)]
    assert known is not None
    keys = sorted(known.records.keys() | fresh.records.keys())
    changed = [key for key in keys if known.records.get(key) != fresh.records.get(key)]
    return [f"{key}: {_change(key, known, fresh)}" for key in changed] or [f"{path}: not in its canonical spelling"]


def _change(key: str, known: Index, fresh: Index) -> str:
    if key not in fresh.records:
        return "listed, but its file is gone"
    return "changed since it was listed" if key in known.records else "not listed"


if __name__ == "__main__":
    main()
