"""Exit codes and the four forms of a report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from easyteacache.audit.scan import RULES

Plant = Callable[[str, str], Path]
Run = Callable[..., Result]
BORROWED = "flux = [2.57151496e+05, -3.54229917e+04, 1.40286849e+03, -1.35890334e+01, 1.32517977e-01]\n"
ROUNDED = "flux = [498.65, -283.78, 55.855, -3.8202, 0.26423]\n"
RIGHT = "flux = [498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861]\n"


@pytest.mark.parametrize(
    ("text", "fail_on", "code"),
    [
        (BORROWED, "error", 1),
        (BORROWED, "never", 0),
        (ROUNDED, "warning", 0),
        (ROUNDED, "note", 1),
        (RIGHT, "note", 0),
    ],
)
def test_the_exit_code_says_whether_a_finding_is_bad_enough(
    text: str, fail_on: str, code: int, plant: Plant, run: Run
) -> None:
    assert run(plant("a.py", text), "--fail-on", fail_on).exit_code == code


def test_by_default_warnings_fail_and_notes_do_not(plant: Plant, run: Run) -> None:
    assert run(plant("a.py", ROUNDED)).exit_code == 0
    assert (
        run(
            plant(
                "a.py",
                "coefficients = {'wan2.1_t2v_1.3B': [-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404]}",
            )
        ).exit_code
        == 1
    )


def test_a_line_of_text_is_file_line_level_rule(plant: Plant, run: Run) -> None:
    tree = plant("src/a.py", "\n" + BORROWED)
    lines = run(tree).stdout.splitlines()
    assert lines[0].startswith(
        f"{tree / 'src' / 'a.py'}:2: error: [borrowed] These coefficients were fitted to wan2.1/i2v-14b-480p"
    )
    assert lines[-1] == "1 known list in 1 file: 1 finding."


def test_all_names_what_was_recognised(plant: Plant, run: Run) -> None:
    result = run(plant("a.py", RIGHT), "--all")
    assert "a.py:1: exact: flux.1/dev (FLUX.1 [dev])" in result.stdout


def test_json_holds_findings_and_everything_recognised(plant: Plant, run: Run) -> None:
    plant("b.py", RIGHT)
    content = json.loads(run(plant("a.py", BORROWED), "--format", "json").stdout)
    (finding,) = content["findings"]
    assert (finding["rule"], finding["level"], finding["line"]) == ("borrowed", "error", 1)
    assert (content["files"], len(content["recognised"])) == (2, 2)


@pytest.mark.skipif(os.name == "nt", reason="no such file names there")
def test_github_annotations_escape_what_the_runner_would_read(plant: Plant, run: Run) -> None:
    tree = plant("a,b:c.py", BORROWED)
    (line,) = run(tree, "--format", "github").stdout.splitlines()
    assert line.startswith("::error file=tree/a%2Cb%3Ac.py,line=1,title=easyteacache borrowed::These coefficients")
    assert run(plant("a,b:c.py", ROUNDED), "--format", "github").stdout.startswith("::notice ")


def test_sarif_has_the_required_structure_of_2_1_0(plant: Plant, run: Run, tmp_path: Path) -> None:
    """Required properties of the OASIS schema: log, run, tool component, rule, result, location, region."""
    plant("src/with space.py", "\n" + BORROWED)
    out = tmp_path / "report.sarif"
    result = run(plant("src/b.py", ROUNDED), "--format", "sarif", "--out", out)
    assert (result.exit_code, result.stdout) == (1, "")
    log: dict[str, Any] = json.loads(out.read_text("utf-8"))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (one,) = log["runs"]
    driver = one["tool"]["driver"]
    assert driver["name"]
    assert [rule["id"] for rule in driver["rules"]] == list(RULES)
    assert {rule["defaultConfiguration"]["level"] for rule in driver["rules"]} <= {"error", "warning", "note", "none"}
    assert len(one["results"]) == 2
    for each in one["results"]:
        assert each["message"]["text"]
        assert driver["rules"][each["ruleIndex"]]["id"] == each["ruleId"]
        assert each["level"] in {"error", "warning", "note"}
        (location,) = each["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"]["uriBaseId"] == "%SRCROOT%"
        assert not place["artifactLocation"]["uri"].startswith(("/", "."))
        assert place["region"]["startLine"] >= 1
        assert len(each["partialFingerprints"]["easyteacache/v1"]) == 32
    uris = [each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for each in one["results"]]
    assert uris == ["tree/src/b.py", "tree/src/with%20space.py"]


def test_a_clean_sarif_log_has_an_empty_list_of_results(plant: Plant, run: Run) -> None:
    log = json.loads(run(plant("a.py", RIGHT), "--format", "sarif").stdout)
    assert log["runs"][0]["results"] == []


def test_a_file_that_cannot_be_read_is_told_and_does_not_end_the_audit(plant: Plant, run: Run) -> None:
    tree = plant("a.py", RIGHT)
    (tree / "b.py").write_bytes(b"\x00\x01")
    result = run(tree)
    assert result.exit_code == 0
    assert result.stderr.startswith("skipped ")
    assert run(tree / "b.py").exit_code == 1
    assert run(tree / "no-such-file.py").exit_code == 2
