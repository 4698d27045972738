"""Arguments that are wrong, and files that are not what they were given as: one sentence, no traceback, no wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from easyteacache.calibrating import one_call
from easyteacache.cli import parameters
from easyteacache.cli.hub import main as hub
from easyteacache.cli.main import main
from easyteacache.recording.share import share_of_environment

ONE_RUN = (
    "record",
    "reference",
    "--size",
    "16x16",
    "--frames",
    "1",
    "--steps",
    "3",
    "--num-prompts",
    "1",
    "--out",
    "o",
)
#: Every command that reads a file of prompts, up to the file.
READERS = (
    (*ONE_RUN, "--prompts"),
    ("calibrate", "reference", "--steps", "3", "--prompts"),
    ("bench", "run", "nobody/nothing", "--quick", "--out", "b.json", "--prompts"),
    ("verify-claim", "reference/moving-digits", "--model", "reference", "--by", "me", "--out", "v.json", "--prompts"),
)


def said(*arguments: str | os.PathLike[str], code: int) -> str:
    program = hub if arguments[0] == "verify-claim" else main
    result = CliRunner().invoke(program, [os.fspath(one) for one in arguments])
    assert result.exit_code == code, result.output
    assert "not expected" not in result.stderr
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("command", READERS, ids=lambda command: command[0])
def test_a_file_of_prompts_that_is_none_is_one_sentence(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wide.txt").write_bytes("4 up\n".encode("utf-16"))
    assert "is not UTF-8 text" in said(*command, "wide.txt", code=2)
    (tmp_path / "empty.txt").write_text(" \n\n")
    assert "found none" in said(*command, "empty.txt", code=2)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.txt")
        assert "not a regular file" in said(*command, "pipe.txt", code=1)


def test_a_prompt_is_what_stands_on_a_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeff4 up\r\na fox,\u2028running\n\n  7 left \n".encode())
    assert parameters.prompts_in(file) == ["4 up", "a fox,\u2028running", "7 left"]


@pytest.mark.parametrize("seeds", ["5-3", "²", "1-", "-1", "9" * 5000, "0-99999999999", "0-60000,0-60000"])
def test_seeds_that_are_none_or_too_many_are_wrong_usage(seeds: str) -> None:
    assert "seed" in said(*ONE_RUN, "--seeds", seeds, code=2)


@pytest.mark.parametrize(
    ("command", "option"),
    [(ONE_RUN, "--shift"), (ONE_RUN, "--guidance"), (("calibrate", "reference"), "--shift")]
    + [(("doctor", "reference"), option) for option in ("--shift", "--guidance")]
    + [(("bench", "run", "--quick"), option) for option in ("--shift", "--guidance")]
    + [(("verify-claim", "a/b", "--model", "reference", "--by", "me", "--prompts", __file__), "--speedup")],
    ids=lambda value: value if isinstance(value, str) else value[0],
)  # fmt: skip
@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_number_that_is_none_is_wrong_usage(command: tuple[str, ...], option: str, number: str) -> None:
    assert "is not a finite number" in said(*command, option, number, code=2)


@pytest.mark.parametrize("device", ["nowhere", "cuda:99999999999"])
@pytest.mark.parametrize("command", [ONE_RUN, ("doctor", "reference"), ("bench", "run", "--quick", "--out", "b.json")])
def test_a_device_that_is_none_is_wrong_usage(
    command: tuple[str, ...], device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "cannot be used here" in said(*command, "--device", device, code=2)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    for command in (
        ("record", tmp_path / "model.json", "--model-key", "a/b", "--out", tmp_path),
        ("doctor", tmp_path / "model.json"),
    ):
        assert "is no model that can be loaded" in said(*command, code=1)


@pytest.mark.parametrize(
    ("rank", "count"),
    [("3", None), ("0", "0"), ("1", "1"), ("x", "2"), ("-1", "2"), ("0", "two"), ("", "1"), ("²", "3")],
)
def test_a_process_that_is_nobodys_share_records_nothing(
    rank: str, count: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RANK=3 alone used to leave out the first three runs, and to say that all were recorded."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if count is not None:
        monkeypatch.setenv("WORLD_SIZE", count)
    for command in (ONE_RUN, ("calibrate", "reference")):
        assert "name no share of the runs" in said(*command, code=2)
    with pytest.raises(ValueError, match="name no share"):
        one_call._Share.of_environment()


def test_a_share_is_a_number_below_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert share_of_environment() == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert share_of_environment() == (2, 4)
