"""`easyteacache-hub audit`: borrowed, mistyped and misused coefficients in a source tree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import open_registry, registry_option
from easyteacache.files import console

if TYPE_CHECKING:
    from easyteacache.audit.scan import TreeAudit

FORMATS = ("text", "json", "sarif", "github")
FAIL_ON = ("error", "warning", "note", "never")


@click.command("audit")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="What to print.")
@click.option(
    "--fail-on",
    type=click.Choice(FAIL_ON),
    default="warning",
    show_default=True,
    help="Exit with 1 when a finding is at least this bad.",
)
@click.option("--all", "show_all", is_flag=True, help="Name every list that was recognised, too.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [standard output]")
@registry_option
@click.pass_context
def audit(
    ctx: click.Context, path: Path, form: str, fail_on: str, show_all: bool, out: Path | None, registry: Path | None
) -> None:
    """Find coefficient lists below PATH that are not what they stand for.

    Names the record of each list in sources and configurations (Python, JSON, YAML, TOML and others). Errors: borrowed from
    another model, a coefficient mistyped, signs lost. Warnings: another variant's, |p(x)| where the authors take p(x) or the
    reverse, retired or superseded. Notes: rounded, lowest degree first.

    A file .easyteacache-audit-ignore in PATH or above holds patterns of files to pass over; the comment
    "easyteacache-audit: ignore" beside a list, or "ignore[RULE]", passes over that list.

    \b
    Examples:
      easyteacache-hub audit path/to/engine
      easyteacache-hub audit . --format github --fail-on error
      easyteacache-hub audit . --format sarif --out audit.sarif

    \b
    JSON: findings (each rule, level, file, line, message, model_key, kind,
      filed_under, difference, fingerprint), recognised (as in identify),
      files, ignored
    """
    from easyteacache.audit.scan import audit as run

    def skip(file: str, reason: str) -> None:
        click.echo(console.escaped(f"skipped {file}: {reason}"), err=True)

    try:
        report = run(path, open_registry(registry), skipped=skip)
    except ValueError as error:
        raise click.ClickException(console.escaped(f"{path}: {error}")) from error
    content = _printed(report, form, show_all)
    if out is None:
        click.echo(content, nl=False)
    else:
        from easyteacache.files import atomic_write

        atomic_write.write_text(out, content)
    ctx.exit(1 if _fails(report, fail_on) else 0)


def _printed(report: TreeAudit, form: str, show_all: bool) -> str:
    from easyteacache.audit import output
    from easyteacache.files import strict_json

    root = Path.cwd()
    if form == "json":
        return strict_json.spell(output.as_json(report))
    if form == "sarif":
        return strict_json.spell(output.as_sarif(report, root=root))
    if form == "github":
        return "".join(f"{text.plain(line)}\n" for line in output.github_lines(report, root=root))
    lines = [*(output.recognised_lines(report) if show_all else ()), *output.text_lines(report)]
    return "".join(f"{console.escaped(line)}\n" for line in lines)


def _fails(report: TreeAudit, fail_on: str) -> bool:
    from easyteacache.audit.scan import LEVELS

    worst = report.worst()
    return worst is not None and fail_on != "never" and LEVELS.index(worst) <= FAIL_ON.index(fail_on)
