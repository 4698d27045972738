"""`easyteacache-hub verify`: is everything in a registry folder what it should be?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import json_option, open_registry

if TYPE_CHECKING:
    from easyteacache.hub.review.check_folder import Checked
    from easyteacache.hub.review.check_record import Finding

SHOWN = 50


@click.command("verify")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True), metavar="[PATH]...")
@click.option("--strict", is_flag=True, help="Fail on warnings too: what must not be published.")
@json_option
def verify(paths: tuple[Path, ...], strict: bool, as_json: bool) -> None:
    """Check registry folders, or single records, and say what is wrong with each file.

    Judges every record's format and invariants, its place in the folder, aliases used twice, and index.json against the records.
    Without PATH, every layer that a lookup searches. Exit code 0 when nothing is wrong, else 1.

    \b
    Examples:
      easyteacache-hub verify
      easyteacache-hub verify registry
      easyteacache-hub verify my-model.json --strict

    \b
    JSON: {"folders": [...]}; each with path, records, passed, findings (each
      rule, where, pointer, message, severity)
    """
    from tqdm import tqdm

    from easyteacache.hub.review import check_folder

    chosen = paths or tuple(layer.folder for layer in open_registry(None).layers)
    found: list[tuple[Path, Checked]] = []
    for path in chosen:
        with tqdm(unit="record", desc=str(path), leave=False, disable=True if as_json else None) as bar:
            found.append((path, check_folder.check(path, lambda _: bar.update())))
    passed = [not (checked.findings if strict else checked.errors) for _, checked in found]
    if as_json:
        text.echo_json({"folders": [_content(*one, ok) for one, ok in zip(found, passed, strict=True)]})
    else:
        for (path, checked), ok in zip(found, passed, strict=True):
            _show(path, checked, ok)
    if not all(passed):
        raise SystemExit(1)


def _content(path: Path, checked: Checked, passed: bool) -> dict[str, Any]:
    findings = [
        {name: getattr(finding, name) for name in ("rule", "where", "pointer", "message", "severity")}
        for finding in checked.findings
    ]
    return {"path": str(path), "records": checked.records, "passed": passed, "findings": findings}


def _show(path: Path, checked: Checked, passed: bool) -> None:
    state = click.style("passed", fg="green") if passed else click.style("refused", fg="red")
    errors = len(checked.errors)
    counts = (
        f"{checked.records} record{'' if checked.records == 1 else 's'}, {errors} error{'' if errors == 1 else 's'}"
    )
    warnings = len(checked.findings) - errors
    click.echo(f"{path}: {state} ({counts}, {warnings} warning{'' if warnings == 1 else 's'})")
    for finding in checked.findings[:SHOWN]:
        click.echo(_line(finding))
    if len(checked.findings) > SHOWN:
        click.echo(f"  … and {len(checked.findings) - SHOWN} more; --json lists all")


def _line(finding: Finding) -> str:
    return text.paragraph(str(finding), indent="  ", bullet="warning: " if finding.severity == "warning" else "error: ")
