"""What continuous integration runs is what was reviewed: actions by commit, packages by version, no more rights than needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(yaml.safe_load(request.param.read_text(encoding="utf-8")))


@pytest.fixture
def tool(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("constraints.py")


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_actions_are_named_by_commit(workflow: dict[str, Any]) -> None:
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert [name for name in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name)] == []


def test_no_checkout_leaves_the_token_behind(workflow: dict[str, Any]) -> None:
    checkouts = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]
    # What comments runs nothing of the repository's.
    assert bool(checkouts) == (workflow["name"] != "comment")
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


# (workflow, job) → what it may beyond reading. Publishing a release writes it, and signing asks for the workflow's identity; what
# audits engines proposes a page, in a job that runs nothing of theirs.
MORE = {
    ("release", "release"): {"contents": "write", "id-token": "write"},
    ("engines", "propose"): {"contents": "write", "pull-requests": "write"},
    ("comment", "comment"): {"pull-requests": "write"},
    ("site", "deploy"): {"pages": "write", "id-token": "write"},
}


def test_a_workflow_has_no_rights_but_those_a_job_names(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {}
    assert all(job["permissions"] for job in workflow["jobs"].values())


def test_jobs_that_anybody_can_start_may_read_and_nothing_else(workflow: dict[str, Any]) -> None:
    triggers = workflow[True]  # YAML's reading of `on`
    assert "pull_request_target" not in triggers
    if "pull_request" in triggers:
        assert all(job["permissions"] == {"contents": "read"} for job in workflow["jobs"].values())


def test_every_requirement_of_the_tests_is_pinned(tool: ModuleType) -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *(line for extra in ("diffusers", "compare", "video", "demo", "test", "dev") for line in project["optional-dependencies"][extra])]  # fmt: skip
    names = {tool.normal(re.split(r"[\[<>=!~; ]", line)[0]) for line in needed} - {"easyteacache"}
    assert names <= set(tool.pins(tool.FILE.read_text(encoding="utf-8")))


def test_an_environment_that_differs_from_the_pins_is_told_so(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "installed", lambda: {"numpy": "2.0.0", "other": "1.0", "torch": "2.13.0"})
    monkeypatch.setattr(tool, "FILE", tmp_path / "constraints.txt")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    (tmp_path / "constraints.txt").write_text("# a comment\nnumpy==2.1.0\ntorch==2.13.0\n")
    result = CliRunner().invoke(tool.main, ["--check"])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[:2] == [
        "numpy 2.0.0 is installed, 2.1.0 is pinned",
        "other 1.0 is installed, nothing is pinned",
    ]
    (tmp_path / "constraints.txt").write_text("numpy==2.0.0\nother==1.0\ntorch==2.13.0\n")
    assert CliRunner().invoke(tool.main, ["--check"]).exit_code == 0


def test_the_lowest_versions_that_are_tested_are_those_that_are_asked_for(tool: ModuleType) -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = {
        tool.normal(name): lowest
        for line in (*project["dependencies"], *extras["diffusers"], *extras["floors"])
        for name, lowest in re.findall(r"^([\w.-]+)>=([\d.]+)", line)
    }
    tested = tool.pins((ROOT / ".ci" / "lowest.txt").read_text(encoding="utf-8"))
    # An old torch is a download of gigabytes; ftfy is there for diffusers' own Wan pipeline.
    exceptions = {"torch", "ftfy"}

    def numbers(versions: dict[str, str]) -> dict[str, tuple[int, ...]]:
        return {
            name: tuple(int(part) for part in (version + ".0.0").split(".")[:3])
            for name, version in versions.items()
            if name not in exceptions
        }

    # transformers 4.57.0 was withdrawn by its authors.
    assert numbers(tested) == numbers(asked) | {"transformers": (4, 57, 1)}
