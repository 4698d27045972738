"""`easyteacache-hub where`: the registry layers, in the order in which a lookup searches them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import json_option, open_registry, registry_option

if TYPE_CHECKING:
    from easyteacache.registry.registry import Layer


@click.command("where")
@registry_option
@json_option
def where(registry: Path | None, as_json: bool) -> None:
    """Show the registry layers, first searched first, with their folders and what is wrong with them, and the lock in force.

    \b
    Examples:
      easyteacache-hub where
      EASYTEACACHE_REGISTRY=~/calibrations easyteacache-hub where --json

    \b
    JSON: {"layers": [...], "notes": [...], "home", "lock", "environment"};
      each layer with name, folder, records (null when unreadable), indexed,
      problem; home is null where this user has none
    """
    from easyteacache.registry.lock_file import ENVIRONMENT_LOCK
    from easyteacache.registry.registry import ENVIRONMENT_FOLDERS, ENVIRONMENT_HOME

    chosen = open_registry(registry)
    layers = [_content(layer) for layer in chosen.layers]
    environment = {name: os.environ.get(name) for name in (ENVIRONMENT_FOLDERS, ENVIRONMENT_HOME, ENVIRONMENT_LOCK)}
    locked = None if chosen.lock_path is None else os.fspath(chosen.lock_path.absolute())
    mine, notes = _home(), list(chosen.missing_layers)
    if as_json:
        text.echo_json({"layers": layers, "notes": notes, "home": mine, "lock": locked, "environment": environment})
        return
    for place, one in enumerate(layers, 1):
        records = "unreadable" if one["records"] is None else f"{one['records']} records"
        named = "" if one["name"] == one["folder"] else f"{one['name']}: "
        click.echo(f"{place}. {named}{records}{'' if one['indexed'] else ', no index'}")
        click.echo(text.path(one["folder"], indent="   "))
        if one["problem"]:
            click.echo(text.paragraph(one["problem"], indent="   ", bullet="problem: "))
    for note in notes:
        click.echo(text.paragraph(note, indent="   ", bullet="note: "))
    if mine is not None:
        click.echo("\nThis machine's own layers, local and pulled, belong in")
        click.echo(text.path(mine, indent="   "))
    if locked:
        click.echo("Lookups obey a lock, and what it does not list is refused:")
        click.echo(text.path(locked, indent="   "))
    for name, value in environment.items():
        if value is not None:
            click.echo(f"{name}\n{text.path(value, indent='   ')}")


def _home() -> str | None:
    """Where this machine's own layers belong; None where this user has no home."""
    from easyteacache.errors import InvalidCalibration
    from easyteacache.registry.registry import home

    try:
        return os.fspath(home())
    except InvalidCalibration:
        return None


def _content(layer: Layer) -> dict[str, Any]:
    from easyteacache.errors import EasyTeaCacheError
    from easyteacache.registry import index

    problem, records = None, None
    try:
        records = len(layer.index.records)
        problem = "; ".join(str(error) for error in layer.damaged.values()) or None
    except (EasyTeaCacheError, OSError) as error:
        problem = str(error)
    return {
        "name": layer.name,
        "folder": os.fspath(layer.folder),
        "records": records,
        "indexed": (layer.folder / index.FILE_NAME).is_file(),
        "problem": problem,
    }
