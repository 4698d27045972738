"""`easyteacache comfyui`: put the node pack into a ComfyUI, take it out, and ask what it did."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import json_option

ACTIONS = ("install", "uninstall", "status")


@click.command("comfyui")
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--link",
    is_flag=True,
    help="install: link the pack instead of copying it, so that updates of this package reach it.",
)
@json_option
def comfyui(action: str, folder: Path | None, link: bool, as_json: bool) -> None:
    """Put the node pack into the ComfyUI that lies in FOLDER, take it out of there, or tell what it did last.

    ComfyUI has to run in the Python environment that this package is installed in; restart it afterwards.

    \b
    Examples:
      easyteacache comfyui install ~/ComfyUI
      easyteacache comfyui status ~/ComfyUI
      easyteacache comfyui uninstall ~/ComfyUI

    \b
    JSON: install and uninstall {"folder", "done"}; status {"installed", "last"}
    """
    from easyteacache.integrations.comfyui import install as packs
    from easyteacache.integrations.comfyui.status import status

    if action == "status":
        found = status(folder)
        if as_json:
            content = dataclasses.asdict(found)
            text.echo_json({**content, "installed": None if found.installed is None else os.fspath(found.installed)})
            return
        click.echo(found.text)
        return
    if folder is None:
        raise click.UsageError(f"{action} needs FOLDER, the one that ComfyUI lies in")
    if action == "install":
        where, done = packs.install(folder, link=link), True
        said = f"Installed into {where}; restart ComfyUI and look for EasyTeaCache among its nodes."
    else:
        where, done = packs.custom_nodes(folder) / packs.FOLDER, packs.uninstall(folder)
        said = f"Taken out of {where}." if done else f"Nothing lies at {where}."
    if as_json:
        text.echo_json({"folder": os.fspath(where), "done": done})
        return
    click.echo(said)
