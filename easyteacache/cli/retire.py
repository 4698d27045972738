"""`easyteacache-hub deprecate` and `yank`: take a record out of use without deleting it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from easyteacache.cli.parameters import MODEL_KEY
from easyteacache.cli.remote_options import open_remote, remote_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from easyteacache.hub.retire import Retired

    Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _options(command: Decorated) -> Decorated:
    options = (
        click.argument("key", type=MODEL_KEY),
        click.option("--reason", required=True, metavar="TEXT", help="Why, in one or two sentences."),
        click.option("--replacement", metavar="KEY", help="Calibration to use instead."),
        click.option(
            "--registry",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            metavar="FOLDER",
            help="Change this registry folder instead of proposing the change to a hub.",
        ),
        remote_options,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("deprecate")
@_options
def deprecate(**options: Any) -> None:
    """Say that a calibration should no longer be used; lookups still find it, with a note.

    Proposes the change as a pull request, or makes it in a registry folder. The record keeps its numbers, gets the next revision,
    and says when, why and what to use instead.

    \b
    Examples:
      easyteacache-hub deprecate tiny/video --reason "Refitted." \\
          --replacement tiny/video-2 --repo team/calibrations
      easyteacache-hub deprecate tiny/video --reason "Old." --registry registry
    """
    _retire("deprecated", **options)


@click.command("yank")
@_options
def yank(**options: Any) -> None:
    """Say that a calibration must not be used; resolving it is an error from then on.

    As `deprecate`, but final: only callers that pass allow_yanked=True can use the record, and it never comes back under its key.

    \b
    Examples:
      easyteacache-hub yank tiny/video --reason "Fitted to the wrong signal." \\
          --repo team/calibrations
      easyteacache-hub yank tiny/video --reason "Wrong." --registry registry
    """
    _retire("yanked", **options)


def _retire(
    status: Retired,
    key: str,
    reason: str,
    replacement: str | None,
    registry: Path | None,
    repo: str | None,
    endpoint: str | None,
) -> None:
    from easyteacache.hub import retire

    if registry is not None:
        path = retire.retire_in_folder(registry, key, status, reason=reason, replacement=replacement)
        click.echo(f"{path}: {status}")
        return
    sent = retire.propose(open_remote(repo, endpoint), key, status, reason=reason, replacement=replacement)
    click.echo(f"{sent.state.capitalize()}: {sent.url}")
