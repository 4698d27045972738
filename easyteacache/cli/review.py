"""`easyteacache-hub review`: judge the records that a change adds or edits, as continuous integration does on a pull request."""

from __future__ import annotations

import os
from pathlib import Path

import click

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_PLACE = click.Path(exists=True, path_type=Path)


@click.command("review")
@click.option("--registry", type=_FOLDER, metavar="DIR", help="Changed registry folder.  [registry below --root]")
@click.option("--base", metavar="REV", default="origin/main", show_default=True, help="Commit it was changed from.")
@click.option("--base-folder", type=_FOLDER, metavar="DIR", help="Instead of a commit: the folder before the change.")
@click.option(
    "--traces",
    multiple=True,
    type=_PLACE,
    metavar="PATH",
    help="Trace file or folder; may be repeated.  [traces and tests/fixtures/traces below --root]",
)
@click.option("--heldout", multiple=True, type=_PLACE, metavar="PATH", help="Runs that submitters have not seen.")
@click.option("--force-reason", metavar="TEXT", help="Why records worse than the published ones are accepted.")
@click.option(
    "--root", type=_FOLDER, metavar="DIR", default=Path(), help="Repository that files are named relative to.  [.]"
)
@click.option(
    "--summary",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Append the verdict to this file.",
)
@click.option("--github", is_flag=True, help="Print GitHub annotations; append the verdict to $GITHUB_STEP_SUMMARY.")
def review(
    registry: Path | None,
    base: str,
    base_folder: Path | None,
    traces: tuple[Path, ...],
    heldout: tuple[Path, ...],
    force_reason: str | None,
    root: Path,
    page: Path | None,
    github: bool,
) -> None:
    """Judge a changed registry folder against the one it was changed from.

    Checks every record that is new or changed, its traces, the index, and what was deleted, by the rules that `push` and the
    public registry's pull requests go by. Prints the verdict as Markdown; exit code 1 when the change is refused.

    \b
    Examples:
      easyteacache-hub review --base origin/main
      easyteacache-hub review --base-folder before --traces my-traces
    """
    from easyteacache.cli.judging import judge_of
    from easyteacache.hub.review import review as reviewing

    registry = registry or root / "registry"
    if not registry.is_dir():
        raise click.UsageError(f"{registry} is no folder: name the changed registry folder with --registry")
    before = reviewing.FolderBase(base_folder) if base_folder else reviewing.GitBase(registry, base)
    places = traces or tuple(filter(Path.is_dir, (root / "traces", root / "tests" / "fixtures" / "traces")))
    found = reviewing.review(registry, before, traces=places, judge=judge_of(heldout), force_reason=force_reason)
    verdict = reviewing.summary(found)
    click.echo(verdict)
    if github:
        for line in reviewing.github_annotations(found, root):
            click.echo(line)
    summary = os.environ.get("GITHUB_STEP_SUMMARY") if github else None
    for place in [one for one in (page, Path(summary) if summary else None) if one is not None]:
        with place.open("a", encoding="utf-8") as file:
            file.write(verdict)
    raise SystemExit(1 if found.errors else 0)
