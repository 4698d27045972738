"""`easyteacache-hub review`: passes a good submission, refuses each planted bad one for the right rule."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from easyteacache.cli.hub import main as hub
from easyteacache.cli.review import review
from easyteacache.hub.review import check_record, rules
from easyteacache.hub.review.check_submission import TraceFiles
from easyteacache.hub.review.json_lines import line_of
from easyteacache.records.calibration import load, save
from easyteacache.records.provenance import TraceReference
from easyteacache.registry import index
from easyteacache.solver.validation.rules import RULES

from ...older_records import written_by_version
from ..conftest import build_folder
from ..solved import KEY, Solved
from .planted import BASE_INDEX, PLANTED, RETIREMENT, Case

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def case(tmp_path: Path, solved: Solved, request: pytest.FixtureRequest) -> Case:
    known = solved.changed(model_key="known/model", aliases=[{"kind": "hub_repository", "value": "Known/Model"}])
    base = [known]
    if "yanked-record-revived" in request.node.name:
        base.append(solved.changed(status="yanked", retirement=RETIREMENT))
    build_folder(tmp_path / "base", *base)
    shutil.copytree(tmp_path / "base", tmp_path / "registry")
    shutil.copytree(solved.traces, tmp_path / "traces")
    made = Case(tmp_path / "registry", tmp_path / "traces", solved)
    BASE_INDEX[made.registry] = (made.registry / index.FILE_NAME).read_bytes()
    save(solved.record, made.path)
    made.relist()
    return made


def judge(case: Case, *options: str) -> Result:
    folder = case.registry.parent
    arguments = ["--registry", case.registry, "--base-folder", folder / "base", "--traces", case.traces, *options]
    return CliRunner().invoke(hub, ["review", *map(str, arguments), "--github", "--root", str(folder)])


def annotated(result: Result) -> list[tuple[str, str, int]]:
    pattern = r"^::error file=(.*?),line=(\d+),title=(.*?)::"
    return [(rule, file, int(line)) for file, line, rule in re.findall(pattern, result.output, re.MULTILINE)]


def test_a_good_submission_passes(case: Case) -> None:
    result = judge(case)
    assert result.exit_code == 0, result.output
    assert "## Submission passed" in result.output
    assert f"| `{KEY}` | 1 | validated | 1 | passed |" in result.output
    assert annotated(result) == []


@pytest.mark.parametrize("defect", PLANTED)
def test_a_bad_submission_is_refused_for_the_right_rule(defect: str, case: Case) -> None:
    rule, plant = PLANTED[defect]
    plant(case)
    result = judge(case)
    assert result.exit_code == 1, result.output
    assert "## Submission refused" in result.output
    places = [(file, line) for found, file, line in annotated(result) if found == rule]
    assert places, result.output
    for file, line in places:
        assert file.startswith(("registry/", "traces/"))
        path = case.registry.parent / file
        assert (
            1 <= line <= (len(path.read_text().splitlines()) or 1 if path.suffix == ".json" and path.is_file() else 1)
        )


@pytest.mark.slow
def test_it_runs_as_the_workflow_runs_it(case: Case, tmp_path: Path) -> None:
    """A program with the workflow's options, an exit code, annotations on its output and a page for the run's summary."""
    page = tmp_path / "summary.md"
    options = ["--github", "--registry", "registry", "--base-folder", "base", "--root", ".", "--traces", "traces"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "tools" / "validate_submission.py"), *options],
            cwd=case.registry.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT), "GITHUB_STEP_SUMMARY": str(page)},
            capture_output=True,
            text=True,
            check=False,
        )

    good = run()
    assert (good.returncode, good.stderr) == (0, "")
    assert "## Submission passed" in page.read_text()
    PLANTED["revision-not-from-one"][1](case)
    bad = run()
    assert bad.returncode == 1
    line = case.path.read_text().splitlines().index('  "revision": 3,') + 1
    assert f"::error file=registry/{KEY}.json,line={line},title=submission.revision::" in bad.stdout
    assert "## Submission refused" in page.read_text()


def test_there_are_enough_ways_to_be_wrong() -> None:
    assert len(PLANTED) >= 25
    assert {rule for rule, _ in PLANTED.values()} <= {
        *rules.MEANINGS,
        *check_record.MEANINGS,
        *RULES,
        *TRACE_RULES,
        *INDEX_RULES,
    }


TRACE_RULES = {"trace.truncated", "trace.hash"}
INDEX_RULES = {"index.json"}


def test_an_annotation_names_the_line_of_the_field(case: Case) -> None:
    PLANTED["revision-not-from-one"][1](case)
    (found,) = annotated(judge(case))
    lines = case.path.read_text().splitlines()
    assert found == ("submission.revision", f"registry/{KEY}.json", lines.index('  "revision": 3,') + 1)


def test_a_renamed_record_is_no_deletion(case: Case) -> None:
    PLANTED["record-deleted"][1](case)
    case.edit(lambda record: record.update(aliases=[{"kind": "former_key", "value": "known/model"}]))
    record = case.solved.changed(aliases=[{"kind": "former_key", "value": "known/model"}])
    save(record, case.path)
    case.relist()
    result = judge(case)
    assert "submission.deleted" not in result.output


def test_a_published_record_of_an_older_version_is_no_change(case: Case) -> None:
    for folder in (case.registry, case.registry.parent / "base"):
        path = folder / "known" / "model.json"
        path.write_text(written_by_version(load(path), 2))
        index.write(folder, index.build(folder))
    result = judge(case)
    assert result.exit_code == 0, result.output
    assert "known/model" not in result.output


def test_a_record_that_is_only_written_in_the_newest_version_keeps_its_revision(case: Case) -> None:
    base = case.registry.parent / "base"
    (base / "test").mkdir()
    old = base / case.path.relative_to(case.registry)
    old.write_text(written_by_version(case.solved.record, 2))
    index.write(base, index.build(base))
    # As this release reads and writes it.
    save(load(old), case.path)
    case.relist()
    result = judge(case)
    assert result.exit_code == 0, result.output
    assert f"| `{KEY}` | 1 → 1 | validated | 1 | passed |" in result.output
    case.edit(lambda record: record.update(title="Another title"))
    assert [rule for rule, _, _ in annotated(judge(case))] == ["submission.revision"]


def test_runs_of_the_maintainers_are_judged_too(case: Case, tmp_path: Path) -> None:
    from easyteacache.records.trace_set import TraceSet

    from ..solved import build_run

    TraceSet(build_run(seed) for seed in range(100, 104)).save(tmp_path / "own.safetensors")
    result = judge(case, "--heldout", str(tmp_path / "own.safetensors"))
    assert result.exit_code == 0, result.output


def test_the_base_can_be_a_commit(case: Case) -> None:
    root = case.registry.parent
    shutil.rmtree(case.registry)
    shutil.copytree(root / "base", case.registry)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(root)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "registry"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "base"], check=True)
    save(case.solved.record, case.path)
    case.relist()
    arguments = ["--registry", str(case.registry), "--traces", str(case.traces), "--base", "HEAD"]
    result = CliRunner().invoke(review, arguments)
    assert result.exit_code == 0, result.output
    assert f"| `{KEY}` |" in result.output
    assert "known/model" not in result.output
    assert CliRunner().invoke(review, [*arguments[:-1], "absent"]).exit_code == 1


@pytest.mark.parametrize(
    ("pointer", "line"), [("", 1), ("/a", 2), ("/b", 3), ("/b/0", 4), ("/b/1/c", 6), ("/b/1/absent", 5), ("/zz", 1)]
)
def test_a_pointer_leads_to_its_line(pointer: str, line: int) -> None:
    text = json.dumps({"a": 1, "b": ["x{", {"c": None}]}, indent=2)
    assert line_of(text, pointer) == line


def test_the_line_of_anything_is_found_without_an_error() -> None:
    import random

    draw = random.Random(0)
    pieces = ['{"a": ', "[", "]", "}", '"', "\\", ",", ":", "1", '"b"', "\n"]
    for _ in range(2000):
        text = "".join(draw.choices(pieces, k=draw.randrange(30)))
        assert 1 <= line_of(text, "/a/0/b") <= text.count("\n") + 1


def workflow(name: str) -> Any:
    return (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")


def test_the_workflow_judges_with_the_rules_of_the_base_branch() -> None:
    text = workflow("validate.yml")
    options = set(re.findall(r"--[a-z-]+", text)) - {"--constraint"}
    known = {option for parameter in review.params for option in parameter.opts}
    assert options <= known
    assert "pull_request_target" not in text
    assert ".ci/run" in workflow("ci.yml")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_no_trace_and_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.mkdir()
    reference = TraceReference.model_construct(file=path.name, sha256="0" * 64, runs=1)
    assert TraceFiles([path]).find(reference) == (
        None,
        "submission.trace-missing" if kind == "folder" else "submission.trace-hash",
    )
