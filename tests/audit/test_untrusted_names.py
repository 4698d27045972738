"""File names and texts that nobody vouches for: no line of their own, no command to a runner, nothing that hangs."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from easyteacache.audit.ignore_file import FILE_NAME
from easyteacache.audit.scan import Standard, audit, audit_text
from easyteacache.cli.hub import main as hub
from easyteacache.files import console
from easyteacache.registry.registry import Registry

Plant = Callable[[str, str], Path]
Run = Callable[..., Result]
BORROWED = "flux = [2.57151496e+05, -3.54229917e+04, 1.40286849e+03, -1.35890334e+01, 1.32517977e-01]\n"
posix = pytest.mark.skipif(os.name == "nt", reason="no such file names there")
NAMES = [
    "a\n::error::owned.py",
    "a\r::error::owned.py",
    "::error::owned.py",
    "a ::error::owned.py",
    "##[error]owned.py",
    "a##vso[task.setvariable]owned.py",
    "a\x1b[2Jowned.py",
    "a\u2028::error::owned.py",
    "a\u202eowned.py",
    "a\x85::stop-commands::owned.py",
]


def commands(output: str) -> list[str]:
    """Lines that a runner of GitHub's or Azure's would act on, however it splits lines."""
    lines = [line.strip() for line in output.splitlines()]
    return [line for line in lines if line.startswith("::") or "##[" in line or "##vso[" in line]


@posix
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [(), ("--all",)])
def test_a_file_name_gives_a_report_no_line_and_no_command(
    name: str, options: tuple[str, ...], plant: Plant, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plant(name, BORROWED))
    result = run(".", *options)
    assert result.exit_code == 1
    assert len(result.stdout.split("\n")) == 3 + len(options)
    assert commands(result.stdout) == []
    assert all(c.isprintable() or c == "\n" for c in result.stdout)


@posix
@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_skipped_is_told_on_one_line(
    name: str, plant: Plant, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = plant("a.py", "")
    (tree / name).write_bytes(b"\0")
    monkeypatch.chdir(tree)
    result = run(".")
    assert result.stderr.startswith("skipped ")
    assert result.stderr.count("\n") == 1
    assert commands(result.output) == []


@posix
def test_annotations_keep_the_real_name_and_one_command_a_finding(plant: Plant, run: Run) -> None:
    tree = plant("a\n::error::owned.py", BORROWED)
    (line,) = run(tree, "--format", "github").stdout.splitlines()
    assert line.startswith("::error file=tree/a%0A%3A%3Aerror%3A%3Aowned.py,line=1,")


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse such names")
@pytest.mark.parametrize("form", ["text", "json", "sarif", "github"])
def test_a_name_that_is_no_utf_8_is_written_with_escapes(form: str, plant: Plant, run: Run) -> None:
    tree = plant("a.py", "")
    Path(os.fsdecode(os.fsencode(tree) + b"/b\xff.py")).write_text(BORROWED)
    result = run(tree, "--format", form)
    assert result.exit_code == 1
    assert "xff" in result.stdout or "udcff" in result.stdout
    if form in ("json", "sarif"):
        json.loads(result.stdout)


def test_identify_breaks_up_what_a_runner_would_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    file = tmp_path / ("x" * 60 + " ::error::owned.py")
    file.write_text(BORROWED)
    result = CliRunner().invoke(hub, ["identify", str(file)])
    assert result.exit_code == 0
    assert commands(result.output) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain/file.py", "plain/file.py"),
        ("C:\\folder\\file.py", "C:\\folder\\file.py"),
        ("std::vector", "std::vector"),
        ("a\nb", r"a\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\udcff", r"\udcff"),
        ("::set-env", r"\x3a:set-env"),
        ("x ::set-env", r"x \x3a:set-env"),
        ("##[error]", r"#\x23[error]"),
        ("###", r"#\x23#"),
        ("größer 流", "größer 流"),
    ],
)
def test_text_of_others_is_escaped_as_a_python_string_is(text: str, shown: str) -> None:
    assert console.escaped(text) == shown


# Special files ------------------------------------------------------------------------------------------------------------


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        before = Path.cwd()
        os.chdir(path.parent)  # Names of sockets are short.
        try:
            made.bind(path.name)
        finally:
            os.chdir(before)


SPECIAL = [fifo, device, unix_socket]


@posix
@pytest.mark.parametrize("make", SPECIAL, ids=lambda make: make.__name__)
@pytest.mark.parametrize("command", ["audit", "identify"])
def test_a_special_file_is_refused_with_a_sentence(
    make: Callable[[Path], None], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    make(tmp_path / "source.py")
    result = CliRunner().invoke(hub, [command, str(tmp_path / "source.py")])
    assert result.exit_code == 1
    assert "not a regular file" in result.stderr
    assert result.stderr.count("\n") == 1


@posix
@pytest.mark.parametrize("make", SPECIAL, ids=lambda make: make.__name__)
@pytest.mark.parametrize("command", ["audit", "identify"])
def test_a_special_file_inside_a_folder_is_passed_over(
    make: Callable[[Path], None], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    tree = tmp_path / "tree"
    tree.mkdir()
    make(tree / "source.py")
    (tree / "flux.py").write_text(BORROWED)
    assert stat.S_ISREG((tree / "flux.py").stat().st_mode)
    result = CliRunner().invoke(hub, [command, str(tree)])
    assert "wan2.1/i2v-14b-480p" in result.stdout
    # Links are not followed, so that a device behind one is not even looked at.
    assert ("not a regular file" in result.stderr) == (make is not device)


@posix
@pytest.mark.parametrize("make", [fifo, device], ids=lambda make: make.__name__)
def test_an_ignore_file_that_is_no_file_is_none(make: Callable[[Path], None], plant: Plant, bundled: Registry) -> None:
    tree = plant("flux.py", BORROWED)
    make(tree / FILE_NAME)
    assert len(audit(tree, bundled).findings) == 1


def test_an_ignore_file_without_end_is_refused(plant: Plant, run: Run) -> None:
    tree = plant("flux.py", BORROWED)
    (tree / FILE_NAME).write_bytes(b"#" * ((1 << 20) + 1))
    result = run(tree)
    assert (result.exit_code, "1048576 bytes" in result.stderr) == (1, True)


def test_the_same_list_twice_on_one_line_is_judged_twice(standard: Standard) -> None:
    """As in a minified file: right under one name, borrowed under the other."""
    numbers = BORROWED.partition("= ")[2].strip()
    text = '{"wan2.1_i2v_480p": ' + numbers + ', "flux": ' + numbers + "}"
    assert [finding.rule for finding in audit_text(text, standard, filename="table.json")[1]] == ["borrowed"]
