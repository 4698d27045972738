"""What both programs do with every command: lazy loading, errors, exit codes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from easyteacache.cli import lazy
from easyteacache.cli.hub import main as hub
from easyteacache.cli.lazy import LazyCommand, LazyGroup
from easyteacache.cli.main import main as program
from easyteacache.errors import EasyTeaCacheError, UnknownModelKey

RAISED: list[BaseException] = []


@click.command()
def failing() -> None:
    """Raise what the test asked for."""
    raise RAISED[-1]


@pytest.fixture
def group() -> LazyGroup:
    RAISED.clear()
    module = sys.modules[__name__]
    sys.modules["tests_cli_failing"] = module
    return LazyGroup(
        "try-it",
        table={
            "fail": LazyCommand("tests_cli_failing:failing", "Fail."),
            "absent": LazyCommand("easyteacache.no_such_module:command", "Not written yet."),
        },
    )


def test_help_names_every_command_without_importing_one(group: LazyGroup) -> None:
    result = CliRunner().invoke(group, ["--help"])
    assert result.exit_code == 0
    assert "Not written yet." in result.output
    assert "Fail." in result.output


def test_a_project_error_is_one_line_on_stderr_and_exit_code_1(group: LazyGroup) -> None:
    RAISED.append(EasyTeaCacheError("expected a, found b: do c"))
    result = CliRunner().invoke(group, ["fail"])
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: expected a, found b: do c\n")


def test_an_error_that_is_also_a_lookup_error_keeps_its_text(group: LazyGroup) -> None:
    RAISED.append(UnknownModelKey("a/b", suggestions=["a/c"]))
    result = CliRunner().invoke(group, ["fail"])
    assert result.stderr.startswith("Error: no calibration named 'a/b'. Did you mean 'a/c'?")


def test_an_error_message_cannot_command_the_terminal(group: LazyGroup) -> None:
    RAISED.append(EasyTeaCacheError("file \x1b[2Jname"))
    assert "\x1b" not in CliRunner().invoke(group, ["fail"], color=True).stderr


def test_an_operating_system_error_names_the_file(group: LazyGroup) -> None:
    RAISED.append(PermissionError(errno.EACCES, "Permission denied", "/some/file"))
    result = CliRunner().invoke(group, ["fail"])
    assert (result.exit_code, result.stderr) == (1, "Error: /some/file: Permission denied\n")


def test_the_traceback_variable_lets_the_error_through(group: LazyGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lazy.TRACEBACK, "1")
    RAISED.append(EasyTeaCacheError("broken"))
    assert CliRunner().invoke(group, ["fail"]).exception is RAISED[-1]


def test_a_programming_error_is_not_hidden(group: LazyGroup) -> None:
    RAISED.append(ZeroDivisionError("a bug"))
    assert CliRunner().invoke(group, ["fail"]).exception is RAISED[-1]


def test_an_interruption_exits_130_with_a_short_line(group: LazyGroup) -> None:
    RAISED.append(KeyboardInterrupt())
    result = CliRunner().invoke(group, ["fail"])
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_wrong_usage_exits_2(group: LazyGroup) -> None:
    assert CliRunner().invoke(group, ["fail", "--no-such-option"]).exit_code == 2
    assert CliRunner().invoke(group, ["no-such-command"]).exit_code == 2


@pytest.mark.parametrize(
    ("main", "typed", "hint"),
    [
        (hub, "lits", "Did you mean 'list'?"),
        (program, "dmeo", "Did you mean 'demo'?"),
        (program, "show", "It is a command of easyteacache-hub: easyteacache-hub show"),
        (hub, "demo", "It is a command of easyteacache: easyteacache demo"),
    ],
)
def test_a_command_that_is_not_there_is_answered_with_one_that_is(main: LazyGroup, typed: str, hint: str) -> None:
    result = CliRunner().invoke(main, [typed])
    assert result.exit_code == 2
    assert f"No such command '{typed}'. {hint}" in result.stderr


@pytest.mark.parametrize("main", [program, hub])
def test_version_is_the_packages(main: LazyGroup) -> None:
    from easyteacache import __version__

    assert __version__ in CliRunner().invoke(main, ["--version"]).output


@pytest.mark.parametrize("main", [program, hub])
def test_every_line_of_the_table_leads_to_its_command(main: LazyGroup) -> None:
    for name in main.list_commands(click.Context(main)):
        command = main.get_command(click.Context(main), name)
        assert command is not None
        assert command.name == name


@pytest.mark.parametrize("main", [program, hub])
def test_command_names_complete_without_importing_commands(main: LazyGroup) -> None:
    items = main.shell_complete(click.Context(main), "compl")
    assert [item.value for item in items] == ["completion"]


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send")
def test_control_c_in_a_real_process_leaves_no_traceback(tmp_path: Path) -> None:
    code = (
        "import os, signal, easyteacache.cli.where as where\n"
        # A shell's background job inherits an ignored SIGINT.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "where.open_registry = lambda folder: os.kill(os.getpid(), signal.SIGINT)\n"
        "from easyteacache.cli.hub import main\n"
        "main(['where'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (128 + signal.SIGINT, "Interrupted.")


@pytest.mark.skipif(os.name == "nt", reason="pipes close differently there")
def test_a_closed_pipe_is_silent(registry_folder: Path, make_record: Callable[..., object]) -> None:
    code = (
        "import os, sys\n"
        "from easyteacache.cli.hub import main\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        f"main(['show', 'tiny/video', '--registry', {str(registry_folder)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_characters_that_the_stream_cannot_show_are_replaced(registry_folder: Path) -> None:
    arguments = ["-m", "easyteacache.cli.hub", "show", "tiny/video", "--registry", str(registry_folder)]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
