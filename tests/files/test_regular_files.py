"""Pipes, devices, sockets and folders are refused at once, wherever a path of the user is opened."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from easyteacache.cli.main import main as program
from easyteacache.errors import InvalidCalibration, InvalidTrace, UnreadableFrames
from easyteacache.files import regular_files
from easyteacache.records import parsing
from easyteacache.records.trace_set import TraceSet

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such files there")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        before = Path.cwd()
        os.chdir(path.parent)  # Names of sockets are short.
        try:
            made.bind(path.name)
        finally:
            os.chdir(before)


ALL = pytest.mark.parametrize("make", [fifo, device, folder, unix_socket], ids=lambda make: make.__name__)
FILES = pytest.mark.parametrize("make", [fifo, device, unix_socket], ids=lambda make: make.__name__)
Make = Callable[[Path], None]


@ALL
def test_what_is_no_regular_file_is_refused(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "x")
    with pytest.raises(regular_files.NotRegular, match="not a regular file"):
        regular_files.read_bytes(tmp_path / "x", max_bytes=10)


@pytest.mark.parametrize(("size", "fits"), [(0, True), (10, True), (11, False)])
def test_no_more_than_the_bound_is_read(size: int, fits: bool, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a" * size)
    if fits:
        assert regular_files.read_bytes(tmp_path / "x", max_bytes=10) == b"a" * size
    else:
        with pytest.raises(regular_files.TooLarge, match="more than the 10 bytes"):
            regular_files.read_bytes(tmp_path / "x", max_bytes=10)


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert regular_files.read_bytes(tmp_path / "link", max_bytes=10) == b"text"


def test_a_file_that_becomes_a_pipe_between_look_and_opening_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("text")
    fifo(tmp_path / "pipe")
    regular = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda path: regular)
    with pytest.raises(regular_files.NotRegular):
        regular_files.read_bytes(tmp_path / "pipe", max_bytes=10)


@FILES
def test_records_and_traces_refuse_them_with_a_rule(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "x.safetensors")
    with pytest.raises(InvalidCalibration, match="not a regular file") as record:
        parsing.read_file(tmp_path / "x.safetensors", rules="record", max_bytes=10)
    assert record.value.rule == "record.unreadable"
    for path in (tmp_path / "x.safetensors", tmp_path):
        with pytest.raises(InvalidTrace, match="not a regular file") as trace:
            TraceSet.load(path)
        assert trace.value.rule == "trace.unreadable"


@FILES
@pytest.mark.parametrize("inside", [False, True])
def test_compared_files_refuse_them(make: Make, inside: bool, tmp_path: Path) -> None:
    from easyteacache.compare import opening

    make(tmp_path / "x.png")
    path = tmp_path if inside else tmp_path / "x.png"
    with pytest.raises(UnreadableFrames, match="regular file"):
        list(opening.open_source(path, opening.ArrayOptions()).frames())


@FILES
def test_import_refuses_them(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    make(tmp_path / "x.json")
    result = CliRunner().invoke(program, ["import", str(tmp_path / "x.json"), "--from", "json", "--key", "a/b"])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "not a regular file" in result.stderr


def test_import_tells_what_a_parser_quotes_of_the_file_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "x.yaml").write_text("cache_config: [\n::error::owned\n")
    (tmp_path / "x.json").write_text(json.dumps({"coefficients": [1, "a\n::error::owned"]}))
    for name, engine in (("x.yaml", "tensorrt-llm"), ("x.json", "json")):
        given = ("--from", engine, "--key", "a/b", "--modality", "image")
        result = CliRunner().invoke(program, ["import", str(tmp_path / name), *given])
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert not any(line.startswith("::") for line in result.stderr.splitlines())
