"""A click group whose commands are imported only when they run, and which ends every failure the same way.

`--help`, completion and a command that needs little must not pay for torch because another command does.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from easyteacache.cli import text, unexpected
from easyteacache.cli.warned import warnings_as_lines
from easyteacache.errors import EasyTeaCacheError, EasyTeaCacheWarning
from easyteacache.files import plain_marks

TRACEBACK = "EASYTEACACHE_TRACEBACK"
INTERRUPTED = 130


class LazyCommand(NamedTuple):
    """One line of a group's table.

    Attributes:
        target: ``"module:attribute"`` of the click command.
        summary: one line for the group's help; the command itself is not imported for it.
    """

    target: str
    summary: str


class Failure(click.ClickException):
    """What a project error becomes on a terminal: ``Error: …`` on stderr, exit code 1."""

    exit_code = 1


class LazyGroup(click.Group):
    """A group over a table of commands, name → ``LazyCommand``.

    Every error ends as one sentence on stderr with exit code 1 (2 for wrong usage, as click does), Ctrl-C with exit code 130, a
    closed pipe silently; a warning of this project is a line on stderr. ``--debug`` anywhere on the command line, or
    ``EASYTEACACHE_TRACEBACK=1``, lets errors through.

    Args:
        table: the commands.
        sibling: the other program and its group's target.
        shared: the other program's commands that this one offers too; their help calls this program.
    """

    def __init__(
        self,
        *args: Any,
        table: Mapping[str, LazyCommand],
        sibling: tuple[str, str] | None = None,
        shared: Mapping[str, LazyCommand] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.shared = dict(shared or {})
        self.table = dict(sorted({**table, **self.shared}.items()))
        self._sibling = sibling
        self.params.append(
            click.Option([unexpected.DEBUG], is_flag=True, expose_value=False, help="Show the traceback of an error.")
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take ``--debug`` from wherever it stands."""
        end = args.index("--") if "--" in args else len(args)
        if unexpected.DEBUG in args[:end]:
            ctx.meta[unexpected.DEBUG] = True
            args = [argument for argument in args[:end] if argument != unexpected.DEBUG] + args[end:]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The table's names, sorted."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command ``cmd_name``; None when the table has no such line."""
        if cmd_name not in self.table:
            return None
        command = _load(self.table[cmd_name].target)
        return self._renamed(command) if cmd_name in self.shared else command

    def _renamed(self, command: click.Command) -> click.Command:
        assert self._sibling is not None
        pattern = rf"\b{re.escape(self._sibling[0])} (?=(?:{'|'.join(self.shared)})\b)"
        renamed = copy.copy(command)
        renamed.help = re.sub(pattern, f"{self.name} ", command.help or "")
        return renamed

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command named first; a name that is not in the table is answered with what may have been meant."""
        if args and args[0] not in self.table and (hint := self._hint(args[0])):
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def _hint(self, name: str) -> str | None:
        if self._sibling is not None:
            program, target = self._sibling
            other = _load(target)
            if isinstance(other, LazyGroup) and name in other.table:
                return f"It is a command of {program}: {program} {name}"
        close = difflib.get_close_matches(name, self.table, n=1)
        return f"Did you mean {close[0]!r}?" if close else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table's one-line summaries."""
        if self.table:
            with formatter.section("Commands"):
                formatter.write_dl([(name, line.summary) for name, line in self.table.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete command names from the table, options as click does."""
        names = [
            CompletionItem(name, help=line.summary) for name, line in self.table.items() if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; the console scripts call this."""
        for stream in (sys.stdout, sys.stderr):
            # A terminal that cannot show '█' or '…' shows '#' and '...' instead of a traceback.
            with contextlib.suppress(AttributeError, ValueError, OSError):
                stream.reconfigure(errors=plain_marks.HANDLER)  # type: ignore[union-attr]
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command and turn what it raises into an exit code and one line."""
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        with warnings_as_lines():
            return self._run(ctx)

    def _run(self, ctx: click.Context) -> Any:
        if os.environ.get(TRACEBACK) or ctx.meta.get(unexpected.DEBUG):
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)
        except (EasyTeaCacheError, EasyTeaCacheWarning) as error:
            # A warning is raised only where the caller's `-W error` asks for it.
            raise Failure(text.plain(str(error))) from error
        except (BrokenPipeError, click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except OSError as error:
            raise Failure(text.plain(_reason(error))) from error
        except Exception as error:
            raise Failure(unexpected.sentence(error)) from error


def _load(target: str) -> click.Command:
    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command


def _reason(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
