"""Every command explains itself, and docs/cli.md says the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "tools" / "docs" / "cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


TOOL = load_tool()
COMMANDS: dict[str, click.Command] = dict(TOOL.every_command())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_of_itself(name: str) -> None:
    result = CliRunner().invoke(COMMANDS[name], ["--help"])
    text = COMMANDS[name].help or ""
    assert result.exit_code == 0
    if not isinstance(COMMANDS[name], click.Group):
        _, found, examples = text.partition("Example")
        assert found, "no example"
        assert name in examples, "no example calls the command by its name"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_has_help(name: str) -> None:
    options = [parameter for parameter in COMMANDS[name].params if isinstance(parameter, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns(name: str) -> None:
    lines = CliRunner().invoke(COMMANDS[name], ["--help"], terminal_width=80).output.splitlines()
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in TOOL.PROGRAMS])
def test_every_command_is_documented(name: str) -> None:
    assert f"\n### {name}\n" in TOOL.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not isinstance(command, click.Group)])
def test_a_json_option_comes_with_its_keys(name: str) -> None:
    options = [one for one in COMMANDS[name].params if isinstance(one, click.Option) and "--json" in one.opts]
    for option in options:
        assert "JSON keys:" in (text := COMMANDS[name].help or "") or "JSON:" in text or "JSON:" in (option.help or "")


def test_the_reference_is_what_the_tool_generates() -> None:
    page = TOOL.PAGE.read_text(encoding="utf-8")
    assert TOOL.with_reference(page) == page, "run python tools/docs/cli_reference.py"
