"""Judge the records that a change adds or edits, as continuous integration does on a pull request that touches registry/.

python tools/validate_submission.py --base origin/main
python tools/validate_submission.py --base origin/main --traces DIR --github
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from easyteacache.cli.judging import judge_of
from easyteacache.errors import EasyTeaCacheError
from easyteacache.hub.review.review import FolderBase, GitBase, github_annotations, review, summary

ROOT = Path(__file__).resolve().parent.parent
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(help=__doc__)
@click.option("--registry", type=FOLDER, default=ROOT / "registry", help="Changed registry folder.")
@click.option("--base", metavar="REV", default="origin/main", show_default=True, help="Commit it was changed from.")
@click.option("--base-folder", type=FOLDER, help="Instead of a commit: a copy of the folder before the change.")
@click.option(
    "--traces",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Folder of trace files; may be repeated. Default: traces/ and tests/fixtures/traces/ of the repository.",
)
@click.option(
    "--heldout", multiple=True, type=click.Path(exists=True, path_type=Path), help="Runs submitters have not seen."
)
@click.option("--force-reason", help="Why records worse than the published ones are accepted.")
@click.option("--root", type=FOLDER, default=ROOT, help="Repository that annotations name files in.")
@click.option(
    "--summary", "page", type=click.Path(dir_okay=False, path_type=Path), help="Append the summary to this file."
)
@click.option("--github", is_flag=True, help="Print GitHub annotations; append the summary to $GITHUB_STEP_SUMMARY.")
def main(
    registry: Path,
    base: str,
    base_folder: Path | None,
    traces: tuple[Path, ...],
    heldout: tuple[Path, ...],
    force_reason: str | None,
    root: Path,
    page: Path | None,
    github: bool,
) -> None:
    """Entry point."""
    places = traces or tuple(filter(Path.is_dir, (ROOT / "traces", ROOT / "tests" / "fixtures" / "traces")))
    try:
        before = FolderBase(base_folder) if base_folder else GitBase(registry, base)
        found = review(registry, before, traces=places, judge=judge_of(heldout), force_reason=force_reason)
    except EasyTeaCacheError as error:
        raise click.ClickException(str(error)) from error
    text = summary(found)
    click.echo(text)
    if github:
        for line in github_annotations(found, root):
            click.echo(line)
        page = page or (Path(os.environ["GITHUB_STEP_SUMMARY"]) if os.environ.get("GITHUB_STEP_SUMMARY") else None)
    if page:
        with page.open("a", encoding="utf-8") as file:
            file.write(text)
    sys.exit(1 if found.errors else 0)


if __name__ == "__main__":
    main()
