"""`completion`: the script that a shell sources to complete commands, options and model keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

if TYPE_CHECKING:
    from easyteacache.cli.lazy import LazyGroup

SHELLS = ("bash", "zsh", "fish")
_shell = click.argument("shell", type=click.Choice(SHELLS))


@click.command("completion")
@_shell
def main_completion(shell: str) -> None:
    """Print the completion script of SHELL for easyteacache.

    \b
    Examples:
      source <(easyteacache completion bash)
      easyteacache completion zsh > ~/.zfunc/_easyteacache
      easyteacache completion fish | source
    """
    from easyteacache.cli.main import main

    click.echo(script(main, "easyteacache", shell))


@click.command("completion")
@_shell
def hub_completion(shell: str) -> None:
    """Print the completion script of SHELL for easyteacache-hub.

    \b
    Examples:
      source <(easyteacache-hub completion bash)
      easyteacache-hub completion zsh > ~/.zfunc/_easyteacache-hub
      easyteacache-hub completion fish | source
    """
    from easyteacache.cli.hub import main

    click.echo(script(main, "easyteacache-hub", shell))


def script(group: LazyGroup, program: str, shell: str) -> str:
    """The completion script of ``program`` for one of ``SHELLS``; click asks the program itself for the words."""
    kind = get_completion_class(shell)
    assert kind is not None
    variable = f"_{program}_COMPLETE".replace("-", "_").upper()
    return kind(group, {}, program, variable).source()
