"""Options of every command that talks to a hub."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from easyteacache.hub.remote import Remote

    Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def remote_options(command: Decorated) -> Decorated:
    """``--repo`` and ``--endpoint``; pass them to ``open_remote``."""
    options = (
        click.option(
            "--repo", metavar="ORG/NAME", help="Dataset repository of the registry.  [$EASYTEACACHE_REPOSITORY]"
        ),
        click.option(
            "--endpoint", metavar="URL", help="Address of the hub.  [$HF_ENDPOINT, else the Hugging Face Hub]"
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def rollback_option(command: Decorated) -> Decorated:
    """``--allow-rollback``."""
    return click.option(
        "--allow-rollback",
        is_flag=True,
        help="Take a commit that does not follow the newest one seen of this hub, too.",
    )(command)


def open_remote(repo: str | None, endpoint: str | None, *, offline: bool = False, anonymous: bool = False) -> Remote:
    """The repository that the options name; the arguments are those of ``Remote``.

    Raises:
        click.UsageError: none is named.
    """
    from easyteacache.hub.remote import ENVIRONMENT_REPOSITORY, Remote

    repository = repo or os.environ.get(ENVIRONMENT_REPOSITORY)
    if not repository:
        raise click.UsageError(f"which repository? Give --repo ORG/NAME or set {ENVIRONMENT_REPOSITORY}.")
    return Remote(repository, endpoint=endpoint, offline=offline, anonymous=anonymous)
