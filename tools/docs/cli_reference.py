"""Generate the command reference in ``docs/cli.md`` from the commands themselves, or check that it is fresh.

python tools/docs/cli_reference.py            # write it when it changed
python tools/docs/cli_reference.py --check    # exit 1 when it is stale, write nothing
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from easyteacache.cli.hub import main as hub
from easyteacache.cli.main import main as program
from easyteacache.files import atomic_write

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
BEGIN, END = "<!-- generated: commands -->\n", "<!-- end of generated: commands -->"
PROGRAMS = {"easyteacache": program, "easyteacache-hub": hub}


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Exit 1 when the page is stale; write nothing.")
def main(check: bool) -> None:
    """Entry point."""
    present = PAGE.read_text(encoding="utf-8")
    fresh = with_reference(present)
    if fresh == present:
        click.echo(f"{PAGE.name} is fresh")
    elif check:
        click.echo(f"docs/{PAGE.name} is stale: run python tools/docs/cli_reference.py", err=True)
        sys.exit(1)
    else:
        atomic_write.write_text(PAGE, fresh)
        click.echo(f"wrote docs/{PAGE.name}")


def with_reference(page: str) -> str:
    """``page`` with its generated part replaced by the reference of every command."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise click.ClickException(f"docs/{PAGE.name}: expected the lines {BEGIN.strip()!r} and {END!r}")
    return f"{head}{BEGIN}\n{reference()}\n\n{END}{tail}"


def reference() -> str:
    """One section a command, subcommands after their group; what both programs offer is described once."""
    return "\n\n".join(
        f"### {name}\n\nThe same as [`easyteacache {child}`](#easyteacache-{child})."
        if owner == "easyteacache-hub" and child in program.shared
        else _section(name, command)
        for name, command in every_command()
        for owner, _, child in [name.partition(" ")]
        if child
    )


def every_command() -> Iterator[tuple[str, click.Command]]:
    """``("easyteacache-hub list", command)`` of everything that can be called, groups before their commands."""
    for name, group in PROGRAMS.items():
        yield from _below(name, group, click.Context(group, info_name=name))


def _below(name: str, command: click.Command, ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for child in command.list_commands(ctx):
            found = command.get_command(ctx, child)
            assert found is not None
            yield from _below(f"{name} {child}", found, click.Context(found, info_name=child, parent=ctx))


def _section(name: str, command: click.Command) -> str:
    parts = [f"### {name}", f"```\n{_usage(name, command)}\n```", *_description(command)]
    options = [
        parameter for parameter in command.params if isinstance(parameter, click.Option) and not parameter.hidden
    ]
    if options:
        rows = [f"| `{_spelled(option)}` | {_meaning(option)} |" for option in options]
        parts.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _usage(name: str, command: click.Command) -> str:
    arguments = [_argument(parameter) for parameter in command.params if isinstance(parameter, click.Argument)]
    tail = ["COMMAND ..."] if isinstance(command, click.Group) else []
    return " ".join([name, "[OPTIONS]", *arguments, *tail])


def _argument(parameter: click.Argument) -> str:
    if parameter.metavar:
        return parameter.metavar
    choices = getattr(parameter.type, "choices", None)
    shown = "{" + "|".join(choices) + "}" if choices else str(parameter.name).upper()
    shown += "..." if parameter.nargs == -1 else ""
    return shown if parameter.required else f"[{shown}]"


def _description(command: click.Command) -> Iterator[str]:
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if not paragraph.startswith("\b"):
            yield " ".join(paragraph.split())
            continue
        heading, *lines = paragraph.removeprefix("\b").strip("\n").split("\n")
        indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        shown = "\n".join(line[indent:] for line in lines)
        if heading.startswith("Example"):
            yield f"```sh\n{shown}\n```"
        else:
            yield f"{heading} {' '.join(shown.split())}"


def _spelled(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag or option.count:
        return names
    choices = getattr(option.type, "choices", None)
    shown = option.metavar or ("|".join(map(str, choices)) if choices else option.type.name.split()[0].upper())
    return f"{names} {shown}".replace("|", "\\|")


def _meaning(option: click.Option) -> str:
    text = " ".join((option.help or "").split()).replace("|", "\\|")
    if option.show_default and not callable(option.default) and option.default is not None and not option.is_flag:
        default = option.default if isinstance(option.default, (list, tuple)) else [option.default]
        text += f" Default: `{' '.join(map(str, default))}`."
    return text + (" **Required.**" if option.required else "") + (" May be repeated." if option.multiple else "")


if __name__ == "__main__":
    main()
