"""`easyteacache-hub identify`: whose coefficients are these?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import json_option, open_registry, registry_option
from easyteacache.files import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from easyteacache.audit.known_coefficients import Known
    from easyteacache.audit.recognition import Match

STDIN = "-"


@click.command("identify")
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "--misfiled", "only_misfiled", is_flag=True, help="Only lists filed under a model they were not fitted to."
)
@registry_option
@json_option
def identify(targets: tuple[str, ...], only_misfiled: bool, registry: Path | None, as_json: bool) -> None:
    """Name the calibration that each list of numbers in TARGET belongs to.

    TARGET is a file, a folder with sources and configurations, the numbers themselves, or - for standard input. A list is
    recognised exactly, rounded, with one coefficient changed, without its signs, or in the other order; and the names around
    it tell whether it is filed under the model it was fitted to.

    \b
    Examples:
      easyteacache-hub identify engine/teacache.py
      easyteacache-hub identify --misfiled path/to/engine
      easyteacache-hub identify "498.651651, -283.781631, 55.8554382,
        -3.82021401, 0.264230861"

    \b
    JSON: {"matches": [...], "skipped": [...]}; each match with
      file, line, numbers, names, kind (exact, rounded, near, unsigned),
      lowest_first, model_key, title, origin, note, difference, filing,
      filed_under, misfiled, documented; each skipped with file, reason
    """
    from easyteacache.audit.known_coefficients import Known
    from easyteacache.registry.registry import Registry

    # A lock says what this folder runs with, not whose numbers may be recognised.
    known = Known.from_calibrations(Registry(open_registry(registry).layers).values())
    skipped: list[tuple[str, str]] = []

    def skip(file: str, reason: str) -> None:
        skipped.append((file, reason))

    matches = [match for target in targets for match in _matches(target, known, skip)]
    if only_misfiled:
        matches = [match for match in matches if match.misfiled]
    if as_json:
        files = [{"file": file, "reason": reason} for file, reason in skipped]
        text.echo_json({"matches": [match.to_dict() for match in matches], "skipped": files})
        return
    for match in matches:
        click.echo(text.paragraph(console.escaped(str(match))))
    for file, reason in skipped:
        click.echo(console.escaped(f"skipped {file}: {reason}"), err=True)
    if not matches:
        click.echo("No known list of coefficients found.", err=True)


def _matches(target: str, known: Known, skipped: Callable[[str, str], None]) -> Iterable[Match]:
    from easyteacache.audit.recognition import find_literals, identify_path, identify_text

    if target == STDIN:
        return identify_text(sys.stdin.read(), known)
    if _exists(target):
        try:
            return list(identify_path(target, known, skipped=skipped))
        except ValueError as error:
            raise click.ClickException(console.escaped(f"{target}: {error}")) from error
    if not any(len(found.numbers) > 1 for found in find_literals(target)):
        raise click.BadParameter(f"{target!r} is no file or folder, and no list of numbers", param_hint="TARGET")
    return identify_text(target, known)


def _exists(target: str) -> bool:
    try:
        return Path(target).exists()
    except (OSError, ValueError):  # A long list of numbers is no file name.
        return False
