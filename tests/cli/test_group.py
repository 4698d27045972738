"""What both programs do with every command: lazy loading, errors, exit codes."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from easyteacache.cli import lazy
from easyteacache.cli.hub import main as hub
from easyteacache.cli.lazy import LazyCommand, LazyGroup
from easyteacache.cli.main import main as program
from easyteacache.cli.warned import warnings_as_lines
from easyteacache.errors import EasyTeaCacheError, EasyTeaCacheWarning, UnknownModelKey

RAISED: list[BaseException] = []


@click.command()
def failing() -> None:
    """Raise what the test asked for."""
    raise RAISED[-1]


@click.command()
@click.argument("texts", nargs=-1)
def warning(texts: tuple[str, ...]) -> None:
    """Warn of each text, then print that it is done."""
    for said in texts:
        warnings.warn(said, EasyTeaCacheWarning, stacklevel=1)
    click.echo("done")


@pytest.fixture
def group() -> LazyGroup:
    RAISED.clear()
    module = sys.modules[__name__]
    sys.modules["tests_cli_failing"] = module
    return LazyGroup(
        "try-it",
        table={
            "fail": LazyCommand("tests_cli_failing:failing", "Fail."),
            "warn": LazyCommand("tests_cli_failing:warning", "Warn."),
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


def test_a_warning_is_one_line_on_stderr_each_text_once(group: LazyGroup) -> None:
    before = warnings.showwarning
    result = CliRunner().invoke(group, ["warn", "first \x1b[2J\nof all", "second", "second"])
    assert (result.exit_code, result.stdout) == (0, "done\n")
    assert result.stderr == "Warning: first \ufffd[2J of all\nWarning: second\n"
    assert warnings.showwarning is before


def test_a_warning_takes_the_line_of_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    from tqdm import tqdm

    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with tqdm(total=2, file=sys.stderr), warnings_as_lines():
        warnings.warn("first", EasyTeaCacheWarning, stacklevel=1)
    assert "\rWarning: first\n" in sys.stderr.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("option", "stderr", "code"),
    [("error::UserWarning", "Error: first\n", 1), ("ignore", "", 0)],
)
def test_what_python_is_told_of_warnings_is_kept(
    group: LazyGroup, monkeypatch: pytest.MonkeyPatch, option: str, stderr: str, code: int
) -> None:
    monkeypatch.setattr(sys, "warnoptions", [option])
    with warnings.catch_warnings():
        warnings.simplefilter(option.partition(":")[0])  # type: ignore[arg-type]
        result = CliRunner().invoke(group, ["warn", "first"])
    assert (result.exit_code, result.stderr) == (code, stderr)


def test_another_package_s_warning_is_left_to_python() -> None:
    with pytest.warns(FutureWarning, match="theirs"), warnings_as_lines():
        warnings.warn("theirs", FutureWarning, stacklevel=1)


def test_an_operating_system_error_names_the_file(group: LazyGroup) -> None:
    RAISED.append(PermissionError(errno.EACCES, "Permission denied", "/some/file"))
    result = CliRunner().invoke(group, ["fail"])
    assert (result.exit_code, result.stderr) == (1, "Error: /some/file: Permission denied\n")


def test_the_traceback_variable_lets_the_error_through(group: LazyGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lazy.TRACEBACK, "1")
    RAISED.append(EasyTeaCacheError("broken"))
    assert CliRunner().invoke(group, ["fail"]).exception is RAISED[-1]


@pytest.mark.parametrize(
    "arguments", [("--debug", "fail"), ("fail", "--debug")], ids=["before the command", "behind it"]
)
@pytest.mark.parametrize("error", [EasyTeaCacheError("broken"), ZeroDivisionError("a bug"), OSError("no")], ids=str)
def test_debug_lets_the_error_through(group: LazyGroup, arguments: tuple[str, ...], error: Exception) -> None:
    RAISED.append(error)
    assert CliRunner().invoke(group, arguments).exception is error


def test_debug_behind_a_double_dash_is_an_argument(group: LazyGroup) -> None:
    RAISED.append(ZeroDivisionError())
    assert CliRunner().invoke(group, ["fail", "--", "--debug"]).exit_code == 2


TORCH_SAYS = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 3.00 GiB is free. "
    "Of the allocated memory 70.00 GiB is allocated by PyTorch.\nSee documentation for Memory Management"
)
CPU_SAYS = "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 81000000000 bytes. Error code 12"  # fmt: skip


class OutOfMemoryError(RuntimeError):
    """Named as torch's own, of which a CPU build may lack the CUDA part."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("a bug"), "this was not expected, ZeroDivisionError: a bug. --debug shows the traceback."),
        (AssertionError(), "this was not expected, AssertionError. --debug shows the traceback."),
        (KeyError("x"), "this was not expected, KeyError: 'x'. --debug shows the traceback."),
        (ValueError("one\ntwo\nthree"), "this was not expected, ValueError: one. --debug shows the traceback."),
        (ValueError("\x1b[2J" + "x" * 5000), "\ufffd[2Jxxx"),
        (OutOfMemoryError(TORCH_SAYS), "there is not enough memory for this, 20.00 GiB more were asked for."),
        (RuntimeError(CPU_SAYS), "there is not enough memory for this, 81000000000 bytes more were asked for."),
        (MemoryError("Unable to allocate 4.00 TiB for an array"), "not enough memory for this, 4.00 TiB more"),
        (MemoryError(), "there is not enough memory for this. "),
        (RuntimeError("expected scalar type Half"), "this was not expected, RuntimeError: expected scalar type Half."),
        (ModuleNotFoundError("No module named 'diffusers'", name="diffusers"), 'pip install "easyteacache[diffusers]"'),
        (ModuleNotFoundError("No module named 'skimage.x'", name="skimage.x"), 'pip install "easyteacache[compare]"'),
        (ModuleNotFoundError("No module named 'other'", name="other"), "this needs other, which is not installed"),
        (ImportError("cannot import name 'a' from 'b'"), "ImportError: cannot import name 'a' from 'b'."),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum recursion depth exceeded."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_nobody_expects_is_one_sentence(group: LazyGroup, error: Exception, said: str) -> None:
    RAISED.append(error)
    result = CliRunner().invoke(group, ["fail"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert len(result.stderr) < 500
    assert "\x1b" not in result.stderr


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
        (program, "pull", "It is a command of easyteacache-hub: easyteacache-hub pull"),
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


def test_characters_that_the_stream_cannot_show_stand_in_plain_marks(registry_folder: Path) -> None:
    code = "from easyteacache.cli.lazy import LazyGroup; import click\n" \
        "click.command('x')(lambda: None)\n" \
        "group = LazyGroup('g', table={}, invoke_without_command=True, callback=lambda: click.echo('█ → …'))\n" \
        "group([])"  # fmt: skip
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "# -> …\n".encode("cp1252"), b"")


def test_the_package_can_be_run() -> None:
    done = subprocess.run([sys.executable, "-m", "easyteacache", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: easyteacache [OPTIONS]")


def test_what_needs_no_hub_is_offered_by_both_programs() -> None:
    shared = {"list", "show", "resolve", "identify", "audit", "diff", "verify"}
    assert shared <= set(program.table)
    assert shared <= set(hub.table)


@pytest.mark.parametrize("name", sorted(program.shared))
def test_the_help_of_a_shared_command_calls_the_program_it_was_asked_of(name: str) -> None:
    own = CliRunner().invoke(program, [name, "--help"]).output
    other = CliRunner().invoke(hub, [name, "--help"]).output
    assert f"easyteacache {name}" in own
    assert "easyteacache-hub" not in own.replace("easyteacache-hub pull", "")
    assert f"easyteacache-hub {name}" in other
