from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from easyteacache.cli.demo import FILES, demo
from easyteacache.cli.main import main

Run = Callable[..., Result]


@pytest.fixture
def run(reference_registry: Path, tmp_path: Path) -> Run:
    """`easyteacache demo`, small, into ``tmp_path / "out"``."""
    small = ["--steps", "8", "--frames", "1", "--size", "16", "--samples", "1"]
    places = ["--registry", str(reference_registry), "--out", str(tmp_path / "out")]
    return lambda *arguments: CliRunner().invoke(main, ["demo", *small, *places, *map(str, arguments)])


def test_the_table_compares_and_the_files_are_named(run: Run, tmp_path: Path) -> None:
    result = run("--threshold", 0.4)
    assert result.exit_code == 0, result.output
    for variant in ("uncached", "cached", "fewer steps"):
        assert re.search(rf"^{variant} .* of \d", result.stdout, re.MULTILINE)
    assert "Warning" not in result.stderr
    assert all(str(tmp_path / "out" / name) in result.stdout for name in FILES.values())
    assert max(map(len, result.stdout.replace(str(tmp_path), "").splitlines())) <= 80


def test_json_is_the_file_and_has_the_documented_keys(run: Run, tmp_path: Path) -> None:
    content: dict[str, Any] = json.loads(run("--threshold", 0.4, "--json").stdout)
    assert content == json.loads((tmp_path / "out" / FILES["json"]).read_text())
    documented = set(re.findall(r"[a-z_]+", (demo.help or "").partition("JSON:")[2]))
    rows, samples = content["rows"], content["samples"]
    assert set(content) | set(content["policy"]) | set(rows[0]) | set(samples[0]) <= documented
    assert [row["variant"] for row in rows] == ["uncached", "cached", "fewer steps"]
    assert rows[0]["psnr"] is None
    assert rows[1]["psnr"] > 5


def test_a_speedup_of_two_is_the_default(run: Run) -> None:
    assert json.loads(run("--json").stdout)["policy"]["threshold"] == 0.4
    assert json.loads(run("--speedup", 4, "--json").stdout)["policy"]["threshold"] == 2.0


def test_the_calibration_may_be_a_file(run: Run, reference_registry: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_bytes((reference_registry / "reference" / "moving-digits.json").read_bytes())
    by_file, by_key = (json.loads(run("--json", *more).stdout)["policy"] for more in (("--key", file), ()))
    assert by_file.pop("layer") == str(file)
    by_key.pop("layer")
    assert by_file == by_key


def test_where_the_calibration_does_not_hold_it_says_so_and_reuses_nothing(run: Run) -> None:
    result = run("--steps", 5)
    assert result.stderr.count("Warning: reference/moving-digits: It was made for 8 steps, not 5 steps") == 1
    assert "nothing can be reused at this setting" in result.stdout
    assert re.search(r"^cached +5 of 5 .* equal", result.stdout, re.MULTILINE)


def test_other_files_of_the_folder_stay_and_its_own_are_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "demo.png").write_text("somebody's own")
    (tmp_path / "out" / FILES["json"]).write_text("an earlier run's")
    assert run("--threshold", 0.4).exit_code == 0
    assert (tmp_path / "out" / "demo.png").read_text() == "somebody's own"
    assert (tmp_path / "out" / FILES["json"]).read_text().startswith("{")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*FILES.values(), "demo.png"])


def test_a_file_in_place_of_the_folder_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    result = run("--threshold", 0.4)
    assert (result.exit_code, result.stdout) == (2, "")
    assert (tmp_path / "out").read_text() == "a file"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--size", "17"], 1, "even and at least 16"),
        (["--size", "8x16"], 1, "even and at least 16"),
        (["--size", "big"], 2, "WIDTHxHEIGHT"),
        (["--frames", "9"], 2, "--frames"),
        (["--steps", "1"], 2, "--steps"),
        (["--threshold", "1", "--speedup", "2"], 2, "exclude each other"),
        (["--speedup", "9"], 1, "not calibrated"),
        (["--key", "reference/moving-digit"], 1, "Did you mean 'reference/moving-digits'?"),
    ],
)
def test_what_cannot_be_done_is_said_before_sampling(
    arguments: list[str], code: int, words: str, run: Run, tmp_path: Path
) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_missing_extras_name_the_command_that_installs_them(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    present = importlib.util.find_spec
    absent = {"matplotlib", "skimage"}
    monkeypatch.setattr("easyteacache.cli.extras.find_spec", lambda name: None if name in absent else present(name))
    result = run()
    assert result.exit_code == 1
    assert "matplotlib, scikit-image" in result.stderr
    assert 'pip install "easyteacache[demo]"' in result.stderr
