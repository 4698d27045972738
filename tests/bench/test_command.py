from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from easyteacache.cli.main import main

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`easyteacache bench run`, small, into ``tmp_path / "bench.json"``."""
    small = ["--shape", "1x16x16", "--steps", "6", "--pairs", "1", "--targets", "2"]
    names = ["--contender", "uniform, hold", "--contender", "fewer steps", "--out", str(tmp_path / "bench.json")]
    return lambda *arguments: CliRunner().invoke(main, ["bench", "run", *small, *names, *map(str, arguments)])


def test_what_run_stores_report_shows(run: Run, tmp_path: Path) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "bench.json") in result.stdout
    shown = CliRunner().invoke(
        main, ["bench", "report", str(tmp_path / "bench.json"), "--json", "--plots", str(tmp_path / "plots")]
    )
    assert shown.exit_code == 0, shown.output
    content = json.loads(shown.stdout)
    assert set(content) == {"setup", "machine", "command", "cases"}
    assert set(content["cases"][0]["targets"][0]["contenders"]) == {"uniform, hold", "fewer steps"}
    assert (tmp_path / "plots" / "bench-1x16x16-6.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--shape", "16x16"], 2, "FRAMESxHEIGHTxWIDTH"),
        (["--targets", "2,1"], 2, "speed-ups above 1"),
        (["--contender", "nobody"], 1, "no contender is called 'nobody'"),
        (["--model-path", "nowhere"], 1, "config.json"),
        (["--shape", "4x15x16"], 1, "expected height even"),
        (["--record", "reference/moving-digit"], 1, "reference/moving-digits"),
        (["--record", "nowhere.json"], 1, "nowhere.json"),
        (["--traces", "."], 1, "trace"),
        (["--sampler", "heun"], 2, "'euler', 'unipc'"),
        (["--shift", "0"], 2, "x>0"),
    ],
)
def test_what_cannot_be_done_is_said_before_sampling(
    arguments: list[str], code: int, words: str, run: Run, tmp_path: Path
) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert not (tmp_path / "bench.json").exists()


def test_sampler_and_shift_are_stored_with_the_results(run: Run, tmp_path: Path) -> None:
    result = run("--sampler", "unipc", "--shift", "0.35")
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["setup"]["sampler"] == {"name": "unipc", "shift": 0.35}


def test_report_refuses_what_is_no_file_of_results(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    for name, words in (("other.json", "expected the format"), ("missing.json", "expected a file of results")):
        result = CliRunner().invoke(main, ["bench", "report", str(tmp_path / name)])
        assert result.exit_code == 1
        assert words in result.stderr
