"""`easyteacache-hub verify`: is everything in a registry folder what it should be?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import json_option, open_registry
from easyteacache.cli.progress import bar

if TYPE_CHECKING:
    from easyteacache.hub.review.check_folder import Checked
    from easyteacache.hub.review.check_record import Finding

SHOWN = 50


@click.command("verify")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True), metavar="[PATH]...")
@click.option("--strict", is_flag=True, help="Fail on warnings too: what must not be published.")
@click.option(
    "--signature",
    is_flag=True,
    help="Check who signed each folder's index, too: index.json.sigstore beside it, offline.",
)
@click.option(
    "--signer", metavar="IDENTITY", help="With --signature: who must have signed, as the certificate names it."
)
@click.option(
    "--issuer",
    metavar="URL",
    default="https://token.actions.githubusercontent.com",
    show_default=True,
    help="With --signature: who vouches for that identity.",
)
@json_option
def verify(
    paths: tuple[Path, ...], strict: bool, signature: bool, signer: str | None, issuer: str, as_json: bool
) -> None:
    """Check registry folders, or single records, and say what is wrong with each file.

    Judges every record's format and invariants, its place in the folder, aliases used twice, and index.json against the records.
    Without PATH, every layer that a lookup searches. Exit code 0 when nothing is wrong, else 1. With --signature, the index must be
    signed by --signer; it names every record by its hash.

    \b
    Examples:
      easyteacache-hub verify
      easyteacache-hub verify registry
      easyteacache-hub verify my-model.json --strict
      easyteacache-hub verify registry --signature --signer \\
          https://github.com/OWNER/REPO/.github/workflows/release.yml@refs/tags/v1

    \b
    JSON: {"folders": [...]}; each with path, records, passed, findings (each
      rule, where, pointer, message, severity)
    """
    from easyteacache.hub.review import check_folder

    if signature and not (paths and signer):
        raise click.UsageError("--signature needs folders and --signer, the identity that must have signed them.")
    chosen = paths or tuple(layer.folder for layer in open_registry(None).layers)
    found: list[tuple[Path, Checked]] = []
    for path in chosen:
        with bar("record", about=str(path), hidden=as_json) as shown:
            checked = check_folder.check(path, lambda _: shown.update())
        found.append((path, _signed(path, checked, signer, issuer) if signature else checked))
    passed = [not (checked.findings if strict else checked.errors) for _, checked in found]
    if as_json:
        text.echo_json({"folders": [_content(*one, ok) for one, ok in zip(found, passed, strict=True)]})
    else:
        for (path, checked), ok in zip(found, passed, strict=True):
            _show(path, checked, ok)
    if not all(passed):
        raise SystemExit(1)


def _signed(path: Path, checked: Checked, signer: str | None, issuer: str) -> Checked:
    """What was found, and what is wrong with the signature of the folder's index."""
    from easyteacache.hub import signature

    problem = signature.check(path, signer=signer or "", issuer=issuer)
    return checked if problem is None else replace(checked, findings=(*checked.findings, problem))


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
