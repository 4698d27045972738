"""The job that calibrates on a rented machine: its own list of what it needs is true, and it brings home what it made."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "tools" / "calibrate_job.py"


def metadata() -> str:
    """The inline metadata as PEP 723 finds it."""
    found = re.search(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$", JOB.read_text(encoding="utf-8"))
    assert found is not None
    return "".join(line.removeprefix("#").removeprefix(" ") for line in found["content"].splitlines(keepends=True))


def test_it_names_what_it_needs_by_pep_723() -> None:
    tomllib = pytest.importorskip("tomllib")
    content = tomllib.loads(metadata())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert content["requires-python"] == project["requires-python"]
    own = next(one for one in content["dependencies"] if one.startswith("easyteacache["))
    assert set(re.findall(r"[\w-]+", own.partition("[")[2])) <= set(project["optional-dependencies"])


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(JOB), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_it_asks_where_the_results_go_before_anything_runs(tmp_path: Path) -> None:
    done = run("reference", cwd=tmp_path)
    assert done.returncode == 2
    assert "--keep, --upload or --push" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_it_calibrates_and_keeps_record_and_traces(tmp_path: Path) -> None:
    done = run("reference", "--keep", "results", "--", "--steps", "12", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "results").glob("*.json")
    assert json.loads(record.read_text(encoding="utf-8"))["status"] == "validated"
    assert list((tmp_path / "results" / "traces").glob("*.safetensors"))
